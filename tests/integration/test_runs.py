"""Each transition checks the state and the lease it starts from, and changes nothing otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor.bus.admission import tell_admission
from flavor.bus.clients import RECORDED
from flavor.bus.connection import connect
from flavor.bus.keys import RunKeys
from flavor.bus.runs import RunStore, list_runs
from flavor.cli.status import status
from flavor.cli.stop import stop
from flavor.config import RunConfig
from flavor.errors import DamagedRecord, IllegalMove, LeaseLost, RunNotFound
from flavor.policy.decision import Action
from flavor.policy.supervision import supervise
from flavor.records import update
from flavor.records.admission import Admission
from flavor.records.measured import Measured
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import Reference, RoundView
from flavor.records.states import RoundState, RunState
from flavor.records.verdict import Refusal, Verdict
from flavor.store.open import open_store
from flavor.view.described import described
from tests.conftest import Bench
from tests.infos import put_info
from tests.recorded import accepted, changed, global_model

MODEL = global_model("runs/r/global/0001-model", "d" * 64, 12, info=("runs/r/info", ""), format="npz")
TOKEN = "coordinator"


@pytest.fixture
def runs(url: str) -> Iterator[RunStore]:
    redis = connect(url)
    redis.flushall()
    store = RunStore(redis, "r", url)
    store.create(rounds=3, config={"x": 1})
    redis.set(store.keys.coordinator, TOKEN)
    yield store
    redis.close()


def open_round(runs: RunStore, round_: int = 1, token: str = TOKEN) -> None:
    runs.open_round(token, round_, expected=["a", "b"], timeout_s=9, reason="two ready")


def begin(runs: RunStore, attempt: int = 1) -> None:
    runs.begin_aggregation(TOKEN, 1, attempt=attempt, contributors=["a"], reason="1 of 2")


def test_a_run_is_created_once(runs: RunStore) -> None:
    assert not runs.create(rounds=9, config={})
    view = runs.read()
    assert (view.rounds, view.state, view.config) == (3, RunState.WAITING, {"x": 1})
    assert list_runs(runs.redis) == ["r"]


def test_a_run_begins_without_a_replaced_key(url: str) -> None:
    """A client may be enrolled anew before there is the run: then there is no key that was replaced."""
    runs = RunStore(connect(url), "begins", url)
    runs.replace_key("a", "")
    assert runs.replaced() == {"a": (RECORDED,)}
    assert runs.create(rounds=1, config={})
    assert runs.replaced() == {}
    runs.remove_keys()


def test_no_such_run(url: str) -> None:
    with pytest.raises(RunNotFound, match="flavor status"):
        RunStore(connect(url), "none", url).read()


def test_rounds_only_go_up(runs: RunStore) -> None:
    with pytest.raises(IllegalMove):
        open_round(runs, 2)
    open_round(runs, 1)
    with pytest.raises(IllegalMove):
        open_round(runs, 1)
    view = runs.read_round(1)
    assert view is not None
    assert view.state is RoundState.OPEN
    assert view.deadline_ms - view.opened_ms == 9000
    assert runs.redis.hget(runs.keys.client("a").task(1), "rounds") == "3"


def test_a_coordinator_that_lost_its_lease_changes_nothing(runs: RunStore) -> None:
    with pytest.raises(LeaseLost):
        open_round(runs, token="another")
    with pytest.raises(LeaseLost):
        runs.admit("another", "a", "")
    assert runs.read_round(1) is None
    assert runs.members() == []


def test_the_first_verdict_stands(runs: RunStore) -> None:
    open_round(runs)
    with ThreadPoolExecutor(8) as pool:
        verdicts = [Verdict(bool(i % 2), f"verdict {i}") for i in range(8)]
        won = list(pool.map(lambda verdict: bool(runs.judge(1, "a", verdict)), verdicts))
    assert won.count(True) == 1
    first = verdicts[won.index(True)]
    view = runs.read_round(1)
    assert view is not None
    assert view.verdicts["a"] == first
    told = runs.redis.hgetall(runs.keys.client("a").verdict(1))
    assert told == {"accepted": "1" if first.accepted else "0", "reason": first.reason}


def test_a_client_is_told_its_own_verdict_alone_also_when_it_came_too_late(runs: RunStore) -> None:
    open_round(runs)
    heard = runs.redis.pubsub()
    heard.psubscribe(runs.keys.client("a").to_pattern)
    assert heard.get_message(timeout=5)["type"] == "psubscribe"
    begin(runs)
    assert runs.judge(1, "a", accepted("good", num_examples=7))
    assert heard.get_message(timeout=5)["channel"] == runs.keys.client("a").verdict(1)
    heard.close()
    late = "late: round 1 no longer takes updates"
    assert runs.redis.hgetall(runs.keys.client("a").verdict(1)) == {"accepted": "0", "reason": late}
    assert not runs.redis.exists(runs.keys.client("b").verdict(1))


def test_nothing_is_late_for_a_round_that_is_open(runs: RunStore) -> None:
    """A coordinator that knows an older round only, as another took over while it was paused, may think so."""
    open_round(runs)
    assert not runs.refuse_late(1, "a")
    assert runs.verdicts(1, ["a"]) == {}
    assert not runs.redis.exists(runs.keys.client("a").verdict(1))
    assert runs.judge(1, "a", accepted("good", num_examples=7))
    begin(runs)
    assert runs.refuse_late(1, "b")
    assert not runs.refusals(), "no fault of its content"
    assert not runs.refuse_late(1, "a"), "it has its verdict"


def test_only_the_run_says_what_is_late(runs: RunStore) -> None:
    """A site may give any reason why its update cannot be used, this one too."""
    open_round(runs)
    assert runs.judge(1, "a", Verdict(False, "late: round 1 no longer takes updates"))
    assert runs.refusals() == {"a": 1}


def test_a_claim_that_was_forgotten_is_not_renewed(runs: RunStore) -> None:
    """The server came back older, and an attempt of the same number is another one, of other contributors."""
    open_round(runs)
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=0.001)
    while runs.now_ms() <= int(runs.redis.hget(runs.keys.round(1), "lease_ms") or 0):
        pass
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5, renew=True)
    runs.redis.hdel(runs.keys.round(1), "lease", "lease_ms")
    with pytest.raises(LeaseLost):
        runs.claim_round(1, attempt=1, token="w1", ttl_s=5, renew=True)
    with pytest.raises(LeaseLost):
        runs.commit_round(1, attempt=1, token="w1", model=MODEL, reason="of others")


def test_a_round_commits_once_and_only_by_its_holder(runs: RunStore) -> None:
    open_round(runs)
    with pytest.raises(IllegalMove):
        runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    with pytest.raises(LeaseLost):
        runs.claim_round(1, attempt=1, token="w2", ttl_s=5)
    with pytest.raises(LeaseLost):
        runs.commit_round(1, attempt=1, token="w2", model=MODEL, reason="")
    runs.commit_round(1, attempt=1, token="w1", model=MODEL, reason="done")
    with pytest.raises(IllegalMove):
        runs.commit_round(1, attempt=1, token="w1", model=MODEL, reason="again")
    view, run = runs.read_round(1), runs.read()
    assert view is not None
    assert (view.state, view.model.path, run.global_model) == (RoundState.CLOSED, MODEL.model.path, MODEL)


def test_the_newest_closed_round(runs: RunStore) -> None:
    assert runs.closed(runs.read()) == (0, None)
    open_round(runs)
    number, current = runs.closed(runs.read())
    assert (number, current and current.state) == (0, RoundState.OPEN)
    begin(runs)
    assert runs.closed(runs.read())[0] == 0
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    runs.commit_round(1, attempt=1, token="w1", model=MODEL, reason="done")
    number, current = runs.closed(runs.read())
    assert (number, current and current.state) == (1, RoundState.CLOSED)
    open_round(runs, 2)
    assert runs.closed(runs.read())[0] == 1
    runs.end(RunState.STOPPED, "enough")
    number, current = runs.closed(runs.read())
    assert (number, current and current.state) == (1, RoundState.FAILED)


def test_a_run_that_is_stopped_between_two_rounds_says_after_which(runs: RunStore, url: str) -> None:
    open_round(runs)
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    runs.commit_round(1, attempt=1, token="w1", model=MODEL, reason="done")
    told = CliRunner().invoke(stop, ["r", "--redis-url", url])
    assert (told.exit_code, told.stderr) == (0, "run r is stopped after round 1 of 3\n")


def test_a_new_attempt_fences_the_old_worker_off(runs: RunStore) -> None:
    open_round(runs)
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    begin(runs, attempt=2)
    runs.claim_round(1, attempt=2, token="w2", ttl_s=5)
    for attempt in (1, 2):
        with pytest.raises((IllegalMove, LeaseLost)):
            runs.commit_round(1, attempt=attempt, token="w1", model=MODEL, reason="late")
    with pytest.raises(IllegalMove):
        begin(runs, attempt=4)
    runs.fail_attempt(1, attempt=2, token="w2", reason="boom")
    view = runs.read_round(1)
    assert view is not None
    assert (view.state, view.error) == (RoundState.AGGREGATING, "boom")


def test_an_expired_claim_can_be_taken(runs: RunStore) -> None:
    open_round(runs)
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    runs.redis.hset(runs.keys.round(1), "lease_ms", "1")  # the store is aged
    runs.claim_round(1, attempt=1, token="w2", ttl_s=5)


def test_an_ended_run_stays_as_it_ended(runs: RunStore) -> None:
    open_round(runs)
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    runs.end(RunState.STOPPED, "enough")
    with pytest.raises(IllegalMove):
        runs.end(RunState.FINISHED, "no")
    with pytest.raises(IllegalMove):
        runs.commit_round(1, attempt=1, token="w1", model=MODEL, reason="late")
    with pytest.raises(IllegalMove):
        open_round(runs, 2)
    view, round_ = runs.read(), runs.read_round(1)
    assert round_ is not None
    assert (view.state, view.reason, round_.state) == (RunState.STOPPED, "enough", RoundState.FAILED)


def test_a_coordinator_that_was_replaced_does_not_end_the_run(runs: RunStore) -> None:
    open_round(runs)
    with pytest.raises(LeaseLost):
        runs.end(RunState.FAILED, "late", token="another")
    assert runs.read().state is RunState.RUNNING
    runs.end(RunState.FAILED, "mine", token=TOKEN)
    assert runs.read().state is RunState.FAILED


def test_every_transition_is_in_the_log_with_its_reason(runs: RunStore) -> None:
    runs.admit(TOKEN, "a", "from here")
    open_round(runs)
    runs.judge(1, "a", Verdict(False, "bad"))
    begin(runs)
    runs.end(RunState.FAILED, "why not")
    entries = [fields for _, fields in runs.redis.xrange(runs.keys.log)]
    assert [entry["event"] for entry in entries] == [
        "run.created", "client.joined", "round.opened", "update.refused", "round.aggregating", "run.failed",
    ]  # fmt: skip
    assert all(entry["reason"] for entry in entries)
    assert entries[3]["client"] == "a"


def test_forgetting_a_round_leaves_its_result(runs: RunStore) -> None:
    open_round(runs)
    runs.redis.hset(runs.keys.client("a").update(1), "path", "p")
    runs.judge(1, "a", Verdict(False, "bad"))
    runs.forget_round(1, ["a", "b"])
    assert runs.updates(1, ["a", "b"]) == {}
    left = [key.removeprefix(runs.keys.prefix) for key in runs.redis.scan_iter(f"{runs.keys.prefix}*")]
    assert sorted(left) == ["coordinator", "log", "refusals", "round:1", "round:1:entries", "round:1:verdicts", "run"]
    assert runs.read_round(1) is not None


def test_nothing_is_recorded_of_a_round_that_is_not_there(runs: RunStore) -> None:
    """A server that lost the run while an update was inspected has no such round."""
    for verdict in (accepted("good", num_examples=7), Verdict(False, "bad")):
        assert not runs.judge(1, "a", verdict)
    runs.redis.set(runs.keys.coordinator, TOKEN)
    with pytest.raises(IllegalMove, match="decide_structure"):
        runs.decide_structure(TOKEN, 1, Reference(ObjectRef("p", "d", 3)), others=[], reason="")
    assert runs.redis.keys(f"{runs.keys.prefix}*round*") == []
    assert not runs.refusals()


def test_a_round_begins_empty(runs: RunStore) -> None:
    """Whatever was written for it before, to a server that had lost the run."""
    update = runs.keys.client("a").update(1)
    runs.redis.hset(update, "path", "old")
    runs.redis.hset(runs.keys.round(1), "reference", "old")
    runs.redis.hset(runs.keys.verdicts(1), "a", Verdict(False, "old").to_json())
    runs.redis.hset(runs.keys.measured(1), "a", Measured(judged_ms=5).to_json())
    open_round(runs, 1)
    view = runs.read_round(1)
    assert view is not None
    assert not view.verdicts
    assert not runs.measured(1)
    assert runs.updates(1, ["a", "b"]) == {}
    assert runs.reference(1) is None


def test_a_round_that_is_opened_again_keeps_what_was_handed_in(runs: RunStore) -> None:
    """Also by one that the opening before had left out, and that this one expects again."""
    open_round(runs)

    def again(expected: str, left_out: str, opening: int) -> None:
        names, new = list(expected), [name for name in expected if name == "b"] if opening == 3 else []
        runs.reopen_round(
            TOKEN, 1, expected=names, new=new, left_out=list(left_out), opening=opening, timeout_s=9, reason=""
        )

    again("a", "b", 2)
    view = runs.read_round(1)
    assert view is not None
    assert (view.expected, view.left_out) == (("a",), ("b",))
    runs.redis.hset(runs.keys.client("b").update(1), "path", "p")
    again("ab", "", 3)
    view = runs.read_round(1)
    assert view is not None
    assert (view.expected, view.left_out) == (("a", "b"), ())
    assert runs.updates(1, ["b"]) == {"b": update.from_hash({"path": "p"})}


def test_a_decision_without_what_was_accepted_meanwhile_changes_nothing(runs: RunStore) -> None:
    open_round(runs)
    runs.judge(1, "b", Verdict(False, "bad", try_id="t1"))
    runs.judge(1, "a", accepted("good", try_id="t"))
    runs.judge(1, "b", accepted("good", try_id="t2"))
    before = runs.read_round(1)
    with pytest.raises(IllegalMove, match="decided without b, which is accepted"):
        begin(runs)
    with pytest.raises(IllegalMove, match="decided without b, which is accepted"):
        runs.reopen_round(TOKEN, 1, expected=["a"], new=[], left_out=["b"], opening=2, timeout_s=9, reason="")
    assert runs.read_round(1) == before
    runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b"], reason="all")


def test_the_update_of_a_client_that_is_left_out_is_not_accepted(runs: RunStore) -> None:
    """Until the round is opened again for it, too: what is accepted counts."""
    open_round(runs)
    runs.reopen_round(TOKEN, 1, expected=["a"], new=[], left_out=["b"], opening=2, timeout_s=9, reason="")
    assert not runs.judge(1, "b", accepted("good", try_id="t"))
    assert not runs.verdicts(1, ["b"])
    assert not runs.redis.exists(runs.keys.client("b").verdict(1))
    runs.reopen_round(TOKEN, 1, expected=["a", "b"], new=["b"], left_out=[], opening=3, timeout_s=9, reason="")
    assert runs.judge(1, "b", accepted("good", try_id="t"))
    assert runs.verdicts(1, ["b"])["b"].accepted


def test_no_update_of_a_quarantined_client_is_accepted_before_its_pardon(url: str) -> None:
    """Whichever worker or coordinator has inspected it, and whatever that knew; and the quarantine stands."""
    runs = RunStore(connect(url), "r", url)
    runs.redis.flushall()
    runs.create(rounds=3, config={"quarantine_after": 2})
    runs.redis.set(runs.keys.coordinator, TOKEN)
    open_round(runs)
    told = lambda: runs.redis.hget(runs.keys.client("b").verdict(1), "quarantined")  # noqa: E731
    assert runs.judge(1, "b", Verdict(False, "NaN", try_id="t1"))
    assert told() is None
    assert runs.judge(1, "b", Verdict(False, "NaN", try_id="t2"))
    assert told() == "2"
    assert not runs.judge(1, "b", accepted("good", try_id="t3"))
    assert not runs.verdicts(1, ["b"])["b"].accepted
    assert runs.refusals() == {"b": 2}
    assert runs.redis.hget(runs.keys.client("b").verdict(1), "try") == "t2"
    assert runs.judge(1, "a", accepted("good", try_id="t")), "another client's counts"
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=60)
    runs.commit_round(1, attempt=1, token="w1", model=MODEL, reason="")
    open_round(runs, 2)
    assert not runs.judge(2, "b", accepted("good", try_id="t4")), "nor in a later round, where it has no verdict yet"
    runs.pardon("b")
    assert runs.judge(2, "b", accepted("good", try_id="t4"))
    assert runs.verdicts(2, ["b"])["b"].accepted


def test_no_update_of_a_client_that_is_not_admitted_is_accepted(runs: RunStore) -> None:
    """Its edge has been another one since, by its protocol or its key; that is no fault of the update."""
    open_round(runs)
    tell_admission(runs, "b", Admission(False, "its key is another one"))
    assert runs.judge(1, "b", accepted("good", try_id="t1"))
    found = runs.verdicts(1, ["b"])["b"]
    assert (found.accepted, found.try_id) == (False, "t1")
    assert "does not admit" in found.reason
    assert runs.redis.hgetall(runs.keys.client("b").verdict(1))["accepted"] == "0"
    assert runs.refusals() == {}
    tell_admission(runs, "b", Admission(True))
    assert runs.judge(1, "b", accepted("good", try_id="t2"))
    assert runs.verdicts(1, ["b"])["b"].accepted


def test_the_last_try_is_answered_too_when_its_round_is_over(runs: RunStore) -> None:
    open_round(runs)
    assert runs.judge(1, "b", Verdict(False, "NaN", try_id="t1"))
    runs.judge(1, "a", accepted("good", try_id="t"))
    begin(runs)
    late = "late: round 1 no longer takes updates"
    assert not runs.refuse_late(1, "b", "t1"), "it has its verdict"
    assert not runs.refuse_late(1, "a", "t2"), "what was accepted is the last"
    assert runs.refuse_late(1, "b", "t2")
    assert not runs.judge(1, "b", accepted("good", try_id="t2"))
    assert runs.redis.hgetall(runs.keys.client("b").verdict(1)) == {"accepted": "0", "reason": late, "try": "t2"}
    assert runs.judge(1, "b", accepted("good", try_id="t3")), "whose inspection ended now"
    assert runs.redis.hgetall(runs.keys.client("b").verdict(1)) == {"accepted": "0", "reason": late, "try": "t3"}
    assert runs.refusals() == {"b": 1}


def test_what_structure_counts_is_decided_once_and_others_are_judged_again(runs: RunStore) -> None:
    open_round(runs)
    assert runs.reference(1) is None
    for client in ("a", "b"):
        runs.judge(1, client, accepted("good"))
    first = Reference(ObjectRef("p1", "d1", 3))
    runs.decide_structure(TOKEN, 1, first, others=["b"], reason="why")
    told = [runs.redis.exists(runs.keys.client(client).verdict(1)) for client in ("a", "b")]
    assert told == [1, 0], "an edge that reads its answer again must not find the acceptance that was taken back"
    with pytest.raises(IllegalMove, match="otherwise"):
        runs.decide_structure(TOKEN, 1, Reference(ObjectRef("p2", "d2", 4)), others=[], reason="why")
    view = runs.read_round(1)
    assert view is not None
    assert (runs.reference(1), view.reference, set(view.verdicts)) == (first, first, {"a"})
    assert runs.judge(1, "b", Verdict(False, "it has module. names"))


def test_an_acceptance_that_is_taken_back_forgives_no_refusal(runs: RunStore) -> None:
    """A site of another structure could else be refused twice, accepted once, and so on, and is never quarantined."""
    open_round(runs)
    for number in (1, 2):
        runs.judge(1, "b", Verdict(False, "NaN", try_id=f"t{number}"))
    runs.judge(1, "c", Verdict(False, "NaN", try_id="t1"))
    for client in ("a", "b", "c"):
        runs.judge(1, client, accepted("good", try_id="t3"))
    assert runs.refusals() == {}
    runs.decide_structure(TOKEN, 1, Reference(ObjectRef("p1", "d1", 3)), others=["b", "c"], reason="why")
    assert runs.refusals() == {"b": 2, "c": 1}
    runs.judge(1, "b", Verdict(False, "it has module. names", try_id="t3"))
    assert runs.refusals() == {"b": 3, "c": 1}
    assert runs.pardon("c")
    for client in ("b", "c"):
        runs.judge(1, client, accepted("good", try_id="t4"))
    assert runs.refusals() == {}
    runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b", "c"], reason="all")
    runs.claim_round(1, attempt=1, token="w", ttl_s=60)
    runs.fail_attempt(1, attempt=1, token="w", reason="NaN", unfit={"b": "NaN", "c": "NaN"})
    unfit = [Refusal(client, Verdict(False, "NaN", try_id="t4"), True) for client in ("b", "c")]
    runs.return_round(TOKEN, 1, attempt=1, refused=unfit, reason="too few")
    assert runs.refusals() == {"b": 4, "c": 1}, "each is counted once, and none that was pardoned"


def test_a_pardon_also_forgets_what_an_acceptance_had_cleared(runs: RunStore) -> None:
    """An acceptance that was taken back after the pardon brought the refusals back, and the quarantine with them."""
    open_round(runs)
    for number in (1, 2):
        runs.judge(1, "b", Verdict(False, "NaN", try_id=f"t{number}"))
    runs.judge(1, "b", accepted("good", try_id="t3"))
    assert not runs.pardon("b"), "none of its refusals counts at present"
    runs.decide_structure(TOKEN, 1, Reference(ObjectRef("p1", "d1", 3)), others=["b"], reason="why")
    assert runs.refusals() == {}


def test_a_refused_update_may_be_followed_by_another_try_while_the_round_is_open(runs: RunStore) -> None:
    open_round(runs)
    assert runs.judge(1, "a", Verdict(False, "bad", try_id="t1"))
    assert not runs.judge(1, "a", accepted("good", try_id="t1"))
    assert runs.judge(1, "a", Verdict(False, "bad", try_id="t2"))
    assert runs.refusals() == {"a": 2}
    assert runs.judge(1, "a", accepted("good", try_id="t3"))
    assert not runs.judge(1, "a", Verdict(False, "bad", try_id="t4"))
    assert runs.refusals() == {}


def test_an_ended_run_goes_on_with_its_round_open_again(runs: RunStore) -> None:
    open_round(runs)
    runs.judge(1, "a", accepted("good"))
    config = {**runs.read().config, "rounds": 9}

    def resume(token: str = TOKEN, round_: int = 1) -> None:
        runs.resume(
            token, round_, config=config, changed=["rounds"], closed=0, spoiled=[], timeout_s=9, reason="it was failed"
        )

    with pytest.raises(IllegalMove, match="running"):
        resume()
    runs.end(RunState.FAILED, "1 gone", detail="b: it is gone", token=TOKEN)
    assert runs.read().reason == "1 gone"
    assert runs.how_it_ended() == "b: it is gone"
    with pytest.raises(LeaseLost):
        resume("another")
    with pytest.raises(IllegalMove, match="another round"):
        resume(round_=2)
    resume()
    view, round_ = runs.read(), runs.read_round(1)
    assert round_ is not None
    assert (view.state, view.rounds, view.changed, view.resumed_round, view.ended_ms) == (
        RunState.RUNNING,
        9,
        ("rounds",),
        0,
        None,
    )
    assert (round_.state, round_.resumed, set(round_.verdicts)) == (RoundState.OPEN, True, {"a"})


def test_a_round_does_not_count_the_time_for_which_its_run_had_ended(runs: RunStore) -> None:
    """A run that was stopped over a weekend had a round of three days in its tables."""
    open_round(runs)
    runs.end(RunState.STOPPED, "over the weekend", token=TOKEN)
    ended_ms = runs.now_ms() - 300_000
    runs.redis.hset(runs.keys.state, mapping={"ended_ms": ended_ms, "created_ms": ended_ms - 50_000})
    runs.redis.hset(runs.keys.round(1), "opened_ms", ended_ms - 40_000)
    assert runs.read().took_s == 50
    config = {**runs.read().config, "rounds": 3}
    runs.resume(TOKEN, 1, config=config, changed=[], closed=0, spoiled=[], timeout_s=9, reason="it was stopped")
    view = runs.read_round(1)
    assert view is not None
    assert view.opened_ms == ended_ms - 40_000, "it was opened when it was opened"
    assert [from_ms for from_ms, _ in view.pauses] == [ended_ms]
    assert 40_000 <= runs.now_ms() - view.opened_ms - view.paused_ms < 100_000
    runs.end(RunState.FAILED, "again", token=TOKEN)
    runs.redis.hset(runs.keys.state, "ended_ms", runs.now_ms() - 7_000)
    runs.resume(TOKEN, 1, config=config, changed=[], closed=0, spoiled=[], timeout_s=9, reason="it had failed")
    again = runs.read_round(1)
    assert again is not None
    assert again.pauses[0] == view.pauses[0]
    assert 7_000 <= again.paused_ms - view.paused_ms < 60_000
    assert runs.read().paused_ms == again.paused_ms
    assert runs.read().took_s is None, "it goes on"
    runs.end(RunState.STOPPED, "at last", token=TOKEN)
    took_s = runs.read().took_s
    assert took_s is not None
    assert 43 <= took_s < 110
    assert (again.openings, again.all_openings) == (1, 3), "a lost quorum opens it as often as before"


def test_a_round_that_is_open_again_has_nothing_of_the_attempt_that_ended_the_run(runs: RunStore) -> None:
    """The clients in `spoiled` and `unfit` have handed in again: a new attempt must not go without them."""
    open_round(runs)
    for client in ("a", "b"):
        runs.judge(1, client, accepted("good", try_id="t"))
    for attempt, without in ((1, {}), (2, {"spoiled": ["a"], "unfit": {"b": "NaN"}})):
        runs.begin_aggregation(TOKEN, 1, attempt=attempt, contributors=["a", "b"], reason="all")
        runs.claim_round(1, attempt=attempt, token="w", ttl_s=9)
        runs.fail_attempt(1, attempt=attempt, token="w", reason="boom", passing=True, is_hopeless=True, **without)
        failed = runs.read_round(1)
        assert failed is not None
        assert failed.is_hopeless
    runs.end(RunState.FAILED, "no attempt is left", token=TOKEN)
    config = {**runs.read().config, "rounds": 3}
    runs.resume(TOKEN, 1, config=config, changed=[], closed=0, spoiled=["a", "b"], timeout_s=9, reason="it had failed")
    view = runs.read_round(1)
    assert view is not None
    assert (view.state, view.attempt, view.waits) == (RoundState.OPEN, 0, 0)
    assert (view.spoiled, view.unfit, view.contributors) == ((), {}, ())
    assert (view.error, view.passing_ms, view.lease_ms, view.reason, view.is_hopeless) == (None, None, None, "", False)
    assert view.verdicts == {}


def test_an_attempt_that_failed_for_what_passes_counts_for_none(runs: RunStore) -> None:
    open_round(runs)
    for attempt in (1, 2):
        runs.begin_aggregation(TOKEN, 1, attempt=attempt, contributors=["a"], reason="")
        runs.claim_round(1, attempt=attempt, token="w", ttl_s=9)
        runs.fail_attempt(1, attempt=attempt, token="w", reason="store full", passing=True)
        view = runs.read_round(1)
        assert view is not None
        assert (view.waits, view.passing_ms is not None) == (attempt - 1, True)


def test_a_reference_of_an_older_release_is_read(runs: RunStore) -> None:
    open_round(runs)
    runs.redis.hset(runs.keys.round(1), "reference", "p d")
    assert runs.reference(1) == Reference(ObjectRef("p", "d"))


def test_status_says_who_of_the_runs_own_processes_is_not_there(bench: Bench) -> None:
    coordinator = bench.serve(rounds=1, clients=1)
    edge = bench.edge("c1", bench.trainer())
    bench.eventually("it has handed in", lambda: bench.redis.exists(bench.runs.keys.client("c1").update(1)))
    told = bench.done("flavor", "status", bench.run).stdout
    assert f"no aggregator listens on queue {bench.run!r}: start one with `flavor-agg`" in " ".join(told.split())
    assert "no coordinator" not in told
    said = described(bench.runs, bench.url)
    assert said["no_aggregator"].startswith("no aggregator listens")
    assert said["served"]
    bench.aggregator()
    assert [coordinator.wait(), edge.wait()] == [0, 0]
    assert json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)["absent"] == []

    bench.run = f"{bench.run}-2"
    second = bench.serve(rounds=1, clients=2)
    second.until("is open for clients")
    second.end()
    bench.redis.delete(RunKeys(bench.run).coordinator)  # its lease has ended
    told = bench.done("flavor", "status", bench.run).stdout
    assert f"no coordinator serves it: start `flavor serve --run {bench.run} …` again" in " ".join(told.split())
    pardon = bench.done("flavor", "pardon", bench.run, "nobody")
    assert pardon.wait() == 1
    assert "client 'nobody' is not in run" in pardon.stderr


def test_status_shows_what_a_site_says_of_its_failure(runs: RunStore, url: str) -> None:
    """Of its trainer's end, and of an update that its edge refused; a report where the site shares one."""
    runs = RunStore(runs.redis, "shown", url)
    runs.create(rounds=3, config=RunConfig(rounds=3, store="s").to_mapping())
    runs.redis.set(runs.keys.coordinator, TOKEN)
    runs.open_round(TOKEN, 1, expected=["a", "b", "c"], timeout_s=60, reason="go")
    runs.redis.sadd(runs.keys.members, "a", "b", "c")
    said = {"failure": "trainer-ended", "exit_code": "3", "report": "cannot read\x1b[2J the data set"}
    of = {"a": {"state": "failed", "reason": "its trainer ended (exit code 3)", **said}, "b": {"state": "ready"}}
    for client, fields in {**of, "c": {"state": "ready"}}.items():
        runs.redis.hset(runs.keys.client(client).hash, mapping=fields)
    refused = {"refused": "its info.json cannot be used", "failure": "info"}
    runs.redis.hset(runs.keys.client("b").update(1), mapping=refused)
    found = described(runs, url)["clients"]
    assert {name: (each["failure"], each["report"]) for name, each in found.items()} == {
        "a": ("trainer-ended", said["report"]),
        "b": ("info", None),
        "c": (None, None),
    }
    shown = CliRunner().invoke(status, [runs.run, "--redis-url", url]).stdout
    row = next(line for line in shown.splitlines() if line.startswith("a "))
    assert row.endswith('"its trainer ended (exit code 3)" ("cannot read\\x1b[2J the data set")')


