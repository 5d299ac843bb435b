"""What an edge makes of what it reads, when the publication of it was lost, or is about an earlier try."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flavor.bus.admission import tell_admission
from flavor.bus.connection import connect
from flavor.bus.events import ClientEvents
from flavor.bus.runs import RunStore
from flavor.bus.verdicts import late
from flavor.config import RunConfig
from flavor.edge.config import EdgeConfig
from flavor.edge.inbox import EVERYTHING
from flavor.edge.joining import Site
from flavor.edge.loop import Loop
from flavor.edge.membership import Membership
from flavor.edge.notice import Died, Failure, Notice
from flavor.edge.part import Part, Phase
from flavor.edge.past import take_over
from flavor.edge.standing import Standing
from flavor.edge.updates import Updates
from flavor.ledger.keys import SigningKey
from flavor.records.admission import Admission
from flavor.records.names import Event
from flavor.records.verdict import OfModel, Verdict
from flavor.view.observer import Lines
from tests.recorded import accepted

TOKEN = "coordinator"
AGAIN = "once that is mended start this again, and it trains round 1 again while that is open"


class Process:
    """One process of client `a`, without a trainer and without files: each takes the place of the one before."""

    def __init__(self, runs: RunStore, url: str, folder: Path) -> None:
        self.told: list[str] = []
        membership = Membership(runs.redis, url, runs.keys, "a")
        membership.take(ttl_s=60, told=self.told.append)
        self.leave = lambda: membership.leave(announce=False)
        config = EdgeConfig(run="r", client="a", redis_url=url, command=("true",), workspace=folder)
        key = SigningKey.load_or_create(folder / "key", "a")
        nothing: Any = None
        self.site = Site(
            config,
            runs,
            membership,
            runs.read(),
            RunConfig(rounds=3, store="none"),
            nothing,
            key,
            Lines(self.told.append),
        )
        self.standing = Standing(self.site)
        self.updates = Updates(self.site, self.standing)
        self.events = ClientEvents(url, "r", "a", redis=runs.redis)
        self.loop = Loop(
            self.site,
            queue.SimpleQueue(),
            standing=self.standing,
            trainer=nothing,
            work=NoWork(),
            updates=self.updates,
            events=self.events,
            run_ended=lambda _: None,
        )

    def goes_on(self) -> Process:
        """Take over what the process before has left."""
        self.standing.part = take_over(self.site, self.site.runs.read(), self.events, has_files=lambda: False).part
        return self

    @property
    def part(self) -> Part:
        return self.standing.part


class NoWork:
    """The work of a process whose trainer does nothing."""

    def begin(self, round_: int, task: object) -> None:
        raise AssertionError("no test here opens a round that is new to its process")

    def look(self, news: object) -> None:
        pass

    def repeat_if_forgotten(self, round_: int) -> None:
        pass


@pytest.fixture
def runs(url: str) -> Iterator[RunStore]:
    """A run in its first round."""
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    runs.create(rounds=3, config={})
    redis.set(runs.keys.coordinator, TOKEN)
    runs.open_round(TOKEN, 1, expected=["a"], timeout_s=600, reason="")
    yield runs
    redis.close()


@pytest.fixture
def process(runs: RunStore, url: str, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def start() -> Process:
        for before in started:
            before.leave()
        started[:] = [Process(runs, url, tmp_path)]
        return started[0]

    yield start
    for left in started:
        left.leave()


def try_of(runs: RunStore) -> str:
    """The try of client `a` in round 1 that lies in Redis now."""
    return runs.updates(1, ["a"])["a"].try_id


def test_an_edge_that_is_started_again_awaits_the_verdict_on_its_new_try(
    runs: RunStore, process: Callable[[], Process]
) -> None:
    process().updates.hand_in(1, accepted(path="x", digest="1").inspected)
    runs.judge(1, "a", Verdict(False, "tensor 'w' has NaN", try_id=try_of(runs)))

    second = process().goes_on()
    assert not runs.updates(1, ["a"]), "it is trained again"
    second.updates.hand_in(1, accepted(path="y", digest="2").inspected)
    second.updates.read_verdict(1)
    assert second.part.unjudged == 1
    assert len(second.told) == 1, second.told  # that of the first try, as it started
    newest = try_of(runs)

    third = process().goes_on()
    assert try_of(runs) == newest, "no aggregator has inspected it"
    assert third.part.unjudged == 1
    runs.judge(1, "a", Verdict(False, "tensor 'w' has inf", try_id=newest))
    third.updates.read_verdict(1)
    assert (third.part.unjudged, third.part.refused) == (0, 1)
    assert third.told == [f"round 1: the update was refused: tensor 'w' has inf; {AGAIN}"]
    third.updates.refuse(1, Notice(Failure.CHECKPOINT), "no tensors")
    runs.judge(1, "a", Verdict(False, "its checkpoint cannot be used", try_id=try_of(runs)))
    third.updates.read_verdict(1)
    assert third.told[1:] == ["round 1: the update cannot be used: no tensors", f"round 1: {AGAIN}"]


@pytest.mark.parametrize(
    ("of_model", "helps"),
    [
        (OfModel.SURE, "another try of this round would not help"),
        (OfModel.NO, "another try of this round would not help"),
        (OfModel.LIKELY, "if updates of other sites are accepted, the cause is here: mend it and start this again"),
        (OfModel.UNREADABLE, "once the run's operator has put that model back, start this again"),
    ],
)
def test_a_site_that_is_not_at_fault_is_sent_to_another_try_where_that_may_help(
    runs: RunStore, process: Callable[[], Process], of_model: OfModel, helps: str
) -> None:
    one = process()
    one.updates.hand_in(1, accepted(path="x", digest="1").inspected)
    refused = Verdict(False, "the global model has NaN", blameless=True, of_model=of_model, try_id=try_of(runs))
    runs.judge(1, "a", refused)
    one.updates.read_verdict(1)
    again = "" if "would not" in helps else ", and it trains round 1 again while that is open"
    assert one.told == [f"round 1: the update was refused: the global model has NaN; {helps}{again}"]
    assert one.part.of_model is of_model


def test_a_quarantined_site_says_so_until_its_pardon(runs: RunStore, process: Callable[[], Process]) -> None:
    """It told its user to mend the cause and start it again, which helps nothing before the pardon."""

    def over(site: Process) -> None:
        for quarantined in (3, 0):
            tell_admission(runs, "a", Admission(True, quarantined=quarantined))
            site.standing.check_admitted()

    one = process()
    one.updates.hand_in(1, accepted(path="x", digest="1").inspected)
    runs.redis.hset(runs.keys.refusals, "a", 2)
    runs.redis.hset(runs.keys.state, "config", '{"quarantine_after": 3}')
    runs.judge(1, "a", Verdict(False, "NaN", try_id=try_of(runs)))
    tell_admission(runs, "a", Admission(True))
    one.standing.check_admitted()
    one.updates.read_verdict(1)
    one.standing.check_admitted()  # the coordinator has not read that answer yet
    said = one.standing.quarantined
    assert said.startswith("quarantined after 3 refused updates in a row: it gets no new task")
    assert one.told == ["joined run 'r'", f"round 1: the update was refused: NaN; {said}"]
    tell_admission(runs, "a", Admission(True, quarantined=3))
    one.standing.check_admitted()
    assert len(one.told) == 2

    one.standing.part = replace(one.part, phase=Phase.IDLE, behind=1)
    again = process()
    again.standing.check_admitted()
    assert again.told == ["joined run 'r'", said]
    third = process().goes_on()
    counts = "which counts once the quarantine of this site is over"
    assert third.told == [f"round 1: the update was refused (NaN): training it again, {counts}"]
    tell_admission(runs, "a", Admission(True))
    again.standing.check_admitted()
    assert again.told[2:] == ["the run's operator has ended the quarantine of this site"]
    again.standing.part = Part(Phase.IDLE)
    over(again)
    assert again.told[-1] == again.told[2], "one that was started again is promised no first round"
    one.standing.check_admitted()
    assert "has ended the quarantine of this site; it waits for the run's next round" in one.told[2]
    assert "then end this (Ctrl-C) and start it again, and it trains round 1 again" in one.told[2], "at once"
    assert not again.standing.quarantined
    told = len(one.told)
    one.standing.check_admitted()
    assert len(one.told) == told, "the end of a quarantine is told once"
    runs.redis.hset(runs.keys.state, "round", 3)
    over(one)
    said = "has ended the quarantine of this site; it gets the run's next task by itself; if what its update of round 1"
    assert f"{said} was refused for is not mended yet, end this" in one.told[-1]


def test_an_update_that_was_too_late_is_not_tried_again(runs: RunStore, process: Callable[[], Process]) -> None:
    one = process()
    one.updates.hand_in(1, accepted(path="x", digest="1").inspected)
    runs.judge(1, "a", late(1, try_of(runs)))
    one.updates.read_verdict(1)
    assert one.told == ["round 1: the update was refused: late: round 1 no longer takes updates"]
    assert not one.part.refused


def test_a_site_without_a_task_leaves_the_events_of_its_earlier_rounds(
    runs: RunStore, process: Callable[[], Process]
) -> None:
    """A site of an asynchronous run that was away for long has no task: the events of round 1 are acknowledged."""
    before = process()
    before.events.set(Event.TRAIN_FINISHED, 1)
    runs.redis.hset(runs.keys.state, "round", 3)
    now = process()
    now.site = replace(now.site, settings=RunConfig(rounds=3, store="none", mode="async:buffer=1,max_staleness=0"))
    assert now.site.newest_task(3) == 0
    assert now.goes_on().part.behind == 0
    assert now.events.is_set(Event.TRAIN_FINISHED, 1)


def test_an_update_that_redis_has_forgotten_is_handed_in_again_as_it_was(
    runs: RunStore, process: Callable[[], Process]
) -> None:
    one = process()
    one.updates.hand_in(1, accepted(path="x", digest="1").inspected)
    before = runs.updates(1, ["a"])["a"]
    one.updates.repeat_if_forgotten(1)
    assert not one.told
    runs.redis.delete(runs.keys.client("a").update(1))
    one.updates.repeat_if_forgotten(2)
    assert not runs.updates(1, ["a"]), "the run is in another round"
    one.updates.repeat_if_forgotten(1)
    assert runs.updates(1, ["a"])["a"] == before
    assert one.told == ["Redis has forgotten the update of round 1: handing it in again"]


@pytest.mark.parametrize("round_", [0, 1])
def test_the_event_error_is_read_where_its_publication_was_lost(
    runs: RunStore, process: Callable[[], Process], url: str, round_: int
) -> None:
    site = process().goes_on()
    if round_:
        site.standing.part = Part(Phase.WORKING, round=1, newest=1)
        site.events.start_round(1, anew=True)
    trainer = ClientEvents(url, "r", "a")
    trainer.set(Event.ERROR, round_)
    trainer.close()
    with pytest.raises(Died, match="set the event Error") as died:
        site.loop.hear(EVERYTHING)
    assert died.value.notice.failure is Failure.ERROR_EVENT


def test_the_event_error_of_an_earlier_process_s_trainer_ends_nobody(
    runs: RunStore, process: Callable[[], Process]
) -> None:
    first = process()
    first.updates.hand_in(1, accepted(path="x", digest="1").inspected)
    first.events.set(Event.ERROR, 1)
    second = process().goes_on()
    assert second.part.behind == 1
    assert not second.loop.hear(EVERYTHING)
