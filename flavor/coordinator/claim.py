"""The right to commit one attempt to aggregate a round, kept for as long as its model is computed elsewhere."""

from __future__ import annotations

from typing import Protocol

from flavor.bus.lease import LeaseKeeper
from flavor.errors import BusUnavailable, IllegalMove, LeaseLost


class Attempt(Protocol):
    """One attempt to aggregate a round."""

    @property
    def round(self) -> int:
        """Of which round."""

    @property
    def number(self) -> int:
        """Which of the round's attempts it is."""

    @property
    def lease_s(self) -> float:
        """How long a claim lasts."""

    @property
    def token(self) -> str:
        """Of this attempt alone."""

    def claim(self) -> None:
        """Take the right to commit; `IllegalMove` or `LeaseLost` when it is not ours."""

    def renew(self) -> None:
        """Keep it; `IllegalMove` or `LeaseLost` when it is no longer ours."""


class Claim:
    """The right to commit an attempt, renewed until it is given up."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt, self.ttl_s = attempt, attempt.lease_s
        attempt.claim()
        self._keeper = LeaseKeeper(self, lost=lambda: None)  # the commit finds out
        self._keeper.start()

    def keep(self) -> bool:
        """Renew it; False when another attempt is current."""
        try:
            self.attempt.renew()
        except (IllegalMove, LeaseLost):
            return False
        except BusUnavailable:
            return True  # the next renewal tries again; the server's clock decides meanwhile
        return True

    def give_up(self) -> None:
        """Stop renewing."""
        self._keeper.stop()