class ClosesMeanwhile(RunStore):
    """The current round closes, and the next one opens, as soon as it was read."""

    model: GlobalModel
    pending = True

    def read_round(self, round_: int) -> RoundView | None:
        view = super().read_round(round_)
        if self.pending:
            self.pending = False
            self.begin_aggregation(TOKEN, round_, attempt=1, contributors=["a"], reason="all")
            self.claim_round(round_, attempt=1, token="w1", ttl_s=60)
            self.commit_round(round_, attempt=1, token="w1", model=self.model, reason="done")
            self.open_round(TOKEN, round_ + 1, expected=["a"], timeout_s=9, reason="ready")
        return view


def test_status_has_its_metrics_while_rounds_close_under_its_hands(url: str, tmp_path: Path) -> None:
    """A round that closed after it was read was looked through for metrics that it did not have when it was read."""
    store = open_store(str(tmp_path / "store"), create=True)
    merged = {"metadata": {"datasetSize": [1]}, "metrics": {"accuracy": 0.5}}
    path = put_info(store, "runs/quick/global/0001-", merged)
    runs = ClosesMeanwhile(connect(url), "quick", url)
    runs.model = changed(MODEL, info_path=path["info_path"], info_digest=path["info_digest"])
    runs.remove_keys()
    runs.create(rounds=9, config=RunConfig(rounds=9, store=store.url).to_mapping())
    runs.redis.set(runs.keys.coordinator, TOKEN)
    runs.open_round(TOKEN, 1, expected=["a"], timeout_s=9, reason="ready")
    for closed in (0, 1, 2):
        runs.judge(closed + 1, "a", accepted("good", try_id="t"))
        runs.pending = True
        found = described(runs, url)
        assert found["round"] == closed + 1
        last = {"round": closed, "metrics": {"accuracy": 0.5}, "contributors": 1}
        assert found["last_round"] == (last if closed else None)
    assert described(runs, url)["last_round"]["round"] == 3
    assert "round 3: accuracy 0.5" in CliRunner().invoke(status, ["quick", "--redis-url", url]).stdout
    runs.remove_keys()


