"""The words about tasks of asynchronous rounds: who trains on, which updates are late, whose tasks were given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flavor.counted import counted
from flavor.policy.advice import some
from flavor.policy.mode import Buffered
from flavor.records.round import RoundView

MOST_OUTDATED = 3
"""The tasks in a row of a site that are given up as too old before that is told as news of its own."""


def train_on(round_: RoundView, names: Sequence[str]) -> str:
    """Say at the end of a reason who trains on when a round closes: `; 2 clients train on: a, b`; '' for no client."""
    if not names:
        return ""
    verb = "trains" if len(names) == 1 else "train"
    return f"; {counted(len(names), 'client')} {verb} on: {some(with_tasks(round_, names))}"


def with_tasks(round_: RoundView, names: Sequence[str]) -> list[str]:
    """Return the clients, and for each one that does the task of an earlier round which it is: `b (since round 4)`."""
    return [f"{name} (since round {round_.since[name]})" if name in round_.since else name for name in names]


def told_stale(mode: Buffered | None, task: int, round_: int) -> str:
    """Say how old the task of an update is that counts in round `round_`, and how much it counts; '' for a new one."""
    if mode is None or task >= round_:
        return ""
    factor = mode.rule.factor(round_ - task)
    return f"; task of round {task} (staleness {round_ - task}): its change counts {factor:.2g}"


def of_earlier_tasks(round_: RoundView, names: Sequence[str]) -> str:
    """Say at the end of a reason which of these clients have done the task of an earlier round; '' for none."""
    stale = [f"{name} (round {round_.since[name]})" for name in names if name in round_.since]
    return f"; with the task of an earlier round: {some(stale)}" if stale else ""


def why_outdated(mode: Buffered) -> str:
    """Say what it means for a site that so many of its tasks in a row were given up, and what to do."""
    return f"{given_up_in_a_row(mode)}: nothing that it trains counts; have it train less in a round"


def given_up_in_a_row(mode: Buffered) -> str:
    """Say that `MOST_OUTDATED` tasks of a site were given up."""
    return (
        f"its last {MOST_OUTDATED} tasks were given up, each past the maximum staleness of "
        f"{counted(mode.max_staleness, 'round')}"
    )


def too_old(round_: int, old: Mapping[str, int], mode: Buffered | None) -> str:
    """Say who gets the newest model in place of its task as round `round_` opens; '' for no client."""
    if not old or mode is None:
        return ""
    told = [f"{name} (since round {task}, {round_ - task} rounds)" for name, task in old.items()]
    return (
        f"; past the maximum staleness of {counted(mode.max_staleness, 'round')}: {some(told)}: no update of these "
        "tasks counts any more, and their sites get the newest model"
    )
