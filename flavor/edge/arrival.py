"""What a site is told about a run that it cannot join: because the run is not there yet, or is over."""

from __future__ import annotations

from flavor.errors import FlavorError, RunError, RunFinishedEarly, RunStopped
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.store.paths import round_of


def why_not_there(run: str, view: RunView | None) -> str:
    """Why a site cannot join yet, and what the run's operator can do about that."""
    if view is None:
        return (
            f"there is none of this name on this Redis yet; its operator starts it with `flavor serve --run {run}` (is "
            "the name spelled right?)"
        )
    return f"it {view.state.is_now} ({view.reason}); its operator goes on with it with `flavor resume {run}`"


def closed_rounds(view: RunView) -> int:
    """How many rounds are closed, by the run's own hash: a site may not read the hashes of rounds."""
    return round_of(view.manifest.path) if view.manifest is not None else 0


def ended_early(view: RunView) -> bool:
    """Whether the run has finished before all its rounds were closed."""
    return view.state is RunState.FINISHED and closed_rounds(view) < view.rounds and not view.is_met


def is_over(view: RunView, advice: str) -> FlavorError:
    """The error for a site that comes too late; its exit code is that of the run's end."""
    told = f"run {view.run!r} is over ({view.state}: {view.reason}): {advice}"
    if view.state is RunState.STOPPED:
        return RunStopped(told)
    return RunFinishedEarly(told) if ended_early(view) else RunError(told)
