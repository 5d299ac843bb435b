"""Credits: how many samples each client has contributed to a run. Every command counts them with these functions."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass

from flavor.bus.runs import RunStore
from flavor.errors import InvalidInfo
from flavor.ledger.rounds import closed_rounds
from flavor.store.protocol import ObjectStore


@dataclass(frozen=True)
class Contribution:
    """What one client contributed to one closed round."""

    round: int
    client: str
    samples: int
    in_model: bool = True
    """Whether its update entered the model: False where the rule (Krum, for example) left it out."""
    staleness: int = 0
    """How many rounds before this one the client began it; 0 in a synchronous run. It counts no fewer samples."""


class CreditBook:
    """The sums of samples by client."""

    def __init__(self) -> None:
        self._samples: dict[str, int] = {}

    @classmethod
    def of(cls, contributions: Iterable[Contribution]) -> CreditBook:
        """Make the book of these contributions."""
        book = cls()
        for contribution in contributions:
            book.add(contribution.client, contribution.samples)
        return book

    def add(self, client: str, samples: int) -> None:
        """Add `samples` (an int, 0 or more) to those of a client. Raises `InvalidInfo`, a `ValueError`."""
        try:
            if isinstance(samples, bool):
                raise TypeError
            number = operator.index(samples)
        except TypeError:
            raise InvalidInfo(f"{client}: samples must be an int, not {samples!r}") from None
        if number < 0:
            raise InvalidInfo(f"{client}: samples must not be negative, and are {number}")
        self._samples[client] = self._samples.get(client, 0) + number

    def samples(self, client: str) -> int:
        """Return the samples of a client; 0 for an unknown client."""
        return self._samples.get(client, 0)

    def totals(self) -> dict[str, int]:
        """Return a copy: the samples of every client, by name."""
        return dict(sorted(self._samples.items()))


def contributions(runs: RunStore, store: ObjectStore | None = None) -> list[Contribution]:
    """What each client put into each closed round of a run, in order of rounds and names.

    Counts each update that was aggregated, by the `datasetSize` of the accepted info, and says whether the update
    entered the model. Reads the verdicts on Redis; for rounds that Redis no longer has, the manifests in `store`.
    Raises `RunNotFound`, and `StoreError` where neither has a round.
    """
    return [
        Contribution(
            round_.round,
            client,
            round_.inspected(client).num_examples,
            client in round_.in_model,
            round_.round - round_.task_round(client),
        )
        for round_ in closed_rounds(runs, store)
        for client in sorted(round_.contributors)
    ]
