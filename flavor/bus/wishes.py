"""Wishes of clients for signed URLs, and the answers. An answer is a secret, and lives for a minute."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from flavor.bus.clients import Clients
from flavor.bus.connection import translated
from flavor.records.names import count
from flavor.records.signed_urls import MOST_WISH_BYTES, UrlAnswer, UrlWish
from flavor.records.states import RunState

WISH_MS = 600_000
"""Lifetime of a wish: the edge writes it again while it waits."""
_ANSWER_MS = 60_000
"""Lifetime of an answer. A client that comes back later asks again."""


@dataclass(frozen=True)
class RunNow:
    """What an answer depends on: where the run is, and what one client has to do in it."""

    round: int
    has_ended: bool
    has_task: bool
    """Whether the client has, or had, the task of the round that was asked about."""
    is_judging: bool
    """Whether the evaluation that was asked about awaits the client."""


def read_wish(runs: Clients, client: str) -> UrlWish | None:
    """Return the newest wish of a client; None where there is none, or it is not to be read."""
    with translated(runs.where):
        try:
            text = str(runs.redis.getrange(runs.keys.client(client).wish, 0, MOST_WISH_BYTES - 1))
        except redis.exceptions.ResponseError as error:  # it is no string
            if not str(error).startswith("WRONGTYPE"):
                raise
            return None
    return UrlWish.parse(text) if text else None


def coordinator_token(runs: Clients) -> str | None:
    """Return the token of the process that has the coordinator's lease; None where none has it."""
    with translated(runs.where):
        token: str | None = runs.redis.get(runs.keys.coordinator)
    return token


def is_admitted(runs: Clients, client: str) -> bool:
    """Whether the coordinator has admitted the client, and has not said otherwise since."""
    with translated(runs.where), runs.redis.pipeline(transaction=False) as reads:
        reads.sismember(runs.keys.members, client)
        reads.hget(runs.keys.client(client).admission, "admitted")
        is_member, admitted = reads.execute()
    return bool(is_member) and admitted != "0"


def run_now(runs: Clients, client: str, round_: int, evaluation: int | None) -> RunNow:
    """Read where the run is, and whether the client has the task of this round or is to do this evaluation."""
    keys = runs.keys.client(client)
    with translated(runs.where), runs.redis.pipeline(transaction=False) as reads:
        reads.hmget(runs.keys.state, "state", "round")
        reads.exists(keys.task(round_))
        reads.hexists(keys.evaluations, f"{round_} {evaluation}")
        (state, current), has_task, is_judging = reads.execute()
    has_ended = state not in set(RunState) or RunState(state).ended
    return RunNow(count(current) or 0, has_ended, bool(has_task), bool(is_judging) and evaluation is not None)


def answer_wish(runs: Clients, client: str, answer: UrlAnswer) -> None:
    """Write the answer, and announce it to the client."""
    key = runs.keys.client(client).urls
    with translated(runs.where), runs.redis.pipeline(transaction=True) as step:
        step.set(key, answer.to_text(), px=_ANSWER_MS)
        step.publish(key, "")
        step.execute()