def test_status_says_of_a_site_that_went_between_rounds_that_it_is_away(url: str) -> None:
    """What it has handed in counts, and shows in the other columns; it was shown as `done`."""
    runs = RunStore(connect(url), "between", url)
    runs.remove_keys()
    runs.create(rounds=3, config=RunConfig(rounds=3, store="s", heartbeat_timeout_s=600).to_mapping())
    runs.redis.set(runs.keys.coordinator, TOKEN)
    sites = {
        "crashed": "ready",
        "here": "ready",
        "left": "left",
        "long": "stopped",
        "stopped": "stopped",
        "waits": "left",
    }
    runs.open_round(TOKEN, 1, expected=[*sites], timeout_s=9, reason="ready")
    runs.redis.sadd(runs.keys.members, *sites)
    for site, state in sites.items():
        runs.redis.hset(runs.keys.client(site).hash, mapping={"state": state, "reason": f"it says {state}"})
        runs.judge(1, site, accepted("good", num_examples=7, try_id="t"))
    for site in ("here", "waits"):
        runs.redis.set(runs.keys.client(site).lease, "1", ex=600)
    now = runs.now_ms()
    runs.redis.delete(runs.keys.log)
    for site, at in (("long", now - 3600_000), ("stopped", now)):
        runs.redis.xadd(runs.keys.log, {"event": "client.stopped", "client": site}, id=str(at))
    told = CliRunner().invoke(status, ["between", "--redis-url", url]).stdout.split("SITE")[1].splitlines()[1:]
    assert [row.split("  ")[0].split()[0] for row in told] == [*sites]
    words = {row.split()[0]: " ".join(row.split()[1:]) for row in told}
    assert re.fullmatch(r"stopped \d+ s 7 - \"it says stopped\"", words["stopped"])
    assert re.fullmatch(r"gone 1 h 7 - \"it says stopped\"", words["long"])
    assert words["crashed"].startswith("gone over ")
    assert words["left"].startswith("left - 7")
    assert (words["here"][:4], words["waits"][:4]) == ("done", "done")
    runs.remove_keys()


