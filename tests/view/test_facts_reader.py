"""A reader that reads only what has changed sees what a fresh look sees, whatever happens to the run."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from flavor.bus.clients import LONGEST_FIELD_BYTES
from flavor.config import RunConfig
from flavor.errors import IllegalMove, LeaseLost
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.records.objects import ObjectRef
from flavor.records.pulse import Doing, Load, Pulse
from flavor.records.reported import Reported
from flavor.records.round import Reference
from flavor.records.states import RunState
from flavor.records.verdict import Refusal, Verdict
from flavor.view.client_snapshot import ClientMemory
from flavor.view.document import RowMemory, document_of
from flavor.view.evaluations import described_evaluations
from flavor.view.facts import Facts, read_facts
from flavor.view.facts_reader import WHOLE_S, FactsReader
from flavor.view.newest import Newest
from flavor.view.patch import merge_patch, patched
from flavor.view.run_log import RunLog
from flavor.view.snapshot import snapshot_of
from tests.driven import Driven
from tests.heard import CONFIG, TOKEN, Heard
from tests.recorded import accepted, global_model

SITES = ("a", "b", "c", "d")
STATES = ("joined", "ready", "ready", "left", "failed", "stopped", "what", "revoked")
MODEL = global_model("runs/r/global/0001-model", "0" * 64, 1)
UNHEARD = ("do_coordinator", "do_claim", "do_fail", "do_commit", "do_resume")
"""Moves of which a part is announced by nothing: the reader sees it some seconds later."""


@pytest.fixture
def followed(url: str) -> Iterator[Heard]:
    followed = Heard(url)
    yield followed
    followed.close()


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def shown(
    facts: Facts, clients: ClientMemory | None = None, made: RowMemory | None = None
) -> tuple[dict[str, Any], dict[str, int]]:
    """The document; and apart from it the last sign of life of clients that are there, which may be seconds old."""
    document = document_of(snapshot_of(facts, memory=clients), Newest(), memory=made)
    rows = document["clients"]
    seen = {name: row["seen_ms"] for name, row in rows.items() if row["alive"] and row["seen_ms"]}
    return document | {"clients": {name: row | {"seen_ms": name in seen} for name, row in rows.items()}}, seen


class Mover:
    """Does something to the run, as its edges, workers and coordinator, and its operator do."""

    def __init__(self, followed: Heard, seed: int) -> None:
        self.runs, self.redis, self.dice = followed.runs, followed.redis, random.Random(seed)
        self.tries = 0

    def move(self) -> str:
        moves = [name for name in dir(self) if name.startswith("do_")]
        name = self.dice.choice([*moves, "do_open", "do_hand_in", "do_hand_in", "do_judge", "do_judge", "do_commit"])
        site, round_ = self.dice.choice(SITES), self.runs.read().round
        with contextlib.suppress(IllegalMove, LeaseLost, redis.exceptions.ResponseError):  # it may not do that now
            getattr(self, name)(site, round_)
        return f"{name} {site} {round_}"

    def write(self, site: str, fields: dict[str, str], says: str) -> None:
        keys = self.runs.keys.client(site)
        with self.redis.pipeline() as step:
            step.hset(keys.hash, mapping=fields)
            step.publish(keys.state, says)
            step.execute()

    def do_join(self, site: str, round_: int) -> None:
        self.do_say(site, round_)
        self.runs.admit(TOKEN, site, "with a key")

    def do_say(self, site: str, round_: int) -> None:
        keys = self.runs.keys.client(site)
        if self.dice.random() < 0.7:
            self.redis.set(keys.lease, "x", px=self.dice.choice([500_000, 600_000]))
        else:
            self.redis.delete(keys.lease)
        state = self.dice.choice(STATES)
        reason = self.dice.choice(["", "it broke", "x" * (LONGEST_FIELD_BYTES + 1)])
        self.write(site, {"state": state, "protocol": "2", "round": str(round_), "reason": reason}, state)

    def do_beat(self, site: str, round_: int) -> None:
        keys = self.runs.keys.client(site)
        with self.redis.pipeline() as step:
            step.pexpire(keys.lease, 600_000).publish(keys.state, "")
            step.execute()

    def do_pulse(self, site: str, round_: int) -> None:
        keys = self.runs.keys.client(site)
        pulse = Pulse(
            self.dice.choice(list(Doing)), round_, self.runs.now_ms(), Reported(1, 9, round=round_), Load(1, 2, 3)
        )
        fields = pulse.to_hash() | ({"load": "x" * (LONGEST_FIELD_BYTES + 1)} if self.dice.random() < 0.1 else {})
        with self.redis.pipeline() as step:
            step.hset(keys.hash, mapping=fields).publish(keys.pulse, "")
            step.execute()

    def do_begin_to_fetch(self, site: str, round_: int) -> None:
        keys = self.runs.keys.client(site)
        moving = {"phase": self.dice.choice(["fetching", "uploading", ""]), "done": "1", "total": "9", "since_ms": "1"}
        with self.redis.pipeline() as step:
            step.hset(keys.hash, mapping=moving).publish(keys.pulse, "")
            step.execute()

    def do_damage(self, site: str, round_: int) -> None:
        keys = self.runs.keys.client(site)
        self.redis.delete(keys.hash)
        if self.dice.random() < 0.5:
            self.redis.set(keys.hash, "no hash")
        self.redis.publish(keys.state, "x")
        if self.dice.random() < 0.7:
            self.redis.delete(keys.hash)
            self.redis.publish(keys.state, "x")

    def do_open(self, site: str, round_: int) -> None:
        expected = self.runs.members()
        self.runs.open_round(TOKEN, round_ + 1, expected=expected, timeout_s=600, reason="ready")

    def do_reopen(self, site: str, round_: int) -> None:
        view = self.runs.read_round(round_)
        if view is not None:
            left = [name for name in view.expected if name != site]
            new = [name for name in self.runs.members() if name not in view.expected][:1]
            self.runs.reopen_round(
                TOKEN,
                round_,
                expected=[*left, *new],
                new=new,
                left_out=[site],
                opening=view.openings + 1,
                timeout_s=600,
                reason="again",
            )

    def do_hand_in(self, site: str, round_: int) -> None:
        self.tries += 1
        key = self.runs.keys.client(site).update(self.dice.choice([round_, round_, round_, round_ + 1]))
        fields = {"path": site, "digest": site, "size": str(self.tries), "try": str(self.tries)}
        if self.dice.random() < 0.2:
            fields = {"refused": "no file", "failure": "NoFile", "try": str(self.tries)}
        with self.redis.pipeline() as step:
            step.delete(key)
            step.hset(key, mapping=fields)
            step.publish(key, str(round_))
            step.execute()

    def do_train_again(self, site: str, round_: int) -> None:
        self.redis.delete(self.runs.keys.client(site).update(round_))
        self.do_say(site, round_)

    def do_judge(self, site: str, round_: int) -> None:
        update = self.runs.updates(round_, [site]).get(site)
        try_id = update.try_id if update is not None else "0"
        if self.dice.random() < 0.6:
            path = {"path": f"runs/r/{site}", "info_path": f"runs/r/{site}-info"}
            self.runs.judge(round_, site, accepted("good", digest=site, size_bytes=7, try_id=try_id, **path))
        else:
            self.runs.judge(round_, site, Verdict(False, "NaN", try_id=try_id, blameless=self.dice.random() < 0.3))

    def do_structure(self, site: str, round_: int) -> None:
        view = self.runs.read_round(round_)
        if view is not None and (others := sorted(view.accepted)[:1]):
            reference = Reference(ObjectRef(f"runs/r/{site}", site, 7), "s")
            self.runs.decide_structure(TOKEN, round_, reference, others=others, reason="decided")

    def do_aggregate(self, site: str, round_: int) -> None:
        view = self.runs.read_round(round_)
        if view is not None:
            names = sorted(view.accepted)
            self.runs.begin_aggregation(TOKEN, round_, attempt=view.attempt + 1, contributors=names, reason="all")

    def do_refuse_late(self, site: str, round_: int) -> None:
        self.runs.refuse_late(round_, site, "late")

    def do_claim(self, site: str, round_: int) -> None:
        view = self.runs.read_round(round_)
        if view is not None:
            self.runs.claim_round(round_, attempt=view.attempt, token="w", ttl_s=60)

    def do_commit(self, site: str, round_: int) -> None:
        self.do_aggregate(site, round_)
        self.do_claim(site, round_)
        view = self.runs.read_round(round_)
        if view is not None:
            self.runs.commit_round(round_, attempt=view.attempt, token="w", model=MODEL, reason="done")

    def do_fail(self, site: str, round_: int) -> None:
        view = self.runs.read_round(round_)
        if view is not None:
            self.do_claim(site, round_)
            self.runs.fail_attempt(round_, attempt=view.attempt, token="w", reason="it broke", spoiled=[site])

    def do_return(self, site: str, round_: int) -> None:
        view = self.runs.read_round(round_)
        if view is not None and site in view.accepted:
            refusal = Refusal(site, Verdict(False, "spoiled", try_id=view.verdicts[site].try_id), True)
            self.runs.return_round(TOKEN, round_, attempt=view.attempt, refused=[refusal], reason="lost")

    def do_away(self, site: str, round_: int) -> None:
        self.runs.note_store_away(round_)

    def do_wait(self, site: str, round_: int) -> None:
        event = self.dice.choice(["round.waiting", "run.waiting"])
        self.runs.log(event, reason=f"for {site}", round_=round_ if event == "round.waiting" else None)

    def do_tell(self, site: str, round_: int) -> None:
        event = self.dice.choice(["client.left", "client.lost", "client.stopped"])
        self.runs.note(event, site, "it said goodbye", round_=round_)

    def do_vanish(self, site: str, round_: int) -> None:
        self.redis.delete(self.runs.keys.client(site).lease)
        self.runs.note("client.lost", site, "its heartbeat stopped", round_=round_)

    def do_pardon(self, site: str, round_: int) -> None:
        self.runs.pardon(site)

    def do_coordinator(self, site: str, round_: int) -> None:
        self.redis.delete(self.runs.keys.coordinator)
        if self.dice.random() < 0.7:
            self.redis.set(self.runs.keys.coordinator, TOKEN)

    def do_end(self, site: str, round_: int) -> None:
        if self.dice.random() < 0.3:
            self.runs.end(self.dice.choice([RunState.STOPPED, RunState.FAILED]), "enough", detail=f"{site} broke")

    def do_resume(self, site: str, round_: int) -> None:
        self.redis.set(self.runs.keys.coordinator, TOKEN)
        config = RunConfig.parse({**CONFIG, "rounds": 60}).to_mapping()
        closed = max(0, round_ - 1)
        self.runs.resume(
            TOKEN, round_, config=config, changed=["rounds"], closed=closed, spoiled=[site], timeout_s=600, reason="on"
        )


@pytest.mark.parametrize("seed", range(3))
def test_it_sees_what_a_fresh_look_sees(followed: Heard, seed: int) -> None:
    mover, done = Mover(followed, seed), []
    memory, rebuilt = (ClientMemory(), RowMemory()), dict[str, Any]()
    for site in SITES[:3]:
        mover.do_join(site, 0)
    for _ in range(120):
        new = [mover.move() for _ in range(mover.dice.choice([1, 1, 2, 4]))]
        if any(each.split()[0] in UNHEARD for each in new):
            followed.later_s += 2 * WHOLE_S
        done += new
        facts = followed.look()
        (found, seen), (fresh, seen_now) = shown(facts, *memory), shown(read_facts(followed.runs))
        assert merge_patch(fresh, found) == {}, done[-6:]
        assert found == fresh
        rebuilt = patched(rebuilt, merge_patch(rebuilt, found))
        assert rebuilt == without_nulls(fresh)
        assert all(-1000 < seen_now[name] - seen[name] < 10_000 for name in seen), (seen, seen_now)
    assert {each.split()[0] for each in done} >= {"do_open", "do_commit", "do_reopen"}


def test_verdicts_are_seen_although_every_publication_is_lost(followed: Heard) -> None:
    for site in SITES[:3]:
        followed.redis.set(followed.runs.keys.client(site).lease, "x", px=600_000)
        followed.redis.hset(followed.runs.keys.client(site).hash, mapping={"state": "ready", "protocol": "2"})
        followed.runs.admit(TOKEN, site, "with a key")
    followed.runs.open_round(TOKEN, 1, expected=SITES[:3], timeout_s=600, reason="ready")
    followed.look()
    for number, site in enumerate(SITES[:2]):
        fields = {"path": site, "digest": site, "size": "12", "try": "t"}
        followed.redis.hset(followed.runs.keys.client(site).update(1), mapping=fields)
        path = {"path": f"runs/r/{site}", "info_path": f"runs/r/{site}-info"}
        good = accepted("good", digest=site, size_bytes=12, try_id="t", **path)
        followed.runs.judge(1, site, Verdict(False, "NaN", try_id="t") if number else good)
    found, fresh = followed.reader.look()[0], read_facts(followed.runs)  # it has not heard
    assert shown(found)[0] == shown(fresh)[0]
    assert [found.refusals, list(found.round.verdicts)] == [{"b": 1}, ["a", "b"]]


def calls(redis: Any) -> int:
    """The number of commands of the server, with those in scripts."""
    return sum(each["calls"] for each in redis.info("commandstats").values())


def test_with_2000_clients_a_look_costs_what_is_new(url: str) -> None:
    followed = Heard(url)
    runs, keys, names = followed.runs, followed.runs.keys, [f"site-{number:04d}" for number in range(2000)]
    followed.reader = FactsReader(runs, followed.log, clock=lambda: 1000.0 + followed.later_s)
    with runs.redis.pipeline(transaction=False) as step:
        for name in names:
            own = keys.client(name)
            step.sadd(keys.members, name).set(own.lease, "x", px=600_000)
            step.hset(own.hash, mapping={"state": "ready", "protocol": "2", "round": "0", "reason": ""})
        step.execute()
    runs.open_round(TOKEN, 1, expected=names, timeout_s=600, reason="ready")
    facts = followed.look()
    assert len(facts.clients) == 2000
    assert next(iter(facts.clients)) == "site-0000"

    def cost() -> int:
        followed.hear()
        before = calls(runs.redis)
        followed.reader.look()
        return calls(runs.redis) - before - 1  # and the INFO before

    assert cost() <= 10, "what nothing announces"
    assert cost() <= 2, "nothing"
    for name in names[:3]:
        key = keys.client(name).update(1)
        runs.redis.hset(key, mapping={"path": name, "digest": name, "size": "1", "try": "t"})
        runs.redis.publish(key, "1")
    runs.judge(1, names[0], accepted(digest=names[0], try_id="t"))
    assert cost() <= 20
    standing = {name: (each.update is not None) for name, each in followed.reader.look()[0].clients.items()}
    assert [name for name, handed_in in standing.items() if handed_in] == names[1:3]
    for _ in range(3):
        with runs.redis.pipeline(transaction=False) as step:
            for name in names:
                own = keys.client(name)
                step.pexpire(own.lease, 600_000).publish(own.state, "").publish(own.pulse, "")
            step.execute()
        assert cost() <= 450, "three heartbeats of each"
    assert followed.reader.is_behind
    with runs.redis.pipeline(transaction=False) as step:
        for name in names[5:8]:
            step.hset(keys.client(name).hash, "state", "failed").publish(keys.client(name).state, "failed")
        step.execute()
    assert cost() <= 30, "what has changed comes first"
    found = followed.reader.look()[0].clients
    assert [name for name, client in found.items() if client.status.state == "failed"] == names[5:8]
    followed.close()


def test_without_credit_evaluations_are_read_as_the_log_tells_of_them_and_cost_little(url: str) -> None:
    """A run whose rounds take a second leaves its readers none."""
    run = Driven(url, select="accuracy:max")
    run.open(["a", "b"])
    run.accept("a")
    run.accept("b")
    run.close()
    reader = FactsReader(run.runs, RunLog(run.runs), credit=0.0)
    reader.look()

    def seen(most: int) -> dict[str, Any]:
        before = calls(run.runs.redis)
        found = reader.look()[0]
        assert calls(run.runs.redis) - before - 1 <= most
        return described_evaluations(found.evaluations, found.run, found.config, None)

    def fresh() -> dict[str, Any]:
        found = read_facts(run.runs)
        return described_evaluations(found.evaluations, found.run, found.config, None)

    for number in (AUTOMATIC, CENTRAL):
        run.open_evaluation(["a", "b"] if number == AUTOMATIC else [], number=number)
        assert seen(10) == fresh(), "opened"
    key = run.runs.keys.client("a").result(1, AUTOMATIC)
    run.runs.redis.hset(key, mapping={"refused": "it cannot"})
    reader.hear(key.partition("}:")[2], says=True)
    assert seen(6) == fresh()
    assert [each["in"] for each in fresh()["evaluating"]] == [["a"]], "handed in"
    run.judge_centrally(50, {"central/accuracy": 0.8}, 1)
    view = run.runs.read_evaluation(1, AUTOMATIC)
    assert view is not None
    assert seen(10) == fresh(), "the operator's own"
    run.runs.give_up_evaluation("coordinator", view, "it cannot be")
    assert seen(6) == fresh()
    assert (fresh()["evaluating"], len(fresh()["not_judged"])) == ([], 1), "given up"
    for number in (1, 2, 3):  # the first is over before the next look
        run.judge({"a": (10, {"accuracy": 0.1 * number}), "b": (10, {"accuracy": 0.3})}, number=number)
        assert number == 1 or seen(12) == fresh()
    assert fresh()["evaluation"]["evaluation"] == 3
    run.open(["a"])
    run.accept("a")
    run.close()
    run.judge({"a": (10, {"accuracy": 0.5})})
    assert seen(30) == fresh()
    assert fresh()["not_judged"] == [], "one has a result again"
    assert seen(2) == fresh(), "nothing new"


def test_all_entries_of_another_run_of_the_name_are_new(url: str) -> None:
    first = Driven(url, run="again")
    first.open(["a"])
    reader = FactsReader(first.runs, RunLog(first.runs))
    reader.look()
    first.runs.remove_keys()
    Driven(url, run="again").open(["a"])
    reader.hear("run", says=True)
    _, entries = reader.look()
    assert [fields["event"] for _, fields in entries] == ["run.created", "round.opened"]
