"""An edge alone: what it makes of its trainer, on a run that the test itself coordinates."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flavor.bus.admission import tell_admission
from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.members import Members
from flavor.edge import agent, idleness, inbox, joining, trainer
from flavor.edge.config import EdgeConfig
from flavor.errors import FlavorError, NotAdmitted, RunFinishedEarly
from flavor.ledger.keys import SigningKey
from flavor.records.admission import Admission
from flavor.records.names import Event
from flavor.records.states import RunState
from flavor.records.verdict import Verdict
from flavor.store.open import open_store
from flavor.view.event import Event as ViewEvent
from flavor.view.observer import Everyone, Lines
from flavor.view.site_events import SiteRoundEvent, TaskBegun, UpdateHandedIn, UpdateWithheld
from tests.conftest import DEADLINE_S, Bench
from tests.infos import begin_run

TOKEN = "coordinator"
HEAD = """
import os, pickle
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent
def train():
    with open(os.environ["LOCAL_MODEL_PATH"], "wb") as file:
        import numpy
        pickle.dump({"state_dict": {"w": numpy.ones(3, "float32")}}, file)
    cells = dict.fromkeys(("basic/confusion_" + cell for cell in ("tp", "fp", "fn", "tn")), -1)
    SaveInfoJson({"metadata": {"epoch": 1, "datasetSize": 1, "importance": 1.0}, "metrics": cells})
def gate(name):
    open(os.path.join(os.environ["INPUT_PATH"], name)).read()
"""


class Alone:
    """A run whose coordinator is the test, and the edge of its client a, which runs in a thread here."""

    def __init__(self, url: str, folder: Path, bench: Bench) -> None:
        self.url, self.folder, self.bench = url, folder, bench
        self.redis = connect(url)
        self.redis.flushall()
        self.runs = RunStore(self.redis, "r", url)
        self.keys = self.runs.keys.client("a")
        self.store = open_store(str(folder / "store"), create=True)
        begin_run(self.runs, self.store, RunConfig(rounds=3, store=self.store.url))
        self.redis.set(self.runs.keys.coordinator, TOKEN)
        self.told: list[str] = []
        self.events: list[SiteRoundEvent] = []
        self.error: FlavorError | None = None

    def start(self, script: str, *, store: str = "") -> None:
        """Start the edge with this trainer."""
        file = self.folder / "trainer.py"
        file.write_text(HEAD + script)
        config = EdgeConfig(
            run="r",
            client="a",
            redis_url=self.url,
            store=store or self.store.url,
            command=(sys.executable, str(file)),
            workspace=self.folder / "a",
            input=self.folder,
        )

        def run() -> None:
            try:
                agent.take_part(config, observer=Everyone(Lines(self.told.append), self))
            except FlavorError as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def hear(self, event: ViewEvent) -> None:
        """Note what happens in a round; the edge's observer."""
        if isinstance(event, SiteRoundEvent):
            self.events.append(event)

    def open_round(self, number: int) -> None:
        self.runs.open_round(TOKEN, number, expected=["a"], timeout_s=60, reason="go")

    def is_ready(self) -> None:
        self.eventually("it is ready", lambda: self.redis.hget(self.keys.hash, "state") == "ready")

    def update(self, number: int) -> dict[str, str]:
        """What it hands in for this round."""
        self.eventually(f"it has handed in round {number}", lambda: self.redis.exists(self.keys.update(number)))
        found: dict[str, str] = self.redis.hgetall(self.keys.update(number))
        return found

    def eventually(self, what: str, look: Callable[[], object]) -> None:
        def looked() -> object:
            assert self.thread.is_alive() or look(), (self.error, self.told)
            return look()

        self.bench.eventually(what, looked)

    def says(self, text: str) -> None:
        """Wait until the edge has told its user this."""
        self.eventually(f"it says {text!r}", lambda: any(text in line for line in list(self.told)))

    def end(self) -> None:
        if not self.runs.read().state.ended:
            self.runs.end(RunState.STOPPED, "enough")
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def alone(url: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alone]:
    for name in ("INPUT_PATH", "OUTPUT_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH", "LOG_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", bench.env["PYTHONPATH"])
    made = Alone(url, tmp_path, bench)
    yield made
    made.end()
    made.redis.close()