def test_a_store_that_is_away_is_noted_in_an_open_round_alone(runs: RunStore) -> None:
    runs.note_store_away(1)
    assert runs.read_round(1) is None
    open_round(runs)
    runs.note_store_away(1)
    view = runs.read_round(1)
    assert view is not None
    assert view.away_ms is not None


def test_only_the_holder_of_a_claim_gives_it_back(runs: RunStore) -> None:
    open_round(runs)
    with pytest.raises(IllegalMove):
        runs.give_back_round(1, attempt=1, token="w1", reason="no mount")
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    for attempt, token in ((1, "w2"), (2, "w1")):
        with pytest.raises((IllegalMove, LeaseLost)):
            runs.give_back_round(1, attempt=attempt, token=token, reason="no mount")
    with pytest.raises(LeaseLost):
        runs.claim_round(1, attempt=1, token="w2", ttl_s=5)
    runs.give_back_round(1, attempt=1, token="w1", reason="no mount")
    view = runs.read_round(1)
    assert view is not None
    assert (view.state, view.attempt, view.lease_ms, view.error) == (RoundState.AGGREGATING, 1, None, None)
    runs.claim_round(1, attempt=1, token="w2", ttl_s=5)


def test_a_round_is_taken_back_only_from_the_attempt_that_failed(runs: RunStore) -> None:
    """And by its coordinator: who decided on an earlier one, or before an answer that was lost, changes nothing."""
    open_round(runs)
    for client in ("a", "b"):
        runs.judge(1, client, accepted("good", try_id="t"))
    spoiled = [Refusal("b", Verdict(False, "NaN", try_id="t"), True)]

    def unchanged(raises: type[Exception], *, attempt: int = 1, token: str = TOKEN, round_: int = 1) -> None:
        before = runs.read_round(1), runs.refusals(), runs.redis.hgetall(runs.keys.client("b").verdict(1))
        with pytest.raises(raises):
            runs.return_round(token, round_, attempt=attempt, refused=spoiled, reason="too few")
        assert (runs.read_round(1), runs.refusals(), runs.redis.hgetall(runs.keys.client("b").verdict(1))) == before

    unchanged(IllegalMove, attempt=0)  # it is open
    runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b"], reason="all")
    unchanged(IllegalMove)  # nothing went wrong yet
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    unchanged(IllegalMove)
    runs.fail_attempt(1, attempt=1, token="w1", reason="boom", spoiled=["b"])
    unchanged(LeaseLost, token="another")
    unchanged(IllegalMove, attempt=2)
    unchanged(IllegalMove, round_=2)
    runs.begin_aggregation(TOKEN, 1, attempt=2, contributors=["a"], reason="again")
    unchanged(IllegalMove)  # another attempt is made of it
    unchanged(IllegalMove, attempt=2)  # which has not failed
    runs.claim_round(1, attempt=2, token="w2", ttl_s=5)
    runs.fail_attempt(1, attempt=2, token="w2", reason="boom", unfit={"b": "NaN"})
    runs.return_round(TOKEN, 1, attempt=2, refused=spoiled, reason="too few")
    view = runs.read_round(1)
    assert view is not None
    assert (view.state, view.attempt, view.contributors, view.lease_ms) == (RoundState.OPEN, 0, (), None)
    assert (view.error, view.spoiled, view.unfit) == (None, (), {})
    assert {client: verdict.accepted for client, verdict in view.verdicts.items()} == {"a": True, "b": False}
    assert runs.refusals() == {"b": 1}
    assert runs.redis.hgetall(runs.keys.client("b").verdict(1)) == {"accepted": "0", "reason": "NaN", "try": "t"}
    unchanged(IllegalMove, attempt=2)  # repeated after an answer that was lost
    with pytest.raises(IllegalMove):
        runs.commit_round(1, attempt=2, token="w2", model=MODEL, reason="late")


