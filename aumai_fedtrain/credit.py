"""Credits: how many samples each node has contributed."""

from __future__ import annotations

from flavor.credits import CreditBook
from flavor.errors import InvalidInfo


class CreditTracker:
    """Counts the samples of each node, as `flavor credits RUN` counts those of a run."""

    def __init__(self) -> None:
        self._book = CreditBook()
        self._by_round: dict[int, CreditBook] = {}

    def record_contribution(self, node_id: str, samples: int, round_id: int | None = None) -> None:
        """Add `samples` (an int, 0 or more) to the credits of a node, in total and in round `round_id`.

        Without a round, the samples count in the totals only, e.g. the credits of a restored run. Raises `InvalidInfo`,
        a `ValueError`; nothing is recorded then.
        """
        if round_id is not None and (isinstance(round_id, bool) or not isinstance(round_id, int) or round_id < 0):
            raise InvalidInfo(f"{node_id}: round_id must be an int, 0 or more, not {round_id!r}")
        self._book.add(node_id, samples)
        if round_id is not None:
            self._by_round.setdefault(round_id, CreditBook()).add(node_id, samples)

    def get_credits(self, node_id: str) -> int:
        """Return the samples of one node; 0 for a node that has contributed nothing."""
        return self._book.samples(node_id)

    def round_credits(self, round_id: int) -> dict[str, int]:
        """Return a copy: the samples of every node in one round, by name. Empty for a round without records."""
        ledger = self._by_round.get(round_id)
        return ledger.totals() if ledger else {}

    def all_credits(self) -> dict[str, int]:
        """Return a copy: the samples of every node, by name."""
        return self._book.totals()
