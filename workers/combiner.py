"""The step from a round's accepted updates to its global model: by the engine, or by a user's command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from flavor.config import RunConfig
from flavor.records.info import Info
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.protocol import ObjectStore
from workers.reading import Reading
from workers.stale import Stale

T = TypeVar("T", bound=Hashable)

RULES = "rules"
"""`Combiner.made_by` of the rules of `aggregators`; that of a user's own is `flavor.rule_settings.COMMAND`."""


def of_most(values: Sequence[T], before: T | None = None) -> T:
    """Return the value that most have, so that no site chooses alone; of a tie `before`, or else the first value."""
    counts = Counter(values)
    best = [value for value, number in counts.items() if number == max(counts.values())]
    return before if before is not None and before in best else best[0]


@dataclass(frozen=True)
class Work:
    """The inputs of one attempt. `updates` are by contributor, in the order of `info`'s `metadata.clients`."""

    run: str
    round: int
    config: RunConfig
    store: ObjectStore
    prefix: str
    """The prefix of the round's results in the store."""
    old: GlobalModel | None
    """The newest global model, which the clients trained from, but for those in `stale`; None in a first round without
    pre-trained weights."""
    updates: Mapping[str, Update]
    """The accepted update of each contributor."""
    constants: Mapping[str, Sequence[str]]
    """Contributor to the tensors of its update that may hold infinities; lacks contributors without such tensors."""
    infos: Mapping[str, Info]
    """The info of each contributor, in the same order."""
    info: Info
    """The clients' merged information."""
    opened: Reading
    """Opens objects that their sites can still write to."""
    stale: Mapping[str, Stale] = field(default_factory=dict)
    """The contributors whose updates were trained from an older global model than `old`; empty in a synchronous run."""

    def base_of(self, client: str) -> GlobalModel | None:
        """Return the global model that a contributor trained from."""
        return self.stale[client].base if client in self.stale else self.old

    @property
    def format(self) -> str:
        """The checkpoint format that most sites save in: every site is given the global model in it."""
        return of_most([each.format for each in self.updates.values()], self.old.format if self.old else None)


@dataclass(frozen=True)
class Combined:
    """The result: SHA-256 and size of the staged model, the merged information, and the server state."""

    digest: str
    size_bytes: int
    info: Info
    state: ObjectRef | None = None
    chosen: tuple[str, ...] | None = None
    """The clients whose updates entered the model, where the rule left others out; None where it left none out."""
    notes: tuple[str, ...] = ()
    """Notes of this round for the operator, one line each."""


class Combiner(Protocol):
    """Makes a round's global model."""

    @property
    def made_by(self) -> str:
        """What makes the model: `RULES` or `COMMAND`. A run that names no rule keeps to that of its first round."""

    def combine(self, work: Work, target: Path) -> Combined:
        """Write the global model to the file `target`. Raises `FlavorError` with the reason of a failed attempt.

        The caller checks afterwards whether the objects from `work.opened` changed, unless the combiner calls `finish`
        itself.
        """
