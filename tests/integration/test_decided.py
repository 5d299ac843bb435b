"""What comes between a decision of the coordinator and the script that carries it out."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flavor.bus.connection import connect
from flavor.bus.jobs import RqJobQueue
from flavor.bus.verdicts import MORE_IS_LEFT_OUT, MOST_ENTRIES
from flavor.coordinator import stage_aggregation
from flavor.coordinator.loop import Coordinator
from flavor.errors import FlavorError, LeaseLost, LocalFault
from flavor.ledger.keys import SigningKey
from flavor.protocol import SPEAKS
from flavor.records.round import RoundView
from flavor.records.states import RoundState, RunState
from flavor.records.verdict import Refusal, Verdict
from flavor.store import waiting
from flavor.store.local import LocalStore
from flavor.store.trouble import MOST_UNSURE
from flavor.view.observer import Lines
from tests.faults.servers import remounted, tmpfs
from tests.recorded import accepted, global_model
from tests.served import LONG_S, Faulty, NoJobs, Served, close_without_manifest, reached


def test_what_is_accepted_after_the_decision_to_aggregate_counts(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two updates at the deadline: one is accepted in the moment after the coordinator went on without it."""
    served = Served(url, tmp_path, quorum=1, round_timeout_s=1.0, aggregation_lease_s=1.0)
    judged = served.accepts_at("coordinator.closing", "b", monkeypatch)
    with served.serving():
        assert served.accept("a")
        view = served.aggregating()
    assert judged == [True]
    assert view.state is RoundState.AGGREGATING
    assert (view.contributors, served.verdict_of("b")["accepted"]) == (("a", "b"), "1")
    assert not any("not inspected in time" in line for line in served.told), served.told


