"""The tables of moves, held against the Lua scripts on a server: each makes the moves that are listed, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.errors import IllegalMove, LeaseLost
from flavor.records.evaluation import EvaluationSummary, EvaluationView, ResultVerdict
from flavor.records.objects import ObjectRef
from flavor.records.round import Reference
from flavor.records.states import (
    EVALUATION_MOVES,
    ROUND_FOLLOWS,
    ROUND_MOVES,
    RUN_MOVES,
    EvaluationState,
    RoundState,
    RunState,
)
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
        times = {
            "opened_ms": "1",
            "deadline_ms": "2",
            "lease": WORKER,
            "lease_ms": "1",
            "error": "it failed",
            "since": "{}",
        }
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
        "join_round": lambda runs: runs.join_round(TOKEN, 1, expected=["a", "b"], new=["b"], reason="why"),
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
    opening = {"open_evaluation"}  # of an evaluation that has no state yet
    assert refusing == {verb for _, verb in (*RUN_MOVES, *ROUND_MOVES, *EVALUATION_MOVES)} | opening
    assert set(of_evaluation(EvaluationState.OPEN)) == {verb for _, verb in EVALUATION_MOVES}
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


def write_evaluation(runs: RunStore, state: EvaluationState) -> EvaluationView:
    """An evaluation in this state, of the model of round 1: as a script finds it."""
    write(runs, RunState.RUNNING, RoundState.CLOSED)
    attempt = "0" if state is EvaluationState.OPEN else "1"
    fields = {"state": state, "attempt": attempt, "expected": '["a"]', "opened_ms": "1", "deadline_ms": "2"}
    runs.redis.hset(runs.keys.evaluation(1, 0), mapping={**fields, **MODEL.to_hash()})
    view = runs.read_evaluation(1, 0)
    assert view is not None
    return view


def of_evaluation(
    state: EvaluationState, *, token: str = TOKEN
) -> dict[str, Callable[[RunStore, EvaluationView], object]]:
    """Each script that moves an evaluation, called as it would be where it can be called at all."""
    attempt = 1 if state is EvaluationState.OPEN else 2
    ref, summary = ObjectRef("p", "d"), EvaluationSummary(1, 0, 1)
    return {
        "begin_merge": lambda runs, _: runs.begin_merge(token, 1, 0, attempt=attempt),
        "fail_merge": lambda runs, _: runs.fail_merge(1, 0, attempt=1, reason="why"),
        "commit_evaluation": lambda runs, _: runs.commit_evaluation(
            1,
            0,
            attempt=1,
            verdicts={"a": ResultVerdict(False, "why")},
            info=ref,
            manifest=ref,
            summary=summary,
            reason="why",
        ),
        "give_up_evaluation": lambda runs, view: runs.give_up_evaluation(token, view, "why"),
    }


@pytest.mark.parametrize("verb", of_evaluation(EvaluationState.OPEN))
@pytest.mark.parametrize("state", EvaluationState)
def test_an_evaluation_moves_as_its_table_says(runs: RunStore, state: EvaluationState, verb: str) -> None:
    view = write_evaluation(runs, state)
    expected = EVALUATION_MOVES.get((state, verb))
    if expected is None:
        before = runs.redis.hgetall(runs.keys.evaluation(1, 0))
        with pytest.raises(IllegalMove):
            of_evaluation(state)[verb](runs, view)
        assert runs.redis.hgetall(runs.keys.evaluation(1, 0)) == before
        assert runs.evaluated() == []
    else:
        of_evaluation(state)[verb](runs, view)
        assert runs.redis.hget(runs.keys.evaluation(1, 0), "state") == expected


@pytest.mark.parametrize("verb", ["begin_merge", "give_up_evaluation"])
def test_an_evaluation_obeys_its_coordinator_alone(runs: RunStore, verb: str) -> None:
    view = write_evaluation(runs, EvaluationState.OPEN)
    with pytest.raises(LeaseLost):
        of_evaluation(EvaluationState.OPEN, token="another")[verb](runs, view)
    with pytest.raises(LeaseLost):
        open_evaluation(runs, 1, 1, token="another")


def open_evaluation(runs: RunStore, round_: int, number: int, *, token: str = TOKEN) -> int:
    return runs.open_evaluation(token, round_, number, expected=["a"], skipped=["b"], timeout_s=9, reason="why")


def test_an_evaluation_is_opened_once_of_the_newest_closed_round_of_a_run_that_goes_on(runs: RunStore) -> None:
    write(runs, RunState.RUNNING, RoundState.CLOSED, number=2)
    for round_ in (1, 3):
        with pytest.raises(IllegalMove):
            open_evaluation(runs, round_, 0)
    with pytest.raises(IllegalMove):  # no round has made a model yet
        open_evaluation(runs, 2, 0)
    runs.redis.hset(runs.keys.state, mapping=MODEL.to_hash())
    keys = runs.keys.client("a")
    runs.redis.hset(keys.result(2, 0), "num_examples", "3")  # of another history
    opened_ms = open_evaluation(runs, 2, 0)
    assert runs.evaluating() == [(2, 0)]
    assert runs.results(2, 0, ["a"]) == {}
    assert runs.redis.hgetall(keys.evaluations) == {"2 0": str(opened_ms)}
    assert runs.redis.hget(keys.evaluation_task(2, 0), "global_digest") == MODEL.model.digest
    with pytest.raises(IllegalMove):
        open_evaluation(runs, 2, 0)
    for ending in ENDINGS:
        runs.redis.hset(runs.keys.state, "state", ending)
        with pytest.raises(IllegalMove):
            open_evaluation(runs, 2, 1)


@pytest.mark.parametrize("verb", ["commit_evaluation", "give_up_evaluation"])
def test_no_site_is_awaited_after_the_end_of_an_evaluation(runs: RunStore, verb: str) -> None:
    write(runs, RunState.RUNNING, RoundState.CLOSED)
    runs.redis.hset(runs.keys.state, mapping=MODEL.to_hash())
    open_evaluation(runs, 1, 0)
    runs.begin_merge(TOKEN, 1, 0, attempt=1)
    view = runs.read_evaluation(1, 0)
    assert view is not None
    of_evaluation(EvaluationState.MERGING)[verb](runs, view)
    keys = runs.keys.client("a")
    assert runs.evaluating() == []
    assert runs.redis.exists(keys.evaluations, keys.evaluation_task(1, 0), keys.result(1, 0)) == 0
