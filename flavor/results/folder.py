"""Writes a result folder as rounds close. Each file is complete at any moment, and stays when the run fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flavor.atomic import write_json
from flavor.bus.runs import RunStore
from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.kinds import kind_of_run
from flavor.config import RunConfig
from flavor.errors import (
    FlavorError,
    InvalidRecord,
    InvalidUpdate,
    LocalFault,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from flavor.evaluation_settings import select_of
from flavor.ledger.rounds import closed_round
from flavor.plain_file import read_plain
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.results.claim import DigestOf, claim
from flavor.results.evaluated import as_round
from flavor.results.evaluated_table import described
from flavor.results.evaluation_files import EvaluationFiles
from flavor.results.goal import goal_behind
from flavor.results.kept import folder_of_round, kept_infos
from flavor.results.metric_of_sites import headline_as_told
from flavor.results.plot import Plotted
from flavor.results.plotting import Plotting
from flavor.results.read_evaluated import summaries
from flavor.results.reading import CHANGED, SPOILED, RoundReading
from flavor.results.rounds import RoundResult, merged_without, round_result
from flavor.results.selected import selected_of
from flavor.results.table_columns import ruled_columns
from flavor.results.tables import Tables
from flavor.results.unjudged import unjudged, without_value_at_last
from flavor.results.whole_model import make_whole, shares_part
from flavor.store.digests import copy_of
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import require_mounted


@dataclass(frozen=True)
class Results:
    """How a run ended, with the paths of its results."""

    run: str
    state: str
    reason: str
    rounds: list[RoundResult]
    global_model: str | None
    out: str
    best_round: int | None = None
    """The best round by the run's `--select`, whose model is `best_model.*`."""
    is_met: bool = False
    """Whether the run has reached its goal (`--stop-when`, `--stop-after-no-gain`) before its last round."""
    best: dict[str, Any] | None = None
    """The best model by the run's `--select`: `select`, `round`, `value`, `sites`."""
    goal: dict[str, Any] | None = None
    """The goal of `--stop-when` that an earlier model than the last one has met: `rule`, `name`, `value`, `round`.

    `lost` says why that model cannot be had any more; '' where it can."""
    evaluation: dict[str, Any] | None = None
    """The newest evaluation, as `flavor results --json` has it; None for a run of which no model was judged."""
    not_judged: list[dict[str, Any]] = field(default_factory=list)
    """The newest evaluations where they have no result: `round`, `reason`, `is_central`, `sites`."""
    without_value: list[str] = field(default_factory=list)
    """The rules (`--select`, `--stop-when`) that have no value in the newest evaluation, each with the reason."""
    shares: str = ""
    """Which part of the model the run shares, as options; '' for the whole."""

    def written(self) -> dict[str, Any]:
        """Return the fields as a JSON file has them."""
        return {**asdict(self), "rounds": [each.written() for each in self.rounds]}

    def to_json(self) -> str:
        """Return the fields as one JSON object."""
        return json.dumps(self.written())


