"""Credits: how many samples each client has put into a run, counted the same way wherever they are shown."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable
from dataclasses import dataclass

from flavor.bus.runs import RunStore
from flavor.bus.state import RoundState, RoundView
from flavor.errors import InvalidInfo, StoreError
from flavor.store.objects import ObjectStore


@dataclass(frozen=True)
class Contribution:
    """What one client put into one closed round."""

    round: int
    client: str
    samples: int


class Ledger:
    """Samples by client, added up."""

    def __init__(self) -> None:
        self._samples: dict[str, int] = {}

    @classmethod
    def of(cls, contributions: Iterable[Contribution]) -> Ledger:
        """The ledger of these contributions."""
        ledger = cls()
        for contribution in contributions:
            ledger.add(contribution.client, contribution.samples)
        return ledger

    def add(self, client: str, samples: int) -> None:
        """Add `samples` (an int, 0 or more) to a client's; raises `InvalidInfo`, a `ValueError`."""
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
        """A client's samples; 0 for one that is unknown."""
        return self._samples.get(client, 0)

    def totals(self) -> dict[str, int]:
        """Every client's samples, by name; a copy."""
        return dict(sorted(self._samples.items()))


def contributions(runs: RunStore, store: ObjectStore | None = None) -> list[Contribution]:
    """What each client put into each closed round of a run, in order of rounds and names.

    Counted are those whose updates were aggregated, with the `datasetSize` of the info that was accepted. It stands in
    the verdicts, which outlive `--keep-rounds`; without them in the round's merged info in `store`. Raises
    `RunNotFound`, and `StoreError` where neither has it.
    """
    found = []
    for number in range(1, runs.read().round + 1):
        round_ = runs.read_round(number)
        if round_ is not None and round_.state is RoundState.CLOSED:
            found += [Contribution(number, client, samples) for client, samples in sorted(_of(round_, store).items())]
    return found


def _of(round_: RoundView, store: ObjectStore | None) -> dict[str, int]:
    verdicts = {client: round_.verdicts.get(client) for client in round_.contributors}
    known = {client: verdict.num_examples for client, verdict in verdicts.items() if verdict is not None}
    if len(known) == len(verdicts):
        return known
    if store is None:
        raise StoreError(f"the verdicts of round {round_.round} are gone from Redis: name the --store of the run")
    merged = json.loads(store.local(round_.info_path).read_text())["metadata"]
    return dict(zip(merged["clients"], merged["datasetSize"], strict=True))
