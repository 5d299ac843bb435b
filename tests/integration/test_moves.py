"""The tables of moves, held against the Lua scripts on a server: each makes the moves that are listed, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.errors import IllegalMove
from flavor.records.objects import ObjectRef
from flavor.records.round import Reference
from flavor.records.states import ROUND_FOLLOWS, ROUND_MOVES, RUN_MOVES, RoundState, RunState
from tests.recorded import global_model

TOKEN, WORKER = "coordinator", "worker"
ENDINGS = [state for state in RunState if state.ended]
MODEL = global_model("runs/r/global/0001-model", "d" * 64, 12)


@pytest.fixture
def runs(url: str) -> Iterator[RunStore]:
    redis = connect(url)
    redis.flushall()
    store = RunStore(redis, "r", url)
    redis.set(store.keys.coordinator, TOKEN)
    yield store
    redis.close()


def write(runs: RunStore, state: RunState, round_: RoundState | None, *, number: int = 1) -> None:
    """A run in this state, with its round in that one: as a script finds them."""
    fields = {"state": state, "round": str(number), "rounds": "3", "config": "{}", "created_ms": "1"}
    runs.redis.hset(runs.keys.state, mapping=fields)
    if round_ is not None:
        attempt = "0" if round_ is RoundState.OPEN else "1"
        times = {"opened_ms": "1", "deadline_ms": "2", "lease": WORKER, "lease_ms": "1", "error": "it failed"}
        of_round = {"state": round_, "attempt": attempt, "expected": '["a"]', "contributors": '["a"]', **times}
        runs.redis.hset(runs.keys.round(number), mapping=of_round)


def end(runs: RunStore, state: RunState) -> None:
    runs.end(state, "why")


def resume(runs: RunStore, round_: int = 1) -> None:
    runs.resume(
        TOKEN, round_, config={"rounds": 3}, changed=[], closed=0, spoiled=[], timeout_s=9, reason="an operator"
    )


def of_round(state: RoundState) -> dict[str, Callable[[RunStore], object]]:
    """Each script that moves a round, called as it would be where it can be called at all."""
    attempt = 1 if state is RoundState.OPEN else 2
    held = {"attempt": 1, "token": WORKER, "reason": "why"}
    again = {"expected": ["a"], "new": [], "left_out": [], "opening": 2, "timeout_s": 9, "reason": "why"}
    structure = Reference(ObjectRef("p", "d", 3), "s")
    return {
        "reopen_round": lambda runs: runs.reopen_round(TOKEN, 1, **again),  # type: ignore[arg-type]
        "decide_structure": lambda runs: runs.decide_structure(TOKEN, 1, structure, others=[], reason="why"),
        "begin_aggregation": lambda runs: runs.begin_aggregation(
            TOKEN, 1, attempt=attempt, contributors=["a"], reason="why"
        ),
        "claim_round": lambda runs: runs.claim_round(1, attempt=1, token=WORKER, ttl_s=9),
        "give_back_round": lambda runs: runs.give_back_round(1, **held),  # type: ignore[arg-type]
        "fail_attempt": lambda runs: runs.fail_attempt(1, **held),  # type: ignore[arg-type]
        "return_round": lambda runs: runs.return_round(TOKEN, 1, attempt=1, refused=[], reason="why"),
        "commit_round": lambda runs: runs.commit_round(1, model=MODEL, **held),  # type: ignore[arg-type]
    }


def test_the_tables_have_every_script_that_refuses_a_state() -> None:
    scripts = (files("flavor.bus") / "lua").iterdir()
    refusing = {each.name.removesuffix(".lua") for each in scripts if "return {'state'" in each.read_text("utf-8")}
    assert refusing == {verb for _, verb in (*RUN_MOVES, *ROUND_MOVES)}
    assert set(of_round(RoundState.OPEN)) == {verb for _, verb in ROUND_MOVES}


@pytest.mark.parametrize("verb", of_round(RoundState.OPEN))
@pytest.mark.parametrize("state", RoundState)
def test_a_round_moves_as_its_table_says(runs: RunStore, state: RoundState, verb: str) -> None:
    write(runs, RunState.RUNNING, state)
    expected = ROUND_MOVES.get((state, verb))
    if expected is None:
        before = runs.redis.hgetall(runs.keys.round(1))
        with pytest.raises(IllegalMove):
            of_round(state)[verb](runs)
        assert runs.redis.hgetall(runs.keys.round(1)) == before
    else:
        of_round(state)[verb](runs)
        assert runs.redis.hget(runs.keys.round(1), "state") == expected


@pytest.mark.parametrize("verb", ["admit_client", "open_round", "resume_run"])
@pytest.mark.parametrize("state", RunState)
def test_a_run_moves_as_its_table_says(runs: RunStore, state: RunState, verb: str) -> None:
    do: dict[str, Callable[[], object]] = {
        "admit_client": lambda: runs.admit(TOKEN, "a", "why"),
        "open_round": lambda: runs.open_round(TOKEN, 1, expected=["a"], timeout_s=9, reason="why"),
        "resume_run": lambda: resume(runs, 0),
    }
    write(runs, state, None, number=0)
    if (state, verb) not in RUN_MOVES:
        with pytest.raises(IllegalMove):
            do[verb]()
        assert runs.read().state is state
        return
    reached = set()
    do[verb]()
    reached.add(runs.read().state)
    if verb == "resume_run":  # in a later round it does not wait for its first one
        write(runs, state, RoundState.CLOSED)
        resume(runs)
        reached.add(runs.read().state)
    assert reached == RUN_MOVES[state, verb]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("state", RunState)
def test_a_run_ends_as_its_table_says(runs: RunStore, state: RunState, ending: RunState) -> None:
    write(runs, state, None, number=0)
    if ending in RUN_MOVES.get((state, "end_run"), ()):
        end(runs, ending)
        assert runs.read().state is ending
    else:
        with pytest.raises(IllegalMove):
            end(runs, ending)
        assert runs.read().state is state


@pytest.mark.parametrize("verb", ["end_run", "resume_run"])
@pytest.mark.parametrize("state", RoundState)
def test_a_round_follows_its_run_as_its_table_says(runs: RunStore, state: RoundState, verb: str) -> None:
    write(runs, RunState.RUNNING if verb == "end_run" else RunState.FAILED, state)
    if verb == "end_run":
        end(runs, RunState.STOPPED)
    else:
        resume(runs)
    assert runs.redis.hget(runs.keys.round(1), "state") == ROUND_FOLLOWS.get((state, verb), state)
    assert json.loads(runs.redis.hget(runs.keys.state, "config") or "") is not None
