"""What a run waits for, as its coordinator would say it: for all that look at a run from outside."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from flavor.config import RunConfig
from flavor.coordinator.decision import (
    Action,
    Client,
    Standing,
    begins_anew,
    close_round,
    next_round,
    supervise,
)
from flavor.records.names import count
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import ClientState, RoundState


def as_clients(hashes: Mapping[str, tuple[Mapping[str, str], bool]], shut: Collection[str]) -> dict[str, Client]:
    """The members of a run, from what they say of themselves and whether they live; those in `shut` are quarantined."""
    return {
        name: Client(
            ClientState(fields["state"]),
            alive,
            fields.get("reason", ""),
            quarantined=name in shut,
            behind=count(fields.get("round")) or 0,
        )
        for name, (fields, alive) in hashes.items()
        if fields.get("state") in tuple(ClientState)
    }


def with_absent(members: Iterable[str], clients: Mapping[str, Client]) -> dict[str, Client]:
    """The same with those members of whom nothing is known since the run was rebuilt: they have not come back yet."""
    absent = Client(ClientState.STOPPED, alive=False, reason="it has not come back yet")
    return {**dict.fromkeys(members, absent), **clients}


def what_is_awaited(
    view: RunView,
    round_: RoundView | None,
    standing: Mapping[str, tuple[Standing, str]],
    clients: Mapping[str, Client],
    now_ms: int,
) -> tuple[str, bool]:
    """What the run waits for, in the coordinator's words, and whether it cannot go on as it is."""
    config = RunConfig.known(view.config)
    if view.state.ended:
        return "", False
    if round_ is not None and round_.state is RoundState.OPEN:
        action, waits_for = close_round(view.run, now_ms, round_, standing, config)
    elif round_ is not None and round_.state is RoundState.AGGREGATING:
        action, waits_for = supervise(now_ms, round_, enqueued_ms=now_ms, workers=None, config=config)
    else:
        closed = round_.round if round_ is not None else max(0, view.round - 1)
        action, waits_for, _ = next_round(view.run, closed, clients, config, anew=begins_anew(view, closed))
        return waits_for, action is Action.WAIT
    return waits_for, action is Action.HOLD
