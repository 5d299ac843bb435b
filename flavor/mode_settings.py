"""The setting of a run about rounds that do not wait for all sites, which is a field of `flavor.config.RunConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol, TypeAlias

from pydantic import AfterValidator

from flavor.errors import InvalidSetting
from flavor.option_groups import Group
from flavor.policy.mode import ASYNC, SYNC, Buffered
from flavor.setting import setting


def _checked(text: str) -> str:
    try:
        return str(Buffered.parse(text) or SYNC)
    except InvalidSetting as error:
        raise ValueError(str(error)) from None


ModeText: TypeAlias = Annotated[str, AfterValidator(_checked)]

MODE: Any = setting(
    "Wait for all updates of a round (sync), for those of all sites but the ones that have missed three deadlines in a "
    "row (sync:slow=async), or close a round with the first K of them (async:buffer=K): sites that still train go on, "
    "and their update counts in a later round, by its staleness rule (constant, polynomial:A or hinge:A:B) and at most "
    "max_staleness rounds later.",
    Group.CLOSING,
    default=SYNC,
    metavar="sync|sync:slow=async,...|async:buffer=K,...",
)


class _Moded(Protocol):
    """The settings that the mode has to go together with."""

    @property
    def buffered(self) -> Buffered | None: ...

    @property
    def min_clients(self) -> int: ...

    @property
    def quorum(self) -> int | float | None: ...

    def needed_of(self, expected: int) -> int: ...

    @property
    def fraction(self) -> float: ...

    @property
    def on_quorum_lost(self) -> str: ...

    @property
    def keep_globals(self) -> int: ...


def conflict_of_mode(config: _Moded, rules: Sequence[str] = ()) -> str:
    """Return why an asynchronous mode does not go together with the other settings; '' where it does.

    `rules` are those on metrics of sites (`ruled_by_sites`) that the run does not have yet.
    """
    mode = config.buffered
    if mode is None:
        return ""
    if reason := _conflict_of_quorum(mode, config):
        return reason
    if config.fraction < 1:
        return f"mode {mode} and fraction {config.fraction:g}: an asynchronous round samples no sites: leave out one"
    if config.on_quorum_lost == "retry":
        return f"mode {mode}: on_quorum_lost retry opens no asynchronous round again: choose wait or fail"
    if 0 < config.keep_globals <= mode.max_staleness + 1:
        return (
            f"mode {mode}: keep_globals {config.keep_globals} does not keep the models that sites train from: "
            f"{mode.max_staleness + 2} or more, or 0 for all, is needed with max_staleness {mode.max_staleness}"
        )
    if rules:
        name = ASYNC if mode.buffer is not None else f"{SYNC}:slow={ASYNC}"
        return (
            f"{rules[0]} does not go together with --mode {name}: each model is judged only by the sites that do not "
            "train at that time, so that two models are rarely judged by the same sites: name a metric of the "
            "operator's own data (central/NAME, by `flavor-agg -e`), or have sites judge a model later "
            "(`flavor evaluate RUN --round N`)"
        )
    return ""


def _conflict_of_quorum(mode: Buffered, config: _Moded) -> str:
    if mode.buffer is None and config.quorum is None:
        return (
            f"mode {mode} needs a quorum: without --quorum a round of {config.min_clients} clients needs the update of "
            "each, so that it cannot go on without a slow one"
        )
    if mode.buffer is not None and mode.buffer > config.min_clients:
        return (
            f"mode {mode}: buffer {mode.buffer} is more than min_clients {config.min_clients}: a round could wait for "
            "more updates than there are sites"
        )
    if mode.buffer is not None and config.quorum is not None:
        return f"mode {mode} and quorum {config.quorum}: the buffer says how many updates close a round: leave out one"
    return ""


def conflict_of_full_quorum(config: _Moded) -> str:
    """Return why a quorum of all sites does not go together with the mode of a new run; '' where it does."""
    mode, least = config.buffered, config.min_clients
    if mode is None or mode.buffer is not None or (needed := config.needed_of(least)) < least:
        return ""
    return (
        f"mode {mode} and quorum {config.quorum}: a round of {least} clients needs {needed} updates then, so that it "
        "cannot go on without a slow one: choose a smaller quorum, or more min_clients"
    )