class ResultFolder:
    """Writes models, client information, tables and plot of each round, and `summary.json` at the end of the run."""

    def __init__(self, out: Path, tell: Callable[[str], None], *, is_own: bool = False) -> None:
        """Write into `out`, which may not hold another run's results; one that `is_own` was made for this run."""
        self.out, self._tell = out, tell
        self._is_own, self._is_claimed = is_own, False
        self.rounds: list[RoundResult] = []
        self._looked = 0  # the newest round that is in the folder
        self._tables = Tables(out, tell)
        self._given = 0  # rounds that `update` has returned
        self._is_last = False  # whether this is the last call, so that nothing is tried again
        self._plotting = Plotting(out / "metrics.png", tell)
        self._reading = RoundReading(str(out), tell)
        self._evaluations = EvaluationFiles(out, tell)

    def update(self, runs: RunStore, store: ObjectStore, view: RunView) -> list[RoundResult]:
        """Write the rounds that have closed since the last call, and return them.

        Raises `LocalFault` while the folder of the store is not mounted: its objects can be read later; and
        `InvalidSetting` for a folder with the results of another run.
        """
        if not self._is_claimed:
            self.out.mkdir(parents=True, mode=0o700, exist_ok=True)
            claim(self.out, view, recorded(runs, store, view), is_own=self._is_own)
            self._is_claimed = True
        for number in range(self._looked + 1, view.round + 1):
            try:
                round_ = closed_round(runs, store, number, newest=view.round)
            except (StoreUnavailable, LocalFault):
                raise
            except StoreError:  # neither Redis nor the store has it any more
                require_mounted(store, runs.run)
                self._reading.lacks("all of it", number)
                self._looked = number
                continue
            if round_ is None:
                break
            result = self._result(round_, store, kind_of_run(view.config))
            try:
                require_mounted(store, runs.run)
            except LocalFault:  # what seemed to be lost was away
                self._reading.forget(number)
                raise
            self.rounds.append(result)
            self._looked = number
        self._tables.write(self.rounds, ruled_columns(view.config))
        self._evaluations.update(runs, store, view, is_last=self._is_last)
        new, self._given = self.rounds[self._given :], len(self.rounds)
        if new:
            self._plotting.draw_when_due(self._plotted(view))
        self._reading.tell_lacking()
        return new

    def _result(self, view: RoundView, store: ObjectStore, kind: CheckpointKind) -> RoundResult:
        """Write a round into the folder, and return it; a round with unusable client information, too."""
        try:
            return self._written(view, store, kind)
        except (FlavorError, OSError):  # it is tried again
            raise
        except Exception as error:
            self._reading.lacks(
                "what it reported", view.round, f"cannot be used, so {{out}} lacks it ({_shown(error)})"
            )
            return round_result(view, merged_without(view), {})

    def end(self, runs: RunStore, store: ObjectStore) -> Results:
        """Write what is still missing of a run that has ended, or that another process goes on with."""
        view = runs.read()
        self._is_last = True
        self.update(runs, store, view)
        for name in ("global", "info"):
            (self.out / name).mkdir(exist_ok=True)
        if self.rounds:
            self._plotting.draw(self._plotted(view))
        model = self._final(view, store) if self.rounds else None
        self._write_best(runs, view, store)
        results = self.known(runs, str(model) if model else None, store=store)
        write_json(self.out / "summary.json", results.written())
        return results

    def known(self, runs: RunStore, model: str | None = None, *, store: ObjectStore | None = None) -> Results:
        """Describe the run with the rounds in the folder; `model` is the path of the last global model there.

        With a `store`, says of the goal's model whether it is there.
        """
        view = runs.read()
        reason = (runs.how_it_ended() if view.state.ended else "") or view.reason
        selected = selected_of(view)
        newest, config = self._evaluations.newest, RunConfig.known(view.config)
        judged = summaries(runs)
        is_there = partial(has_model, runs, store, newest=view.round)
        goal = goal_behind(config, judged, closed=view.round, is_there=is_there) if view.is_met else None
        return Results(
            run=view.run,
            state=view.state.value,
            reason=reason,
            rounds=self.rounds,
            global_model=model,
            out=str(self.out),
            best_round=selected.round if selected is not None else None,
            is_met=view.is_met,
            best=selected._asdict() if selected is not None else None,
            goal=goal._asdict() if goal is not None else None,
            evaluation=described(newest, select=select_of(config), ruled=ruled_columns(view.config))
            if newest
            else None,
            not_judged=[asdict(each) for each in unjudged(runs, view)],
            without_value=without_value_at_last(config, judged),
            shares=config.parts.options,
        )

    def _plotted(self, view: RunView) -> Plotted:
        judged, select = self._evaluations.by_round, select_of(RunConfig.known(view.config))
        headline = headline_as_told(judged[-1], select, ruled=ruled_columns(view.config)) if judged else None
        of_models = [as_round(each) for each in judged]
        return Plotted(view.run, [*self.rounds], of_models, select, selected_of(view), headline)

    def lacks_plot(self) -> str:
        """Say how to get the plot where matplotlib is not installed; '' where the plot is there."""
        if not self.rounds or self._plotting.has_failed or (self.out / "metrics.png").exists():
            return ""
        return "no metrics.png: matplotlib is not installed: pip install '.[plot]' in a copy of flavor"

    def _final(self, view: RunView, store: ObjectStore) -> Path | None:
        try:
            return final_model(view, store, self.out)
        except (*SPOILED, InvalidUpdate) as error:
            self._tell(f"{self.out} lacks the final global model: {error}")
        except (FlavorError, OSError):
            raise
        except Exception as error:
            self._tell(f"{self.out} lacks the final global model: {_shown(error)}")
        return None

    def _write_best(self, runs: RunStore, view: RunView, store: ObjectStore) -> None:
        """Write the model of the best round, for a run that selects one."""
        if view.best is None:
            return
        try:
            found = closed_round(runs, store, view.best.round, newest=view.round)
            if found is None or found.model is None:
                raise ObjectMissing(f"round {view.best.round} has no global model")
            write_model(view, found.model, store, self.out / "best_model")
        except (*SPOILED, InvalidUpdate) as error:
            self._tell(f"{self.out} lacks the model of the best round, {view.best.round}: {error}")

    def _written(self, view: RoundView, store: ObjectStore, kind: CheckpointKind) -> RoundResult:
        models, infos = self.out / "global", self.out / "info"
        of_sites = folder_of_round(self.out, view.round)
        for folder in (models, infos):
            folder.mkdir(parents=True, exist_ok=True)
        target = models / f"round-{view.round:04d}{kind.extension(kind.wire_format)}"
        if not target.exists():
            try:
                if view.model is None:
                    raise ObjectMissing(f"round {view.round} has no global model")
                store.place(view.model, target)
            except ObjectMissing:  # older ones may be pruned
                pass
            except SPOILED:
                self._reading.lacks("the global model", view.round, CHANGED)
        merged = infos / f"round-{view.round:04d}.json"
        info = self._merged(view, store, merged)
        found = self._reading.of_sites(view, store, kept_infos(of_sites), is_last=self._is_last)
        for client, given in found.items():
            of_sites.mkdir(exist_ok=True)
            if not (of_sites / f"{client}.json").exists():
                write_json(of_sites / f"{client}.json", given)
        return round_result(view, info, found)

    def _merged(self, view: RoundView, store: ObjectStore, path: Path) -> dict[str, Any]:
        """Write a round's merged client information to `path`, and return it."""
        with contextlib.suppress(FileNotFoundError, InvalidRecord):  # it is written again
            known: dict[str, Any] = json.loads(read_plain(path))
            return known
        if (info := self._reading.merged(view, store)) is None:
            return merged_without(view)
        write_json(path, info)
        return info


