"""What lies between a round's accepted updates and its global model: the engine, or a user's command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from flavor.config import RunConfig
from flavor.records.info import Info
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.protocol import ObjectStore
from workers.reading import Reading

T = TypeVar("T", bound=Hashable)


def of_most(values: Sequence[T], before: T | None = None) -> T:
    """What most have, so that no site chooses alone; of those that as many have, `before`, or else the first."""
    counts = Counter(values)
    best = [value for value, number in counts.items() if number == max(counts.values())]
    return before if before is not None and before in best else best[0]


@dataclass(frozen=True)
class Work:
    """One attempt's inputs. `updates` are the contributors' by name, in the order of `info`'s `metadata.clients`."""

    run: str
    round: int
    config: RunConfig
    store: ObjectStore
    prefix: str
    """Where in the store the round's results lie."""
    old: GlobalModel | None
    """The global model that the clients trained from; None in a first round without pre-trained weights."""
    updates: Mapping[str, Update]
    """What was accepted of each contributor."""
    constants: Mapping[str, Sequence[str]]
    """Contributor to the tensors of its update that may hold infinities; only those that have such."""
    infos: Mapping[str, Info]
    """The contributors' information, in the same order."""
    info: Info
    """The clients' merged information."""
    opened: Reading
    """Through it objects are opened that their sites can still write to."""

    @property
    def format(self) -> str:
        """The checkpoint format that most sites save in: all are given the global model so."""
        return of_most([each.format for each in self.updates.values()], self.old.format if self.old else None)


@dataclass(frozen=True)
class Combined:
    """What came out: the staged model's SHA-256 and size, the information, and the server state."""

    digest: str
    size_bytes: int
    info: Info
    state: ObjectRef | None = None
    chosen: tuple[str, ...] | None = None
    """The clients whose updates entered the model, where the rule left others out; None where it did not."""
    notes: tuple[str, ...] = ()
    """What the operator should know of this round, a line each."""


class Combiner(Protocol):
    """Makes a round's global model."""

    def combine(self, work: Work, target: Path) -> Combined:
        """Write the global model to the file `target`. Raises `FlavorError` with the reason of a failed attempt.

        Whether what `work.opened` gave stayed what it was is seen afterwards, unless it looks itself (`finish`).
        """
