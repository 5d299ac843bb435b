"""Read the updates of a round as they were accepted, and again if another party wrote to them during the reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from aggregators.agreement import Agreement, agreement
from flavor.checkpoints import digest_and_check
from flavor.contributions.kept import KeptRound
from flavor.records.info import Info
from flavor.records.merging import merge_infos
from flavor.store.paths import global_prefix
from flavor.store.protocol import ObjectStore
from workers.builtin import make
from workers.combiner import Work
from workers.held import Held
from workers.infos import accepted_infos
from workers.look_tensors import odd_tensors
from workers.reading import ChangedWhileRead, Reading, reading
from workers.stale import moved
from workers.updates import open_global, open_updates
from workers.weights import counting, weights_of

_LOOKS = 3
"""Times that the updates of a round are read, where one of them changes during the reading."""
T = TypeVar("T")


@dataclass
class RoundUpdates:
    """The updates of one round. Each method raises `StoreError` for an object that is not what was recorded.

    Files are mapped, or read block by block.
    """

    store: ObjectStore
    kept: KeptRound
    threads: int
    _infos: dict[str, Info] = field(default_factory=dict)
    _constants: dict[str, Sequence[str]] = field(default_factory=dict)

    def read(self) -> None:
        """Read the sites' information, and find tensors that hold infinities, as the inspection has found them."""
        updates = self.kept.updates
        self._infos = dict(zip(updates, accepted_infos(self.store, updates.values()), strict=True))
        self._constants = self._looked(self._found_constants)

    def counting(self) -> list[str]:
        """Return the clients whose update counts in a weighted mean; after `read`."""
        return counting(self.kept.config.weights, self._infos)

    def agreement(self) -> Agreement | None:
        """Compare the sites' changes with their mean; None in a round without a model to change."""
        if self.kept.old is None:
            return None
        return self._looked(self._agreement)

    def make(self, target: Path, *, without: str = "") -> str:
        """Write the model that the run's rule makes of all updates but one to `target`, and return its SHA-256.

        Takes the memory of an aggregator: the new server state lies in it until this returns. Raises
        `AggregationError` or `AggregatorFailed` where the rule cannot do that.
        """

        def made(opened: Reading) -> str:
            target.unlink(missing_ok=True)
            return make(self._work(opened, without), target, self.threads).digest

        return self._looked(made)

    def _looked(self, body: Callable[[Reading], T]) -> T:
        for looks_left in reversed(range(_LOOKS)):
            try:
                with reading(self.store) as opened:
                    return body(opened)
            except ChangedWhileRead:
                if not looks_left:
                    raise
        raise AssertionError

    def _found_constants(self, opened: Reading) -> dict[str, Sequence[str]]:
        updates, bases = self.kept.updates, [self.kept.base_of(client) for client in self.kept.updates]
        models = open_updates(opened, list(updates.values()), self.kept.old, bases=bases)
        found: dict[str, Sequence[str]] = {}
        for (client, update), model in zip(updates.items(), models, strict=True):
            if odd := odd_tensors(digest_and_check(opened.open(update.object)), model):
                found[client] = odd
        return found

    def _agreement(self, opened: Reading) -> Agreement:
        config, old = self.kept.config, self.kept.old
        assert old is not None
        updates, bases = self.kept.updates, [self.kept.base_of(client) for client in self.kept.updates]
        handed_in = dict(zip(updates, open_updates(opened, list(updates.values()), old, bases=bases), strict=True))
        file = open_global(opened, old)
        models = moved(handed_in, self.kept.stale, file, opened=opened, statistics=config.statistics)
        held = Held(config, models, self._constants, file).settle()
        weights = weights_of(config.weights, list(self._infos.values()))
        base = {name: file.stored(name) for name in file.names}
        tensors = [model.tensors for model in models.values()]
        return agreement(tensors, base, weights, held=held, statistics=config.statistics, threads=self.threads)

    def _work(self, opened: Reading, without: str) -> Work:
        kept = self.kept
        updates = {client: update for client, update in kept.updates.items() if client != without}
        infos: Mapping[str, Info] = {client: self._infos[client] for client in updates}
        return Work(
            run=kept.manifest.run,
            round=kept.round,
            config=kept.config,
            store=self.store,
            prefix=global_prefix(kept.manifest.run, kept.round),
            old=kept.old,
            updates=updates,
            constants={client: found for client, found in self._constants.items() if client in updates},
            infos=infos,
            info=merge_infos(list(infos), list(infos.values())),
            opened=opened,
            stale={client: each for client, each in kept.stale.items() if client in updates},
        )
