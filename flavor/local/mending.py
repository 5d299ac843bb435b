"""How a failed local run goes on: with mended commands, or without the sites that failed; and what else helps."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flavor.bus.no_coordinator import no_coordinator
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.resume import resume
from flavor.edge.notice import Failure
from flavor.errors import FlavorError, InvalidSetting
from flavor.policy.advice import PUT_BACK, from_earlier, some
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.view.snapshot import Phase, take_snapshot

_UNFIT = (Phase.FAILED, Phase.GONE, Phase.REFUSED, Phase.QUARANTINED, Phase.REVOKED)
_OPTIONS = {"main": "--main", "preprocess": "--preprocess"}


def check_mended(mended: Mapping[str, str], closed: int) -> None:
    """Raise `InvalidSetting` where a command is to change and a round has closed with the one before."""
    if mended and closed:
        names = ", ".join(_OPTIONS[name] for name in mended)
        rounds = "a round has" if closed == 1 else f"{closed} rounds have"
        raise InvalidSetting(
            f"{names}: {rounds} closed with the command of the run's beginning, so it stays as it was: leave it out "
            "and mend the script, or begin another run from this one's global model (--run, --init-model)"
        )


def let_go_on(
    runs: RunStore,
    given: Mapping[str, Any],
    mended: Mapping[str, str],
    check: Callable[[RunView, int], None],
    *,
    out: str,
    tell: Callable[[str], None],
) -> RunConfig:
    """Let the run in the folder `out` go on with these settings and commands, and return its settings from now on.

    `check` gets the run and the number of its closed rounds, and may raise before anything changes. Raises
    `FlavorError` when the run cannot go on.
    """
    view = runs.read_own()
    closed, _ = runs.closed(view)
    check(view, closed)
    check_mended(mended, closed)
    if not mended and (way := what_helps(runs, [*runs.members()], out)):
        tell(way if way == PUT_BACK else f"mend the script, or {way}")
    if not view.state.ended:  # the run was ended without a word
        with no_coordinator(runs, tell):
            runs.end(RunState.STOPPED, "interrupted")
    done = resume(runs, given=given, tell=tell)
    for line in done.changed:
        tell(f"changed: {line}")
    tell(f"run {runs.run} goes on after round {closed} of {done.config.rounds}")
    if done.cut_off:
        tell(done.cut_off)
    return done.config


def what_helps(runs: RunStore, sites: Sequence[str], out: str) -> str:
    """Return what helps a failed run in the folder `out`, where going on as it is would not; '' where that may help."""
    with contextlib.suppress(FlavorError):
        closed, round_ = runs.closed(runs.read_own())
        if round_ is not None and round_.round > closed and round_.untrained:
            is_kept = round_.untrained <= round_.unreadable
            return PUT_BACK if is_kept else from_earlier(shlex.quote(out), round_.round)
    return other_patterns(runs, sites)


def without_advice(reason: str, helps: str, run: str, out: str) -> str:
    """Return the reason of a failed run without the advice of its coordinator that `helps` gives for the folder `out`.

    The coordinator names the run on its Redis, which is gone once `flavor run` has ended.
    """
    if not helps:
        return reason
    said = re.escape(helps.replace(f"flavor get {shlex.quote(out)} ", f"flavor get {run} "))
    before, after = "if an update is refused like that of [^;]* again, ", f", then `flavor resume {re.escape(run)}`"
    return re.sub(f"; (?:{before})?{said}(?:{after})?", "", reason, count=1)


def other_patterns(runs: RunStore, sites: Sequence[str]) -> str:
    """Return what helps where the run's patterns do not fit the models of sites; '' where they do."""
    with contextlib.suppress(FlavorError):
        snapshot = take_snapshot(runs)
        clients = {name: snapshot.clients[name] for name in sites if name in snapshot.clients}
        unfit = [name for name, client in clients.items() if client.failure == Failure.NOT_DIVIDED]
        if unfit and (options := snapshot.config.parts.options):
            return (
                f"begin a new run with other patterns: the model of {some(unfit)} does not go together with "
                f"{options}, which this run keeps"
            )
    return ""


def without_failed(runs: RunStore, sites: Sequence[str]) -> str:
    """Return how a failed run goes on without the sites that failed.

    '' where most sites failed, where none did, or where the run's rule needs more sites. Where most failed, what they
    were given may be to blame, and a few sites that go on with it alone prove nothing.
    """
    with contextlib.suppress(FlavorError):
        snapshot = take_snapshot(runs)
        failed = [name for name in sites if name not in snapshot.clients or snapshot.clients[name].phase in _UNFIT]
        if failed and 2 * (fit := len(sites) - len(failed)) >= len(sites):
            before = snapshot.config
            changes = {"min_clients": fit} if before.min_clients > fit else {}
            if before.model_copy(update=changes).needed_of(len(sites)) > fit:
                changes["quorum"] = fit
            RunConfig.parse({**before.to_mapping(), **changes})
            options = " ".join(f"--{name.replace('_', '-')} {number}" for name, number in changes.items())
            others = "the other site does" if fit == 1 else "the other sites do"
            return options and f"or at once with {options}, without {some(failed)}, if {others} not fail as well"
    return ""
