"""What a site is told that comes to a run it cannot join: not yet, or no more."""

from __future__ import annotations

from flavor.bus.state import RunState, RunView
from flavor.errors import FlavorError, RunError, RunFinishedEarly, RunStopped


def why_not_there(run: str, view: RunView | None) -> str:
    """Why a site cannot join yet, and what its operator does about it."""
    if view is None:
        return (
            f"there is none of this name on this Redis yet; its operator starts it with `flavor serve --run {run}` (is "
            "the name spelled right?)"
        )
    is_now = "it has failed" if view.state is RunState.FAILED else f"it is {view.state}"
    return f"{is_now} ({view.reason}); its operator goes on with it with `flavor resume {run}`"


def is_over(view: RunView, advice: str, *, closed: int = 0) -> FlavorError:
    """What a site that comes too late is told, with the exit code of the run's end."""
    told = f"run {view.run!r} is over ({view.state}: {view.reason}): {advice}"
    if view.state is RunState.STOPPED:
        return RunStopped(told)
    return RunFinishedEarly(told) if view.state is RunState.FINISHED and closed < view.rounds else RunError(told)
