"""A server that stands still keeps its connections open: no request fails, and people are told all the same."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from flavor import silence
from flavor.bus.connection import connect, shown
from flavor.bus.embedded import embedded_server
from flavor.bus.lease import Lease, LeaseKeeper
from tests.polled import eventually


def test_who_renews_a_lease_late_is_told_before_it_counts_as_renewed() -> None:
    late, seen = threading.Event(), list[bool]()

    class Kept:
        ttl_s = 0.06

        def keep(self) -> bool:
            eventually(
                "it is overdue", lambda: keeper.overdue, pause_s=0.001
            )  # the server stands still, or this process
            return True

    def note() -> None:
        seen.append(keeper.overdue)
        late.set()

    keeper = LeaseKeeper(Kept(), lost=lambda: None, late=note)
    keeper.start()
    assert late.wait(30)
    keeper.stop()
    assert all(seen)


def test_a_server_that_stands_still_is_told_of_once_and_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(silence, "FIRST_S", 0.1)
    renewed, standing = threading.Event(), threading.Event()
    with embedded_server(folder=tmp_path) as url, connect(url) as redis:
        server = redis.info("server")["process_id"]
        lease = Lease(redis, "lease", ttl_s=30.0, what="the coordinator")
        lease.acquire(told=print)
        keep = lease.renew

        class Kept:
            ttl_s = 0.03

            def keep(self) -> bool:
                if not standing.is_set():
                    os.kill(server, signal.SIGSTOP)
                    threading.Timer(0.5, os.kill, [server, signal.SIGCONT]).start()
                    standing.set()
                return keep()

        keeper = LeaseKeeper(Kept(), lost=lambda: None, beat=renewed.set, where=shown(url))
        keeper.start()
        assert renewed.wait(30)
        keeper.stop()
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"flavor: Redis at {shown(url)} has given a request no answer for 0 s; waiting for it",
        f"flavor: Redis at {shown(url)} answers again",
    ]
