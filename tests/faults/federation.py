"""A federation that something is done to: the parts of a run, and the check of its history at the end."""

from __future__ import annotations

from flavor.store.open import open_store
from tests.faults.history import KEEP, History
from tests.faults.servers import Gate

MISSED = ("--heartbeat-timeout-s", "1.5", "--on-quorum-lost", "wait")
"""An edge or a coordinator that is silent is missed within seconds; one that was only slow comes back."""
TAKEN_OVER = ("--aggregation-lease-s", "2")
"""A worker that is silent is followed by another within seconds: it is configuration, not RQ's minute."""


class Faulty:
    """A bench with the parts of a run, and the check at the end."""

    def __init__(self, bench, rounds: int = 3, clients: tuple[str, ...] = ("c1", "c2")) -> None:
        self.bench, self.rounds, self.clients = bench, rounds, clients

    def serve(self, *options: object, env=None):
        return self.bench.serve(*KEEP, *options, rounds=self.rounds, clients=len(self.clients), env=env)

    def gate(self, name: str) -> Gate:
        """A place to hold at: give its path to a trainer as --gate."""
        return Gate(self.bench.folder / f"{name}.gate")

    def edges(self, *flags: object, only: dict[str, tuple] | None = None, env=None) -> dict:
        """All edges; `flags` are those of their trainers, but for the clients in `only`."""
        only = only or {}
        return {c: self.bench.edge(c, self.bench.trainer(*only.get(c, flags)), env=env) for c in self.clients}

    def history(self, store: str = "") -> History:
        journals = {client: self.bench.folder / client / "output" / "acknowledged" for client in self.clients}
        return History(self.bench.runs, open_store(store or str(self.bench.store)), journals, self.bench.handed_in)

    def finish(self, coordinator, edges: dict) -> None:
        """The run ends well, and its history is in order."""
        assert coordinator.wait() == 0, coordinator.stderr
        for edge in edges.values():
            assert edge.wait() == 0, edge.stderr
        self.history().check(rounds=self.rounds)
