"""Decides whether the run in Redis still is the one that an edge joined, and no older state than the edge has seen."""

from __future__ import annotations

from flavor.errors import RunRebuilt, StateLost
from flavor.records.run import RunView


def checked_continuity(
    run: str, view: RunView | None, *, incarnation: tuple[str, int, int], newest: int, where: str
) -> RunView:
    """Return `view`, if the edge can go on with it.

    `incarnation` is that of the run that the edge joined, `newest` the newest round that the edge has heard of, `where`
    the server as messages show it. Raises `StateLost` when the run is gone, is another run, or is in an older round;
    `RunRebuilt` when the run was rebuilt from the store, so that the edge has to join it again.
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
