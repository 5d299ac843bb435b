"""Who has contributed how much."""

from __future__ import annotations

from flavor.credits import Ledger


class CreditTracker:
    """Samples processed by each node; `flavor credits RUN` counts a run's in the same ledger."""

    def __init__(self) -> None:
        self._ledger = Ledger()

    def record_contribution(self, node_id: str, samples: int) -> None:
        """Add `samples` (an int, 0 or more, else `ValueError`) to what the node has contributed."""
        self._ledger.add(node_id, samples)

    def get_credits(self, node_id: str) -> int:
        """The samples of one node; 0 for one that has contributed nothing."""
        return self._ledger.samples(node_id)

    def all_credits(self) -> dict[str, int]:
        """The samples of every node, by name; a copy."""
        return self._ledger.totals()
