"""A federation whose history can be checked, on a server that the test starts for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from history import KEEP, History

from flavor.bus.embedded import embedded_server
from flavor.store.objects import open_store

LEASES = ("--heartbeat-timeout-s", "1.5", "--aggregation-lease-s", "1.5")
"""Take-over within seconds: it is configuration, not RQ's minute."""


class Faulty:
    """A bench with the parts of a run, and the check at the end."""

    def __init__(self, bench, rounds: int = 3, clients: tuple[str, ...] = ("c1", "c2")) -> None:
        self.bench, self.rounds, self.clients = bench, rounds, clients

    def serve(self, *options: object, env=None):
        return self.bench.serve(*KEEP, *LEASES, *options, rounds=self.rounds, clients=len(self.clients), env=env)

    def edges(self, *flags: object, only: dict[str, tuple] | None = None, env=None) -> dict:
        only = only or {}
        return {c: self.bench.edge(c, self.bench.trainer(*only.get(c, flags)), env=env) for c in self.clients}

    def history(self) -> History:
        journals = {client: self.bench.folder / client / "output" / "acknowledged" for client in self.clients}
        return History(self.bench.runs, open_store(str(self.bench.store)), journals)

    def finish(self, coordinator, edges: dict) -> None:
        """The run ends well, and its history is in order."""
        assert coordinator.wait() == 0, coordinator.stderr
        for edge in edges.values():
            assert edge.wait() == 0, edge.stderr
        self.history().check(rounds=self.rounds)


@pytest.fixture
def own_url(tmp_path: Path) -> Iterator[str]:
    """A server of this test's own, that keeps what it acknowledged."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with embedded_server(append_only=True, folder=folder) as url:
        yield url


@pytest.fixture
def faulty(own_url: str, bench_at: Callable) -> Faulty:
    return Faulty(bench_at(own_url))