def test_a_site_that_changes_each_object_that_was_accepted_of_it_is_refused_for_good(runs: RunStore) -> None:
    """The first time it may be the store; in each later one the round had been aggregated for nothing, without end."""
    open_round(runs)
    runs.judge(1, "a", accepted("good", try_id="t"))
    found = []
    for number in range(4):
        assert runs.judge(1, "b", accepted("good", try_id=f"t{number}"))
        assert runs.refusals() == {}, "as after any update that was accepted"
        runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b"], reason="all")
        runs.claim_round(1, attempt=1, token="w1", ttl_s=60)
        runs.fail_attempt(1, attempt=1, token="w1", reason="other bytes", spoiled=["b"])
        changed = Refusal("b", Verdict(False, "changed", try_id=f"t{number}"), False)
        runs.return_round(TOKEN, 1, attempt=1, refused=[changed], reason="too few")
        found.append(runs.refusals().get("b", 0))
    assert found == [0, 1, 2, 3], "three shut it out"


def test_an_attempt_that_a_site_has_spoiled_counts_for_none(runs: RunStore) -> None:
    """Two sites, one after the other, had left the round no attempt for an aggregator that is killed."""
    config = RunConfig(rounds=3, store="s", quorum=1, aggregation_attempts=2)
    runs.open_round(TOKEN, 1, expected=["a", "b", "c"], timeout_s=9, reason="ready")
    clients = ["a", "b", "c"]
    for client in clients:
        runs.judge(1, client, accepted("good", try_id="t"))
    spoiled: list[str] = []
    for attempt in (1, 2, 3, 4):
        refused = [Refusal(client, Verdict(False, "changed", try_id="t"), False) for client in spoiled]
        clients = [client for client in clients if client not in spoiled]
        runs.begin_aggregation(TOKEN, 1, attempt=attempt, contributors=clients, reason="go", refused=refused)
        runs.claim_round(1, attempt=attempt, token="w", ttl_s=60)
        spoiled = clients[-1:] if attempt < 3 else []
        runs.fail_attempt(1, attempt=attempt, token="w", reason="boom", spoiled=spoiled)
        view = runs.read_round(1)
        assert view is not None
        decision = supervise(0, view, enqueued_ms=0, workers=1, config=config)
        action, reason = decision.action, decision.reason
        assert action is (Action.RETRY if attempt < 4 else Action.FAIL), reason
    assert (view.contributors, view.waits) == (("a",), 2)
    assert reason == "attempt 2 of 2: boom"


