"""Whether the run that an edge has joined is still that run, and no older than what the edge has seen of it."""

from __future__ import annotations

from flavor.errors import RunRebuilt, StateLost
from flavor.records.run import RunView


def checked_continuity(
    run: str, view: RunView | None, *, incarnation: tuple[str, int, int], newest: int, where: str
) -> RunView:
    """`view`, if the edge can go on with it.

    `incarnation` is that of the run it joined, `newest` the newest round of which it was given the task, `where` the
    server as messages show it. Raises `StateLost` when the run is gone, another, or in an older round; `RunRebuilt`
    when it was rebuilt from the store and is to be joined again.
    """
    if view is None:
        raise StateLost(
            f"run {run!r} is gone from Redis at {where}, which came back empty or was told to forget it: its operator "
            "can rebuild it with `flavor recover`; then start this edge again"
        )
    if view.incarnation != incarnation:
        if view.run_id == incarnation[0] and view.recovered_ms < incarnation[2]:
            raise StateLost(
                f"run {run!r} on Redis at {where} is from before its `flavor recover`: Redis came back older; its "
                "operator can rebuild the run with `flavor recover`; then start this edge again"
            )
        if view.recovered_ms and view.run_id == incarnation[0]:
            raise RunRebuilt(f"run {run!r} was rebuilt from the store after round {view.recovered_round}")
        raise StateLost(f"run {run!r} was removed, and another one has its name: start this edge again to join that")
    if view.round < newest:
        raise StateLost(
            f"run {run!r} is in round {view.round} on Redis at {where}, and was in round {newest} before: Redis came "
            "back older; its operator can rebuild the run with `flavor recover`; then start this edge again"
        )
    return view