def test_a_round_that_was_finished_without_having_been_taken_up_is_refused_and_the_next_one_counts(
    alone: Alone, tmp_path: Path
) -> None:
    """Scripts 2: the script trains from its own weights, and never waits for its round."""

    os.mkfifo(tmp_path / "began")
    alone.start(
        'SetEvent("TrainInitDone"); train(); gate("began"); SetEvent("TrainFinished")\n'
        'WaitEvent("TrainStarted"); train(); SetEvent("TrainFinished"); WaitEvent("TrainStarted")\n'
    )
    alone.is_ready()
    alone.open_round(1)
    alone.eventually("round 1 is begun", lambda: alone.redis.get(alone.keys.started) == "1")
    with open(tmp_path / "began", "w"):
        pass
    refused = alone.update(1)
    assert refused["refused"] == "its trainer finished a round that it had not waited for"
    assert refused["failure"] == "round-not-taken-up"
    assert "path" not in refused
    assert any("call WaitEvent('TrainStarted') at the beginning of every round" in line for line in alone.told)
    assert alone.store.folders("runs/r/clients/") == [], "nothing of it was uploaded"
    alone.redis.hset(alone.runs.keys.state, "round", "1")
    alone.redis.hset(alone.runs.keys.round(1), "state", "closed")
    alone.open_round(2)
    handed_in = alone.update(2)
    heard = [(TaskBegun, 1), (UpdateWithheld, 1), (UpdateHandedIn, 1), (TaskBegun, 2), (UpdateHandedIn, 2)]
    alone.eventually("so its observer hears", lambda: [(type(each), each.round) for each in alone.events] == heard)
    assert "refused" not in handed_in
    assert handed_in["path"].startswith("runs/r/clients/a/0002-update-")


def test_what_the_script_writes_after_it_has_set_the_event_is_not_handed_in(alone: Alone) -> None:
    """Scripts 2: the write comes at once, before the edge hears of the event."""
    alone.start(
        """
from flavor.cook import utils
events = utils._Session.current().events
def at_once(event, round_, set_=events.set):
    if event == "TrainFinished" and round_ == 1:
        train()
    set_(event, round_)
events.set = at_once
SetEvent("TrainInitDone")
while True:
    WaitEvent("TrainStarted")
    train()
    SetEvent("TrainFinished")
"""
    )
    alone.is_ready()
    alone.open_round(1)
    refused = alone.update(1)
    assert refused["failure"] == "checkpoint"
    assert "path" not in refused
    alone.says("the script wrote to")
    alone.redis.hset(alone.runs.keys.state, "round", "1")
    alone.redis.hset(alone.runs.keys.round(1), "state", "closed")
    alone.open_round(2)
    assert "refused" not in alone.update(2)


def test_a_site_is_told_that_it_has_joined_by_the_coordinator_and_never_before_it_is_refused(
    alone: Alone, tmp_path: Path
) -> None:
    """As at a start with another key than the run knows it by."""
    key = SigningKey.load_or_create(tmp_path / "a" / "client.key", "a").public
    tell_admission(alone.runs, "a", Admission(False, "its key is another one", str(key)))
    alone.start("")
    alone.thread.join(DEADLINE_S)
    assert isinstance(alone.error, NotAdmitted), alone.told
    assert not any("joined" in line for line in alone.told)
    alone.redis.delete(alone.keys.admission)
    alone.start('SetEvent("TrainInitDone"); WaitEvent("TrainStarted")\n')
    alone.is_ready()
    assert not any("joined" in line for line in alone.told), "no coordinator has said so"
    log = ClientLog(alone.runs, Lines(print))
    members = Members(alone.runs, Lines(print), log, quarantine_after=3, lease_s=9.0, only=None)
    members.read_all(token=TOKEN, lenient=lambda: False)
    alone.says("joined run 'r'")


