"""Updates that were trained from an older global model than the newest, in a run whose rounds do not wait for all.

Each is moved onto the newest global model before a rule sees it; see `aggregators.rebased`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aggregators.rebased import rebased
from aggregators.updates import ClientModel
from flavor.bus.runs import RunStore
from flavor.checkpoints import TensorFile
from flavor.config import RunConfig
from flavor.errors import IllegalMove
from flavor.records.model import GlobalModel
from flavor.records.round import RoundView
from flavor.store.protocol import ObjectStore
from workers.reading import Reading
from workers.unreadable import unreadable
from workers.updates import open_global


@dataclass(frozen=True)
class Stale:
    """What an update that was begun before its round was trained from, and how much it counts."""

    task_round: int
    """The round whose task its client has done."""
    base: GlobalModel
    """The global model that it was trained from: that before `task_round`."""
    scale: float
    """s(τ), from 0 to 1: the share of its change that counts."""


def stale_of(runs: RunStore, round_: RoundView, config: RunConfig) -> dict[str, Stale]:
    """Return the contributors of a round that did the task of an earlier one; empty in a synchronous run.

    Raises `IllegalMove` where Redis no longer has what such a client was given: another round has been opened since.
    """
    mode = config.buffered
    tasks = {client: round_.since[client] for client in round_.contributors if client in round_.since}
    if not tasks or mode is None:
        return {}
    given, rule = runs.given(tasks), mode.rule
    if gone := sorted(tasks.keys() - given.keys()):
        raise IllegalMove(f"round {round_.round}: the task that {gone[0]} has done is gone from Redis")
    return {client: Stale(task, given[client], rule.factor(round_.round - task)) for client, task in tasks.items()}


def moved(
    models: Mapping[str, ClientModel],
    stale: Mapping[str, Stale],
    newest: TensorFile | None,
    *,
    opened: Reading,
    statistics: tuple[str, ...],
) -> dict[str, ClientModel]:
    """Return the models of a round's updates, by client, those of `stale` clients moved onto the `newest` global model.

    The other models are those given. Nothing is read before it is aggregated. Raises `StoreError` for a base that is
    gone, and `AggregationError` for one of another structure.
    """
    done = dict(models)
    theta = tensors_of(newest) if stale and newest is not None else {}
    bases: dict[str, Mapping[str, Any]] = {}
    for client, each in stale.items():
        if client in models:
            digest = each.base.model.digest
            if digest not in bases:
                bases[digest] = tensors_of(open_global(opened, each.base))
            tensors = rebased(models[client].tensors, bases[digest], theta, each.scale, statistics=statistics)
            done[client] = replace(models[client], tensors=tensors)
    return done


def without_base(store: ObjectStore, stale: Mapping[str, Stale]) -> dict[str, str]:
    """Return the clients whose base is gone from the store, changed or withheld there, each with a refusal's reason."""
    bases = {each.base.model.digest: each.base for each in stale.values()}
    how = {digest: unreadable(store, base) for digest, base in bases.items()}
    return {
        client: f"the global model {each.base.model.path}, from which its task of round {each.task_round} began, "
        f"{how[each.base.model.digest]}: that is no fault of this site"
        for client, each in stale.items()
        if how[each.base.model.digest]
    }


def tensors_of(file: TensorFile) -> dict[str, Any]:
    """Return the tensors in the order of the file, in which they are read, written and hashed."""
    return {spec.name: file.stored(spec.name) for spec in file.specs_in_file_order}
