"""A server that takes connections and answers nothing: each request ends, and none is sent again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from flavor.bus import answers
from flavor.bus.connection import Redis, connect, shown, translated
from flavor.bus.embedded import embedded_server
from flavor.bus.lease import Lease
from flavor.errors import BusUnavailable


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that a test may make stand still."""
    monkeypatch.setattr(answers, "LEAST_S", 0.3)
    monkeypatch.setattr(answers, "TOLD_AFTER_S", 0.2)
    with embedded_server(folder=tmp_path) as url:
        yield url


class Standing:
    """Makes the server of a client stand still in a block."""

    def __init__(self, client: Redis) -> None:
        self._pid = client.info("server")["process_id"]

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


def test_a_request_without_an_answer_ends_after_the_patience_and_is_sent_once(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(url, patience_s=0.5) as client:
        client.set("counted", 0)
        refused = pytest.raises(BusUnavailable, match=r"no answer for .* answers nothing")
        with Standing(client), refused, translated(shown(url)):
            client.incr("counted")
        assert client.get("counted") == "1"
    said = capsys.readouterr().err
    assert said.startswith(f"flavor: Redis at {shown(url)} has given a request no answer for 0 s; waiting for it for")


def test_a_client_with_less_patience_cuts_no_other_one_off(url: str) -> None:
    """The results, the messages and the board of a program give a server up long before its main thread."""
    with connect(url, patience_s=60.0) as patient, connect(url, patience_s=0.3) as hasty:
        patient.set("counted", 0)
        hasty.ping()
        with Standing(patient):
            counted: list[object] = []
            waiting = threading.Thread(target=lambda: counted.append(patient.incr("counted")))
            waiting.start()
            for _ in range(2):
                with pytest.raises(answers.Unanswered):
                    hasty.ping()
            waiting.join(1.5)  # more than what is left to a request at a server that was given up
            assert waiting.is_alive()
        waiting.join(30)
        assert counted == [1]


def test_a_person_is_told_that_it_answers_again(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with connect(url, patience_s=30.0) as client:
        standing = Standing(client)
        standing.__enter__()
        tell = answers.countdown.silent

        def told(where: str, seconds: float, *, left_s: float | None = None) -> None:
            tell(where, seconds, left_s=left_s)
            standing.__exit__()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(answers.countdown, "silent", told)
            client.set("a", 1)
    assert capsys.readouterr().err.splitlines()[-1] == f"flavor: Redis at {shown(url)} answers again"


def test_a_command_that_waits_at_the_server_has_its_own_time(url: str) -> None:
    with connect(url, patience_s=0.0) as client:
        assert client.blmove("from", "to", 1.0) is None
        assert client.blpop(["from"], 1) is None
        assert client.xread({"log": "$"}, block=1000) == []
        with client.pubsub() as heard:
            heard.subscribe("news")
            assert heard.get_message(timeout=1.0) is not None
            assert heard.get_message(timeout=1.0) is None


def test_a_lease_is_renewed_again_once_a_server_that_stood_still_answers(url: str) -> None:
    with connect(url, patience_s=0.0) as client:
        lease = Lease(client, "lease", ttl_s=60.0, what="the coordinator")
        lease.acquire(told=print)
        assert lease.renew()
        with Standing(client), pytest.raises(answers.Unanswered):
            lease.renew()
        assert lease.renew(), "on another connection: the late answer is not taken for this one's"
        lease.release()


def test_a_process_that_was_asked_to_end_waits_for_no_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "asked_to_end", lambda: True)
    with connect(url, patience_s=600.0) as client:
        with Standing(client):
            for _ in range(5):
                with pytest.raises(redis.exceptions.TimeoutError):
                    client.set("a", 1)
        assert client.ping()