def test_a_site_with_another_store_tells_the_run_so(alone: Alone, tmp_path: Path) -> None:
    """The operator sees why it is not there: not that it "does not take part"."""
    (tmp_path / "other" / "runs").mkdir(parents=True)
    for store, failure in (("other", "other-store"), ("missing", "unusable-store")):
        alone.start("", store=str(tmp_path / store))
        alone.thread.join(DEADLINE_S)
        assert isinstance(alone.error, FlavorError), alone.told
        assert alone.error.exit_code == 2
        told = alone.redis.hgetall(alone.keys.hash)
        assert (told["state"], told["failure"]) == ("failed", failure)
        assert str(tmp_path) not in told["reason"], "the class alone leaves the site"


def test_a_site_that_comes_to_a_stopped_run_waits_until_it_goes_on(alone: Alone) -> None:
    """As one that is started at the same moment as `flavor resume`."""
    alone.runs.end(RunState.STOPPED, "a pause")
    alone.start('SetEvent("TrainInitDone"); WaitEvent("TrainStarted")\n')
    alone.says("waiting for run 'r': it is stopped (a pause); its operator goes on with it with `flavor resume r`")
    view = alone.runs.read()
    alone.runs.resume(
        TOKEN, view.round, config=view.config, changed=[], closed=0, spoiled=[], timeout_s=60, reason="it goes on"
    )
    alone.is_ready()


