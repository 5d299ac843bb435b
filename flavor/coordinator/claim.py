"""The right to commit one attempt to aggregate a round, which is renewed while the model is computed."""

from __future__ import annotations

from typing import Protocol

from flavor.bus.lease import LeaseKeeper
from flavor.errors import BusUnavailable, IllegalMove, LeaseLost


class Attempt(Protocol):
    """One attempt to aggregate a round, as its aggregator sees it."""

    @property
    def round(self) -> int:
        """The number of the round."""

    @property
    def number(self) -> int:
        """Which of the round's attempts it is, from 1 on."""

    @property
    def lease_s(self) -> float:
        """How long a claim lasts without being renewed, in seconds."""

    @property
    def token(self) -> str:
        """The token that no other attempt has."""

    def claim(self) -> None:
        """Take the right to commit. Raises `IllegalMove` or `LeaseLost` when another attempt has it."""

    def renew(self) -> None:
        """Renew the right to commit. Raises `IllegalMove` or `LeaseLost` when this attempt no longer has it."""


class Claim:
    """The right to commit an attempt, renewed by a thread until `give_up`."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt, self.ttl_s = attempt, attempt.lease_s
        attempt.claim()
        self._keeper = LeaseKeeper(self, lost=lambda: None)  # the commit fails then
        self._keeper.start()

    def keep(self) -> bool:
        """Renew the claim; return False when another attempt is current."""
        try:
            self.attempt.renew()
        except (IllegalMove, LeaseLost):
            return False
        except BusUnavailable:
            return True  # the next renewal tries again; the server's clock decides meanwhile
        return True

    def give_up(self) -> None:
        """Stop renewing the claim."""
        self._keeper.stop()
