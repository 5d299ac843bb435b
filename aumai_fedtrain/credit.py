"""Who has contributed how much."""

from __future__ import annotations

from flavor.credits import CreditBook
from flavor.errors import InvalidInfo


class CreditTracker:
    """Samples processed by each node; `flavor credits RUN` counts a run's in the same ledger."""

    def __init__(self) -> None:
        self._book = CreditBook()
        self._by_round: dict[int, CreditBook] = {}

    def record_contribution(self, node_id: str, samples: int, round_id: int | None = None) -> None:
        """Add `samples` (an int, 0 or more) to what the node has contributed, and to its part in round `round_id`.

        Without a round they count in the totals alone: what a restored run had earned before. Raises `InvalidInfo`, a
        `ValueError`; nothing is recorded then.
        """
        if round_id is not None and (isinstance(round_id, bool) or not isinstance(round_id, int) or round_id < 0):
            raise InvalidInfo(f"{node_id}: round_id must be an int, 0 or more, not {round_id!r}")
        self._book.add(node_id, samples)
        if round_id is not None:
            self._by_round.setdefault(round_id, CreditBook()).add(node_id, samples)

    def get_credits(self, node_id: str) -> int:
        """The samples of one node; 0 for one that has contributed nothing."""
        return self._book.samples(node_id)

    def round_credits(self, round_id: int) -> dict[str, int]:
        """The samples of every node in one round, by name; a copy. Empty for a round of which nothing is recorded."""
        ledger = self._by_round.get(round_id)
        return ledger.totals() if ledger else {}

    def all_credits(self) -> dict[str, int]:
        """The samples of every node, by name; a copy."""
        return self._book.totals()