def recorded(runs: RunStore, store: ObjectStore, view: RunView) -> DigestOf:
    """Return the function that gives the recorded digest of a round's global model."""

    def digest_of(round_: int) -> str:
        closed = closed_round(runs, store, round_, newest=view.round)
        return closed.model.digest if closed is not None and closed.model is not None else ""

    return digest_of


def has_model(runs: RunStore, store: ObjectStore | None, round_: int, *, newest: int) -> bool:
    """Whether the store has the global model of a round; True where that is not known. `newest` is the run's round."""
    if store is None:
        return True
    try:
        found = closed_round(runs, store, round_, newest=newest)
        if found is None or found.model is None or store.exists(found.model.path):
            return True
        require_mounted(store, runs.run)
    except FlavorError:  # who asks for the model hears of it
        return True
    return False


def _shown(error: Exception) -> str:
    """Describe an unexpected error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def final_model(view: RunView, store: ObjectStore, out: Path) -> Path:
    """Write the last global model, in the format in which the training scripts save; return its path."""
    assert view.global_model is not None
    model = view.global_model.model.sealed("")  # its bytes are hashed: what lies in the folder is what was recorded
    return write_model(view, model, store, out / "global_model")


def write_model(view: RunView, model: ObjectRef, store: ObjectStore, stem: Path, *, whole: bool = False) -> Path:
    """Write a global model of the run as `stem` with the extension of the scripts' format; return its path.

    With `whole`, the model of a run that shares a part of it is completed with tensors of the initial model.
    """
    kind = kind_of_run(view.config)
    format_ = (view.global_model.format if view.global_model else "") or kind.wire_format
    target = stem.with_name(f"{stem.name}{kind.extension(format_)}")
    whole = whole and shares_part(view)
    if format_ == kind.wire_format and not whole:
        store.place(model, target)
        return target
    own = target.with_name(f".{target.name}.wire")
    try:
        copy_of(store, model, own)
        if whole:
            make_whole(view, store, own)
        kind.from_wire(own, target, format_)
    finally:
        own.unlink(missing_ok=True)
    return target