@pytest.mark.parametrize("late", [False, True], ids=["soon", "late"])
def test_a_site_that_is_started_with_its_coordinator_says_nothing_of_a_run_that_is_not_there(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """As in a local run: who reads its log takes that for a fault. One whose run does not come says so."""
    monkeypatch.setattr(joining, "_TOGETHER_S", 0.1 if late else DEADLINE_S)
    state = alone.runs.keys.state
    alone.redis.rename(state, "elsewhere")
    alone.start('SetEvent("TrainInitDone"); WaitEvent("TrainStarted")\n')
    if late:
        alone.says("waiting for run 'r': there is none of this name on this Redis yet")
    else:
        alone.eventually("it listens", lambda: dict(alone.redis.pubsub_numsub(state))[state])
    alone.redis.rename("elsewhere", state)
    alone.redis.publish(state, "waiting")
    alone.is_ready()
    assert any(line.startswith("waiting for run") for line in alone.told) is late


def test_a_site_that_comes_to_a_finished_run_ends_as_the_run_did(alone: Alone) -> None:
    alone.runs.end(RunState.FINISHED, "early, after round 1 of 3")
    alone.start("")
    alone.thread.join(DEADLINE_S)
    assert isinstance(alone.error, RunFinishedEarly)
    assert (alone.error.exit_code, "ask its operator for another run" in str(alone.error)) == (7, True)


def test_a_site_whose_run_is_finished_early_says_so_and_why(alone: Alone) -> None:
    alone.start('SetEvent("TrainInitDone"); WaitEvent("TrainStarted")')
    alone.is_ready()
    alone.runs.end(RunState.FINISHED, "early, after round 0 of 3: 1 script ended")
    alone.thread.join(DEADLINE_S)
    assert isinstance(alone.error, RunFinishedEarly)
    assert "is finished: early, after round 0 of 3: 1 script ended; the final global model is at" in str(alone.error)


def test_a_site_says_what_it_waits_for(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idleness, "SILENT_S", 0.1)
    alone.start(
        'SetEvent("TrainInitDone"); WaitEvent("TrainStarted"); train(); SetEvent("TrainFinished")\n'
        'WaitEvent("TrainStarted")\n'
    )
    alone.says("waiting for the run's first round here")
    alone.open_round(1)
    alone.update(1)
    alone.says("waiting for an aggregator to inspect its update of round 1, or the end of that round")
    assert alone.runs.judge(1, "a", Verdict(True, ""))
    alone.says("waiting for the run's next round: this site's part in round 1 is done")


def test_a_site_whose_update_was_refused_says_what_to_do(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said that its part was done, while the run waited for it."""
    monkeypatch.setattr(idleness, "SILENT_S", 0.1)
    alone.start(
        'SetEvent("TrainInitDone"); WaitEvent("TrainStarted"); train(); SetEvent("TrainFinished")\n'
        'WaitEvent("TrainStarted")\n'
    )
    alone.open_round(1)
    alone.update(1)
    assert alone.runs.judge(1, "a", Verdict(False, "NaN", try_id=alone.update(1)["try"]))
    again = "start this again, and it trains round 1 again while that is open"
    alone.says(f"round 1: the update was refused: NaN; once that is mended {again}")
    alone.says("its update of round 1 was refused; mend that, then end this (Ctrl-C) and start it again")
    assert not any("is done" in line for line in alone.told)


def test_a_script_that_forgets_to_finish_its_round_is_told_of(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the site, and in what the run's operator sees of it; no longer once it has set TrainFinished."""
    monkeypatch.setattr(idleness, "SILENT_S", 0.1)
    monkeypatch.setattr(inbox, "RELISTEN_S", 0.1)
    alone.start('SetEvent("TrainInitDone"); WaitEvent("TrainStarted"); train(); WaitEvent("TrainStarted")\n')
    alone.is_ready()
    alone.open_round(1)
    alone.says("waiting for TrainFinished of round 1: the trainer called WaitEvent('TrainStarted') again before it")
    reason = lambda: alone.redis.hget(alone.keys.hash, "reason")  # noqa: E731
    told = "it waits for TrainFinished of round 1: the trainer called WaitEvent('TrainStarted') again before it: call "
    alone.eventually("the run is told", lambda: (reason() or "").startswith(told))
    alone.redis.set(alone.keys.event(1, Event.TRAIN_FINISHED), "1")
    alone.update(1)
    alone.eventually("it is no longer so", lambda: reason() == "")


def test_a_script_that_never_gets_ready_is_spoken_of_again_and_again(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts 5: at the site itself, with no terminal; and no longer once it is."""

    monkeypatch.setattr(trainer, "_UNREADY_S", 0.2)
    os.mkfifo(tmp_path / "ready")
    alone.start('gate("ready"); SetEvent("TrainInitDone"); WaitEvent("TrainStarted")\n')
    said = "waiting for the trainer to call SetEvent('TrainInitDone'), for {} s now: no round begins before it has"
    alone.says("SetEvent('TrainInitDone'), for 1 s now")
    reminders = [line for line in alone.told if "SetEvent('TrainInitDone')" in line]
    assert reminders[:3] == [said.format(seconds) for seconds in ("0", "0", "1")]
    with open(tmp_path / "ready", "w"):
        pass
    alone.is_ready()
    before = len(alone.told)
    alone.open_round(1)
    alone.eventually("round 1 is begun", lambda: alone.redis.get(alone.keys.started) == "1")
    assert not any("SetEvent" in line for line in alone.told[before:])


def test_a_redis_that_comes_back_empty_is_not_blamed_on_the_script(bench: Bench) -> None:
    bench.serve("--heartbeat-timeout-s", 60, rounds=3, clients=1)
    bench.aggregator()
    edge = bench.edge("c1", bench.trainer("--hold"), env={"TEST_BUS": bench.url})
    bench.held("c1")
    bench.redis.flushall()
    bench.release("c1")
    edge.until("Redis came back empty or older, and no longer knows whether the trainer waited for round 2")
    assert "call WaitEvent" not in edge.stderr
