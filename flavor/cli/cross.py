"""`flavor evaluate --cross`: the sites judge each other's updates of one round."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flavor.errors import RunError, StoreError

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.cli.judging_sites import JudgingSites
    from flavor.config import RunConfig
    from flavor.coordinator.asked_evaluation import Asked
    from flavor.ledger.disclosures import Disclosures
    from flavor.policy.exposure import Mixed
    from flavor.records.model import GlobalModel
    from flavor.records.round import RoundView
    from flavor.records.run import RunView
    from flavor.results.evaluated import Evaluated
    from flavor.store.protocol import ObjectStore

_GLOBAL = "global model"
"""The head of the column of the round's global model: a site's name has no space."""


@dataclass(frozen=True)
class Crossed:
    """What each site has measured of each model."""

    round: int
    whole: Evaluated
    """Of the round's global model."""
    models: dict[str, Evaluated]
    """By the owner of the model."""
    missing: dict[str, str]
    """Sites of the round whose update no other site may judge, and why."""

    def described(self, describe: Callable[[Evaluated], dict[str, Any]]) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "round": self.round,
            "global": describe(self.whole),
            "models": {owner: describe(found) for owner, found in self.models.items()},
            "missing": self.missing,
        }

    def table(self, metric: str | None) -> tuple[str, list[str], list[list[str]]]:
        """Return the name of the metric, the heads and the rows: a row for each judge, a column for each model."""
        every = [self.whole, *self.models.values()]
        named = [name for found in every for site in found.sites.values() for name in site.metrics]
        if metric is not None and metric not in named:
            from flavor.policy.near_names import there_are

            raise RunError(f"--metric {metric}: no site has measured it: {there_are(metric, named)}")
        chosen = metric or next(iter(named), "")
        judges = sorted({site for found in every for site in found.sites})
        rows = []
        for judge in judges:
            cells = [found.sites[judge].metrics.get(chosen) if judge in found.sites else None for found in every]
            rows.append([judge, *("-" if cell is None else f"{cell:.6g}" for cell in cells)])
        return chosen, ["JUDGE", _GLOBAL, *self.models], rows


def cross(
    runs: RunStore,
    view: RunView,
    config: RunConfig,
    objects: ObjectStore,
    round_: RoundView,
    whole: Asked,
    sites: JudgingSites,
    tell: Callable[[str], None],
) -> Crossed:
    """Have every site that allows it judge the round's global model and each other's updates.

    `whole` asks for the global model, and `sites` judge. A site's model is written into the store for that, where all
    sites can read it. Whether a site allows that is asked anew before its model is put there, and so is who judges it.
    Raises `RunError` where fewer than two sites allow it, and where the update of a site that does not allow it could
    be computed from the others.
    """
    from flavor.ledger.disclosures import Disclosures
    from flavor.policy.advice import some
    from flavor.policy.exposure import NOT_ALLOWED, keeping, why_exposed, why_kept

    given, allowing = Disclosures(objects, view.run, view.run_id), sites.allowing()
    owners = [name for name in round_.contributors if name in allowing]
    missing = dict.fromkeys(keeping(round_.contributors, allowing), NOT_ALLOWED)
    mixed = functools.cache(lambda: _mixed(objects, config, round_))

    def by_now() -> Mixed:
        return replace(mixed(), disclosed=given.of_round(round_.round))

    if owners and (why := why_exposed(by_now(), allowing)):
        raise RunError(f"--cross: round {round_.round}: {why}")
    judges = sites.crossing()
    if not owners or len(judges) < 2:
        raise RunError(
            f"--cross needs two sites at least that allow it and have an evaluator now (flavor-fl --allow-cross -e …); "
            f"those that do: {some(judges) if judges else 'none'}"
        )
    of_all = sites.judge(replace(whole, crossing=True))
    found: dict[str, Evaluated] = {}

    def why_not(owner: str) -> str:
        if not set(sites.crossing()) - {owner}:
            return "no other site is there now that allows it and has an evaluator"
        return why_kept(owner, by_now(), sites.allowing())

    for owner, asked in _models(runs, view, config, objects, round_, owners, given, why_not, missing):
        tell(f"the model of {owner}")
        found[owner] = sites.judge(replace(asked, timeout_s=whole.timeout_s))
    return Crossed(round_.round, of_all, found, missing)


def _mixed(objects: ObjectStore, config: RunConfig, round_: RoundView) -> Mixed:
    """Return how the updates of a round became one model, by its record and what the sites have handed in.

    What was disclosed of it is not in it: the caller reads that anew each time.
    """
    from flavor.config import DEFAULT_AGGREGATOR
    from flavor.policy.exposure import Mixed
    from flavor.rule_settings import COMMAND
    from workers.combiner import RULES
    from workers.infos import accepted_infos
    from workers.weights import counting

    updates = [round_.verdicts[name].inspected for name in round_.contributors]
    try:
        infos = accepted_infos(objects, updates)
    except StoreError as error:
        raise RunError(
            f"--cross: what the sites of round {round_.round} have handed in cannot be read: {error}"
        ) from None
    # a run that names no rule is aggregated by a worker's own aggregator, or else by the default
    rule = config.aggregator or {RULES: DEFAULT_AGGREGATOR, COMMAND: COMMAND}.get(round_.made_by, "")
    counted = counting(config.weights, dict(zip(round_.contributors, infos, strict=True)))
    return Mixed(rule, round_.contributors, counted, ())


def _models(
    runs: RunStore,
    view: RunView,
    config: RunConfig,
    objects: ObjectStore,
    round_: RoundView,
    owners: list[str],
    given: Disclosures,
    why_not: Callable[[str], str],
    missing: dict[str, str],
) -> Iterator[tuple[str, Asked]]:
    """Put the models of these owners into the store, one by one, unless there is a reason `why_not`.

    A model that is not put there, or is gone, is added to `missing`.
    """
    from flavor.coordinator.asked_evaluation import Asked
    from flavor.coordinator.initial_model import store_for_sites
    from flavor.ledger.base_model import BASE_PRUNED, is_pruned
    from flavor.records.subject import Subject, SubjectKind
    from workers.one_update import write_update

    format_ = view.global_model.format if view.global_model is not None else ""
    for owner in owners:
        with tempfile.TemporaryDirectory(prefix="flavor-cross-") as folder:
            target, base = Path(folder) / "model.safetensors", _base(runs, view, objects, round_.task_round(owner))
            try:
                write_update(objects, view, round_, base, owner, target)
            except StoreError as error:
                lost = BASE_PRUNED if is_pruned(objects, base) else "--keep-rounds"
                missing[owner] = f"its update cannot be read ({lost}): {error}"
                continue
            if why := why_not(owner):
                missing[owner] = why
                continue
            given.add(round_.round, owner)
            model = store_for_sites(objects, view, target, config.kind, what="--cross")
        subject = Subject(SubjectKind.UPDATE, round_.round, owner)
        yield owner, Asked(subject, replace(model, format=format_ or model.format), crossing=True)


def _base(runs: RunStore, view: RunView, objects: ObjectStore, round_: int) -> GlobalModel | None:
    """Return the model that a site trains from with the task of this round."""
    from flavor.ledger.archive import Archive
    from flavor.ledger.base_model import base_of
    from flavor.ledger.rounds import closed_round
    from flavor.records.model import GlobalModel

    def model_of(number: int) -> GlobalModel | None:
        before = closed_round(runs, objects, number, newest=view.round)
        return GlobalModel(before.model) if before is not None and before.model is not None else None

    return base_of(round_, Archive(objects, view.run).beginning(), model_of)