@pytest.mark.parametrize("field", ["round", "rounds", "config", "state", "created_ms"])
def test_a_state_that_is_none_is_one_line(runs: RunStore, field: str) -> None:
    """An administrator of Redis may write there what Python does not read: a number of 5000 digits."""
    runs.redis.hset(runs.keys.state, mapping={field: "9" * 5000, "reason": "long" * 1_000_000})
    with pytest.raises(DamagedRecord, match=rf"the record flavor:\{{r\}}:run .* cannot be read: field '{field}': "):
        runs.read()
    runs.redis.hset(runs.keys.state, mapping={"round": "1", "rounds": "3", "config": "{}", "state": "running"})
    runs.redis.hdel(runs.keys.state, "created_ms")
    assert len(runs.read().reason) == 10_000


def test_a_run_ends_only_for_what_is_still_so(runs: RunStore) -> None:
    open_round(runs)
    seen = runs.read_round(1)
    runs.judge(1, "b", accepted("good", try_id="t"))
    with pytest.raises(IllegalMove, match="decided without b, which is accepted"):
        runs.end(RunState.FAILED, "too few", token=TOKEN, seen=seen)
    seen = runs.read_round(1)
    runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["b"], reason="go")
    with pytest.raises(IllegalMove, match="aggregating 1, and was decided on as open 0"):
        runs.end(RunState.FAILED, "too few", token=TOKEN, seen=seen)
    seen = runs.read_round(1)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    runs.commit_round(1, attempt=1, token="w1", model=MODEL, reason="done")
    with pytest.raises(IllegalMove, match="closed 1, and was decided on as aggregating 1"):
        runs.end(RunState.FAILED, "three attempts failed", token=TOKEN, seen=seen)
    assert runs.read().state is RunState.RUNNING
    runs.end(RunState.FINISHED, "all closed", token=TOKEN, seen=runs.read_round(1))
    assert runs.read().state is RunState.FINISHED


def test_the_contributors_of_a_round_are_those_of_its_first_attempt(runs: RunStore) -> None:
    open_round(runs)
    begin(runs)
    runs.claim_round(1, attempt=1, token="w1", ttl_s=5)
    runs.fail_attempt(1, attempt=1, token="w1", reason="boom")
    runs.begin_aggregation(TOKEN, 1, attempt=2, contributors=["a", "b"], reason="again")
    view = runs.read_round(1)
    assert view is not None
    assert view.contributors == ("a",)