def test_a_run_does_not_end_for_the_lack_of_what_is_accepted_in_that_moment(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(url, tmp_path, quorum=2, on_quorum_lost="fail", round_timeout_s=1.0, aggregation_lease_s=1.0)
    judged = served.accepts_at("coordinator.ending", "b", monkeypatch)
    with served.serving():
        assert served.accept("a")
        view = served.aggregating()
    assert judged == [True]
    assert view.contributors == ("a", "b")
    assert served.runs.read().state is RunState.RUNNING


def test_a_run_does_not_fail_for_an_attempt_that_is_committed_in_that_moment(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker was silent for longer than its lease, and comes back."""
    served = Served(url, tmp_path, aggregation_attempts=1, aggregation_lease_s=1.0, round_timeout_s=600.0)
    runs, committed = served.runs, list[int]()
    model = global_model("runs/r/global/0001-model", "d" * 64, 12)

    def reach(name: str) -> None:
        if name == "coordinator.ending" and not committed:
            committed.append(1)
            runs.commit_round(1, attempt=1, token="w", model=model, reason="two updates")

    reached(reach, monkeypatch)
    with served.serving():
        assert served.accept("a")
        assert served.accept("b")
        served.aggregating()
        runs.claim_round(1, attempt=1, token="w", ttl_s=1)
        served.until("the run is over", lambda: runs.read().state.ended)
    assert committed == [1]
    assert (runs.read().state, served.round().state) == (RunState.FINISHED, RoundState.CLOSED)


@pytest.mark.parametrize("other", ["has just come", "serves the run", "has ended"])
def test_a_coordinator_that_was_replaced_removes_nothing_that_was_handed_in_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """It stood still after it had decided to give the round back: another one did, and the site has repaired it."""
    served = Served(url, tmp_path, quorum=2, on_quorum_lost="wait", round_timeout_s=600.0)
    runs, decide, begun, decided = served.runs, stage_aggregation.refusals_of_spoiled, list[int](), list[int]()
    path = tmp_path / "store" / "runs/r/b"

    def paused(view: RoundView) -> list[Refusal]:
        refused = decide(view)
        if refused and not begun:
            begun.append(1)
            mine = runs.redis.getset(runs.keys.coordinator, "another")
            if other != "has just come":
                runs.return_round("another", 1, attempt=1, refused=refused, reason="too few")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"good again")
            if other == "has ended":
                runs.redis.set(runs.keys.coordinator, mine, px=60_000)
            decided.append(1)
        return refused

    monkeypatch.setattr(stage_aggregation, "refusals_of_spoiled", paused)
    ended: list[BaseException | None] = []
    served.thread = threading.Thread(target=lambda: ended.append(raised(served.coordinator.run)))
    with served.serving():
        assert served.accept("a")
        assert served.accept("b")
        served.aggregating()
        runs.claim_round(1, attempt=1, token="w", ttl_s=60)
        runs.fail_attempt(1, attempt=1, token="w", reason="b is gone", spoiled=["b"])
        served.until("it was paused", lambda: bool(decided))
        if other != "has ended":
            served.until("it has ended", lambda: bool(ended))
        else:
            again = accepted("12 bytes", digest="b", try_id="t2", path="runs/r/b", info_path="runs/r/b-info")
            assert runs.judge(1, "b", again)
            served.aggregating()
    assert path.read_bytes() == b"good again"
    assert isinstance(ended[0], type(None) if other == "has ended" else LeaseLost), ended
    assert served.round().state is (RoundState.OPEN if other == "serves the run" else RoundState.AGGREGATING)


def raised(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except FlavorError as error:
        return error
    return None


EQUAL = "tensor 'vocab' must be equal at all sites (--equal), and is not what most have"


@pytest.mark.parametrize("others_suffice", [True, False])
@pytest.mark.parametrize("reason", [EQUAL, ""])
def test_whose_accepted_update_counts_no_more_is_told_why(
    url: str, tmp_path: Path, reason: str, others_suffice: bool
) -> None:
    """Whether the round goes on without it, or is open again; and it is a fault of the site's only if its update is."""
    quorum = 1 if others_suffice else 2
    served = Served(url, tmp_path, quorum=quorum, on_quorum_lost="wait", round_timeout_s=600.0)
    runs = served.runs
    with served.serving():
        runs.redis.hset(runs.keys.refusals, "b", 1)  # of the round before
        assert served.accept("a")
        assert served.accept("b")
        served.aggregating()
        runs.claim_round(1, attempt=1, token="w", ttl_s=60)
        runs.fail_attempt(
            1,
            attempt=1,
            token="w",
            reason=f"b: {reason or 'the bytes are not those that were recorded'}",
            spoiled=[] if reason else ["b"],
            unfit={"b": reason} if reason else {},
        )
        served.until("b is refused", lambda: served.verdict_of("b")["accepted"] == "0")
        view = served.round()
    told = reason or "its object was changed or removed in the store after it was accepted"
    assert served.verdict_of("b") == {"accepted": "0", "reason": told, "try": "t"}
    assert (view.verdicts["b"].accepted, view.verdicts["b"].reason) == (False, told)
    assert served.verdict_of("a")["accepted"] == "1"
    assert view.state is (RoundState.AGGREGATING if others_suffice else RoundState.OPEN)
    assert view.contributors == (("a",) if others_suffice else ())
    assert (view.spoiled, view.unfit) == ((), {})
    assert runs.refusals() == ({"b": 2} if reason else {})


def test_a_site_that_changes_whatever_was_accepted_of_it_does_not_keep_the_others_round_going(
    url: str, tmp_path: Path
) -> None:
    """Each time the others' updates were aggregated for nothing, and no time was the last."""
    served = Served(url, tmp_path, quorum=2, on_quorum_lost="wait", round_timeout_s=600.0, quarantine_after=2)
    runs, update = served.runs, served.runs.keys.client("b").update(1)
    with served.serving():
        assert served.accept("a")
        for number in range(3):
            runs.redis.hset(update, mapping={"path": "b", "digest": "b", "size": "12", "try": f"t{number}"})
            good = accepted("12 bytes", digest="b", try_id=f"t{number}", path="runs/r/b", info_path="runs/r/b-info")
            assert runs.judge(1, "b", good)
            served.aggregating()
            runs.claim_round(1, attempt=1, token="w", ttl_s=60)
            runs.fail_attempt(1, attempt=1, token="w", reason="other bytes", spoiled=["b"])
            served.until("the round is open again", lambda: served.round().state is RoundState.OPEN)
        served.until("b is shut out", lambda: any("b is quarantined" in line for line in served.told))
        view = served.round()
        assert (view.state, view.verdicts["a"].accepted) == (RoundState.OPEN, True)
        assert (runs.refusals(), runs.read().state) == ({"b": 2}, RunState.RUNNING)
        runs.pardon("b")
        runs.redis.hset(update, mapping={"path": "b", "digest": "b", "size": "12", "try": "mended"})
        assert runs.judge(1, "b", replace(good, try_id="mended"))
        assert served.aggregating().contributors == ("a", "b"), "an operator may let it"


@pytest.mark.parametrize("how", [{}, {"protocol": "3"}, {"public_key": f"ed25519:{'7' * 64}"}, {"state": "left"}])
def test_a_quarantined_site_gets_no_task_and_counts_in_no_round_whatever_it_says_of_itself(
    url: str, tmp_path: Path, how: dict[str, str]
) -> None:
    """It had only to call itself an edge of a later release to be let in again, and to hand in anything."""
    served = Served(url, tmp_path, rounds=2, quorum=1, min_clients=1, round_timeout_s=600.0, quarantine_after=2)
    runs, keys = served.runs, served.runs.keys.client("b")

    def says(**fields: str) -> None:
        runs.redis.hset(keys.hash, mapping=fields)
        runs.redis.publish(keys.state, "")

    def is_told(admitted: str, key: str) -> None:
        told = {"admitted": admitted, "reason": "", "public_key": key}
        found = served.runs.redis.hgetall
        served.until("it is told so", lambda: told.items() <= {**found(keys.admission), "reason": ""}.items())

    key, is_refused = str(SigningKey.generate().public), bool(how) and "state" not in how
    with served.opened():
        says(public_key=key)
        is_told("1", key)
        for number in range(2):
            assert runs.judge(1, "b", Verdict(False, "NaN", try_id=f"t{number}"))
        served.until("b is shut out", lambda: any("b is quarantined" in line for line in served.told))
        before = {name: runs.redis.hget(keys.hash, name) for name in how}
        if is_refused:
            says(**how)
            is_told("0", how.get("public_key", key))
        elif how:
            says(**how)
            served.until("it is gone", lambda: any(e.get("event") == "client.left" for e in served.log()))
        served.hands_in("b")
        assert not served.accept("b")
        if how:
            says(**before)
        if is_refused:
            is_told("1", key)
        assert not served.accept("b")
        assert served.accept("a")
        assert served.aggregating().contributors == ("a",)
        runs.claim_round(1, attempt=1, token="w", ttl_s=60)
        runs.commit_round(
            1, attempt=1, token="w", model=global_model("runs/r/global/0001-model", "0" * 64, 1), reason=""
        )
        served.until("round 2 is open", lambda: runs.read_round(2) is not None)
        opened = runs.read_round(2)
    assert opened is not None
    assert opened.expected == ("a",)
    assert runs.refusals() == {"b": 2}


def test_no_two_jobs_have_one_name(url: str) -> None:
    """Else one runs twice, and the other never."""
    with contextlib.closing(connect(url)) as redis:
        redis.flushall()
    queue = RqJobQueue(url, "flavor", timeout_s=60)
    for run in ("lr-0.1", "lr-0_1"):
        queue.aggregate(run, 1, attempt=1)
    inspections = [("a", 1, ["2-c"]), ("a-1", 2, ["c"]), ("a", 1, ["2-c", "d"])]  # the last by who took over
    names = [queue.inspect(run, round_, clients, attempt=1) for run, round_, clients in inspections]
    assert len(set(names)) == 3
    assert names[0] == queue.inspect("a", 1, ["2-c"], attempt=1)
    assert all(name.startswith("inspect-a-1-2-c-1-") for name in names[:2])
    with contextlib.closing(connect(url)) as redis:
        waiting = redis.lrange("rq:queue:flavor", 0, -1)
    assert len(set(waiting)) == 5, waiting


def test_a_site_that_hands_in_without_end_fills_neither_log_nor_terminal(url: str, tmp_path: Path) -> None:
    """It says by itself that its update is refused, or hands in what is: while the round is open, and after it."""
    served = Served(url, tmp_path, quorum=1, round_timeout_s=15.0, quarantine_after=0)
    key = served.runs.keys.client("b").update(1)

    def hands_in(number: int, **fields: str) -> str:
        served.runs.redis.delete(key)
        served.runs.redis.hset(key, mapping={**fields, "try": f"try-{number}"})
        served.runs.redis.publish(key, "1")
        return f"try-{number}"

    def floods(first: int) -> None:
        for number in range(first, first + MOST_ENTRIES):
            mine = hands_in(number, refused="x" * 100)
            served.until("it is answered", lambda mine=mine: served.verdict_of("b").get("try") == mine)

    with served.serving():
        floods(0)
        for number in range(1000, 1010):  # what a worker finds
            assert served.runs.judge(1, "b", Verdict(False, "NaN", try_id=hands_in(number, path="b", size="12")))
        assert served.accept("a")
        served.until("the round is over", lambda: served.round().state is RoundState.AGGREGATING)
        floods(100)
        served.runs.end(RunState.STOPPED, "enough")
        served.thread.join(LONG_S)
    log = [fields for _, fields in served.runs.redis.xrange(served.runs.keys.log) if fields.get("client") == "b"]
    of_b = [fields["reason"] for fields in log if fields["event"] == "update.refused"]
    assert len(of_b) == MOST_ENTRIES
    assert [text.endswith(MORE_IS_LEFT_OUT) for text in of_b] == [False] * (MOST_ENTRIES - 1) + [True]
    told = [line for line in served.told if line.startswith(("round 1: b: ", "b: "))]
    assert len(told) == MOST_ENTRIES + 1
    left_out = f"{MOST_ENTRIES + 10} more entries are left out of what it caused in round 1"
    assert told[-1] == f"b: {left_out}"
    assert [fields["reason"] for fields in log if fields["event"] == "client.left_out"] == [left_out]
    assert served.verdict_of("b")["accepted"] == "0", "each is answered all the same"


def test_sites_that_come_and_go_fill_neither_with_what_the_run_waits_for(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, min_clients=3)
    served.thread.start()
    try:
        served.until("there is a run", lambda: served.runs.find() is not None)
        keys = served.runs.keys.client("a")
        served.runs.redis.set(keys.lease, "x")
        for number in range(100):
            state = ("ready", "joined")[number % 2]
            served.runs.redis.hset(keys.hash, mapping={"state": state, **SPEAKS, "round": "0"})
            served.runs.redis.publish(keys.state, state)
            time.sleep(0.01)
    finally:
        served.coordinator.stop()
        served.thread.join(LONG_S)
    assert not served.coordinator._client_log.allows_unusual_wait()
    assert served.coordinator._client_log.allows_store_line(), "the store's faults are told all the same"
    waits = sum(fields["event"] == "run.waiting" for _, fields in served.runs.redis.xrange(served.runs.keys.log))
    assert 3 < waits <= MOST_ENTRIES + 1
    assert sum(line.startswith("waiting: ") for line in served.told) == waits


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone mounts a file system")
def test_a_store_that_takes_no_writes_is_told_once_and_waited_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt stages a file under another name: that is no news, and takes nothing of what else may be told."""
    monkeypatch.setattr(waiting, "AGAIN_S", 0.01)
    with tmpfs(tmp_path / "store", "1m") as folder:
        served = Served(url, tmp_path, Faulty, quorum=1)
        store = served.store
        assert isinstance(store, Faulty)
        with served.serving():
            while served.coordinator._client_log.allows_unusual_wait():  # sites have used up the lines of this round
                pass
            close_without_manifest(served, after=lambda: remounted(folder, "ro"))
            asked = store.asked
            served.until("it has tried often", lambda: store.asked > asked + 3 * MOST_ENTRIES)
            remounted(folder, "rw")
            served.until("the run is over", lambda: served.runs.read().state is RunState.FINISHED)
            served.thread.join(LONG_S)
    away = [line for line in served.told if "store file://" in line]
    assert away == [
        f"waiting: store file://{folder}: {folder}/.staging: Read-only file system; trying again until it can be used"
    ]
    assert served.told.count("the store can be used again: going on") == 1


def test_what_may_be_no_fault_of_the_store_ends_the_coordinator_after_a_few_attempts(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files, or an error that names none."""
    monkeypatch.setattr(waiting, "AGAIN_S", 0.01)
    served = Served(url, tmp_path, Faulty, quorum=1)
    store, ended = served.store, list[LocalFault]()
    tries = list[int]()
    assert isinstance(store, Faulty)

    failed = OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(tmp_path / "store" / "x"))

    def breaks() -> None:
        tries.append(1)
        raise failed

    def run() -> None:
        try:
            served.coordinator.run()
        except LocalFault as error:
            ended.append(error)

    served.thread = threading.Thread(target=run)
    with served.serving():
        close_without_manifest(served, after=lambda: setattr(store, "breaks", breaks))
        served.thread.join(LONG_S)
    assert [str(error) for error in ended] == [
        f"{tmp_path}/store/x: Too many open files: check this machine, its disks and its limits"
    ]
    assert tries == [1] * (MOST_UNSURE + 1)
    assert served.runs.read().state is RunState.RUNNING, "another goes on with it"

    store_away = served.coordinator._store_wait
    for _ in range(2):  # what has worked in between shows that it was not this process
        store_away.is_back()
        for _ in range(MOST_UNSURE):
            store_away.wait(failed, served.runs.read())
    with pytest.raises(LocalFault, match="Too many open files"):
        store_away.wait(failed, served.runs.read())


class Ailing(LocalStore):
    """What is asked of it gives an error, so many times, as on a share whose server is away."""

    ailing = 0

    def _ails(self) -> None:
        if self.ailing:
            self.ailing -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._root))

    def read_unverified(self, path: str, *, most: int) -> bytes:
        self._ails()
        return super().read_unverified(path, most=most)

    def exists(self, path: str) -> bool:
        self._ails()
        return super().exists(path)

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        self._ails()
        with super().stage() as staged:
            yield staged


def test_a_coordinator_that_starts_while_the_store_gives_errors_waits_for_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it begins a run or goes on with one."""
    monkeypatch.setattr(waiting, "AGAIN_S", 0.01)
    for goes_on in (False, True):
        served = Served(url, tmp_path / str(goes_on), Ailing)
        store = served.store
        assert isinstance(store, Ailing)
        if goes_on:
            with served.serving():
                pass
            config = served.coordinator._config
            served.coordinator = Coordinator(
                "r", config, redis_url=url, store=store, observer=Lines(served.told.append), jobs=NoJobs()
            )
            served.thread = threading.Thread(target=served.coordinator.run)
        store.ailing = 3
        with served.serving():
            served.accept("a")
            served.accept("b")
            served.aggregating()
        assert store.ailing == 0
        told = [line for line in served.told if "store" in line]
        assert [line.partition(" ")[0] for line in told] == ["waiting:", "the"], served.told
        assert "Input/output error" in told[0]
