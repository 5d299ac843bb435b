"""`flavor resume`: let a run go on that has failed or was stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flavor.bus.no_coordinator import no_coordinator
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.evaluation_job import cut_off_open
from flavor.errors import RunError
from flavor.policy.evaluating import is_due
from flavor.protocol import check_features
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.records.run import RunView
from flavor.records.states import RoundState, RunState
from flavor.resume import changes, goes_on_by, resumed_config


@dataclass(frozen=True)
class Resumed:
    """A run that goes on."""

    config: RunConfig
    round: int
    """The round that is open again; the newest closed one when none is."""
    is_open: bool
    kept: int
    """How many accepted updates the open round has; they count as before."""
    changed: tuple[str, ...]
    """The settings that have changed, a line for each."""
    cut_off: str = ""
    """What becomes of the evaluation of the newest model that the end of the run has cut off; '' for none."""


def resume(
    runs: RunStore,
    *,
    given: Mapping[str, Any],
    check: Callable[[RunConfig], None] = lambda _: None,
    tell: Callable[[str], None],
) -> Resumed:
    """Let a run go on that has failed, was stopped, or finished before all its rounds, with the settings in `given`.

    A round that was open when the run ended is open again, with a new deadline: accepted updates count, and clients may
    hand in again what was refused or found spoiled. A refusal because of the global model is forgotten: the run ends as
    before once the sites have tried again. Where no round was open, the newest model is judged again if the
    end of the run has cut that off; a run whose last round is closed goes on for that alone. `check` may raise for the
    new settings.

    Raises `RunError` for a run that has not ended or has nothing left to do, `InvalidSetting` for settings that are not
    possible, and `LeaseHeld` when the coordinator of the run is alive; nothing has changed then.
    """
    runs.read()  # raises for a run that does not exist, before anything is written
    with no_coordinator(runs, tell) as lease:
        view = runs.read_own()
        if not view.state.ended:
            raise RunError(f"run {runs.run!r} {view.state.is_now}: {goes_on_by(view)}")
        RunConfig.check_known(runs.run, view.config, by=view.release)
        closed, round_ = runs.closed(view)
        config, changed = resumed_config(view.config, given, closed=closed)
        check_features(runs.run, view.protocol, config.to_mapping())
        again = round_ is not None and round_.state is RoundState.FAILED
        cut_off = _cut_off(runs, config, closed, is_open=again)
        if closed >= config.rounds and (not cut_off or view.state is RunState.FINISHED):
            what = "finished" if view.state is RunState.FINISHED else f"{view.state}, with all its rounds closed"
            raise RunError(f"run {runs.run!r} is {what}: --rounds NUMBER, with more than {closed}, lets it go on")
        check(config)
        was = f"was {view.state}" if view.state is RunState.STOPPED else f"had {view.state}"
        verdicts = round_.verdicts if round_ is not None and again else {}
        spoiled = round_.spoiled if round_ is not None and again else ()
        untrained = round_.untrained if round_ is not None and again else ()
        if closed >= config.rounds:
            cut_off_open(runs, lease.token)  # what a coordinator that was killed has left open
        runs.resume(
            lease.token,
            view.round,
            config=config.to_mapping(),
            changed=_ever_changed(view, config),
            closed=closed,
            spoiled=[*spoiled, *untrained],
            timeout_s=config.longest_round_s,
            since=round_.since if round_ is not None else {},
            reason=f"it goes on after it {was}, with {'; '.join(changed) or 'the same settings'}",
        )
    kept = sum(verdict.accepted for verdict in verdicts.values()) - len(spoiled)
    return Resumed(config, view.round, again, kept, tuple(changed), cut_off)


def _cut_off(runs: RunStore, config: RunConfig, closed: int, *, is_open: bool) -> str:
    """Return what becomes of the evaluation that the end of the run has cut off; '' for none. See `resume_run.lua`."""
    found = (runs.read_evaluation(closed, number) for number in (AUTOMATIC, CENTRAL)) if closed else ()
    ends = closed >= config.rounds  # then no coordinator would go on with one that is open
    if not is_due(config, closed, ends=ends) or not any(
        each is not None and (each.is_unneeded or (ends and not each.is_over)) for each in found
    ):
        return ""
    if is_open:
        return (
            f"the model of round {closed} stays without the evaluation that the end of the run has cut off: `flavor "
            f"evaluate {runs.run} --round {closed}` has sites judge it, which decides nothing (--select, --stop-when)"
        )
    return f"the model of round {closed} is judged anew: the run ended before the result"


def _ever_changed(view: RunView, config: RunConfig) -> list[str]:
    """Return the names of the settings that differ from the run's beginning; `flavor serve` accepts others for them."""
    now = {line.split(" ")[0] for line in changes(view.config, config.to_mapping())}
    return sorted({*view.changed, *now})
