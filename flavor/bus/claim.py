"""The right to commit one attempt to aggregate a round, held while its model is computed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from flavor.bus.lease import LeaseKeeper
from flavor.bus.runs import RunStore
from flavor.errors import FlavorError, IllegalMove, LeaseLost


@dataclass(frozen=True)
class Attempt:
    """One attempt to aggregate a round."""

    runs: RunStore
    round: int
    number: int
    """Which of the round's attempts it is."""
    lease_s: float
    """How long a claim lasts without a renewal."""
    token: str
    """Different in each attempt, so that no process takes another one's claim for its own."""

    @classmethod
    def of(cls, runs: RunStore, round_: int, number: int, lease_s: float, *, worker: str) -> Attempt:
        """Begin an attempt of the worker with this name. Nothing is claimed yet."""
        return cls(runs, round_, number, lease_s, f"{worker}:{secrets.token_hex(8)}")

    def claim(self) -> None:
        """Take the right to commit. Raises `IllegalMove` or `LeaseLost` where another attempt has it."""
        self.runs.claim_round(self.round, attempt=self.number, token=self.token, ttl_s=self.lease_s)

    def renew(self) -> None:
        """Keep the right to commit. Raises `IllegalMove` or `LeaseLost` where another attempt has it."""
        self.runs.claim_round(self.round, attempt=self.number, token=self.token, ttl_s=self.lease_s, renew=True)


class Claim:
    """The right to commit an attempt, renewed by a thread until it is given up, or to the end of a `with` block.

    Making a claim takes the right; raises `IllegalMove` or `LeaseLost` where another attempt has it.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt, self.ttl_s = attempt, attempt.lease_s
        attempt.claim()
        self._keeper = LeaseKeeper(self, lost=lambda: None)  # the commit finds out
        self._keeper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()

    def keep(self) -> bool:
        """Renew the claim; False where another attempt has it."""
        try:
            self.attempt.renew()
        except (IllegalMove, LeaseLost):
            return False
        except FlavorError:
            return True  # the next renewal tries again; until then the server's clock decides
        return True

    def give_up(self) -> None:
        """Stop renewing. The claim itself expires on the server."""
        self._keeper.stop()
