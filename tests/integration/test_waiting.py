"""Why is it waiting? The log, `flavor status` and the live view give one sentence, with since when."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor.cli.status import status
from flavor.coordinator import current_run, inspections, wait_log
from flavor.coordinator.resume import resume
from flavor.local.waits import Waits
from flavor.records.states import RunState
from flavor.records.verdict import OfModel, Verdict
from flavor.store import waiting
from flavor.view.snapshot import take_snapshot
from flavor.view.waiting import Wait
from tests.served import Faulty, Served, close_without_manifest

NOBODY = "0 of at least 2 clients are ready; waiting for the sites to join"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_log, "SETTLED_S", 0.05)
    monkeypatch.setattr(current_run, "_TICK_S", 0.05)
    monkeypatch.setattr(inspections, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(waiting, "AGAIN_S", 0.05)


def newest(served: Served) -> tuple[str, dict[str, str]]:
    """The newest entry of the log about what is waited for."""
    entries = served.runs.redis.xrevrange(served.runs.keys.log)
    return next((each for each in entries if each[1]["event"] in ("run.waiting", "round.waiting")), ("", {}))


def waits_for(served: Served, reason: str, round_: int | None = 1, *, since_ms: int | None = None) -> None:
    """The run comes to wait for this, and everything that shows it says so, in one sentence, with since when."""
    served.until(f"it waits: {reason}", lambda: newest(served)[1].get("reason") == reason)
    identity, fields = newest(served)
    assert fields["event"] == ("run.waiting" if round_ is None else "round.waiting")
    assert fields.get("round") == (None if round_ is None else str(round_))
    snapshot = take_snapshot(served.runs)
    wait = snapshot.waits_for
    assert wait is not None
    since_ms = int(fields.get("since_ms") or identity.partition("-")[0]) if since_ms is None else since_ms
    assert (wait.reason, wait.round, wait.since_ms) == (reason, round_, since_ms)
    live = Waits({})
    live.look(snapshot)
    assert re.fullmatch(
        rf"{re.escape(wait.sentence)}(, for \d+ s)?(; the run does not go on by itself: .*)?",
        live.lines(at_least_s=0.0)[0],
    )
    shown = CliRunner().invoke(status, ["r", "--redis-url", served.url])
    assert f"waits: {reason}, for " in shown.stdout, shown.output
    listed = CliRunner().invoke(status, ["--redis-url", served.url]).stdout
    assert f"{wait.sentence}, for " in listed, listed
    described = json.loads(CliRunner().invoke(status, ["r", "--json", "--redis-url", served.url]).stdout)
    assert described["waits_for"] == reason
    assert described["served"] is True
    assert described["waits_s"] >= 0.0


def test_between_rounds(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, on_quorum_lost="wait", heartbeat_timeout_s=600.0)
    with served.started():
        waits_for(served, NOBODY, None)
        served.says("a", "joined")
        awaited = "a to call SetEvent('TrainInitDone') and for 1 more site to join"
        waits_for(served, f"0 of at least 2 clients are ready; waiting for {awaited}", None)
        served.says("a", "ready")
        waits_for(served, "1 of at least 2 clients is ready; waiting for 1 more site to join", None)
        served.says("b", "failed")
        waits_for(served, "1 of at least 2 clients is ready; b: ", None)
        served.says("b", "revoked")
        again = "`flavor enroll r b` lets it join with a new token"
        fewer = "lower the quorum (`flavor stop r`, then `flavor resume r --min-clients 1`)"
        waits_for(served, f"1 of at least 2 clients is ready; b is revoked: {again}, or {fewer}", None)
        served.says("a", "ready", lives=False)
        served.until("it is seen", lambda: "a: its heartbeat stopped" in newest(served)[1]["reason"])
        waits_for(served, newest(served)[1]["reason"], None)


def test_an_open_round(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, aggregation_attempts=1, aggregation_lease_s=4.0, round_timeout_s=600.0)
    with served.opened():
        waits_for(served, "0 of 2 updates accepted, waiting for a, b")
        served.hands_in("a")
        served.accept("a")
        waits_for(served, "1 of 2 updates accepted, waiting for b")
        served.jobs.absent = "no aggregator listens on queue 'flavor': start one with `flavor-agg`"
        served.hands_in("b")
        waits_for(served, served.jobs.absent)
        assert cannot_go_on(served)
        identity, fields = newest(served)
        assert int(fields["since_ms"]) < int(identity.partition("-")[0]), "the update was there before that was known"
        served.jobs.absent = ""
        waits_for(served, "1 of 2 updates accepted, b handed in, waiting for an aggregator to inspect")
        served.runs.note_store_away(1)
        waits_for(served, "the aggregators cannot use the store for now: their logs say why; trying again")
        assert cannot_go_on(served)


def test_a_usual_wait_is_as_new_as_the_updates_beside_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator writes a change of it into the log once it has lasted."""
    served = Served(url, tmp_path, round_timeout_s=600.0)
    with served.opened():
        waits_for(served, before := "0 of 2 updates accepted, waiting for a, b")
        monkeypatch.setattr(wait_log, "SETTLED_S", 600.0)
        served.hands_in("a")
        served.accept("a")
        snapshot = take_snapshot(served.runs)
        assert snapshot.accepted == 1
        assert snapshot.waits_for == Wait("1 of 2 updates accepted, waiting for b", 1), "since when is not known yet"
        assert newest(served)[1]["reason"] == before


def test_a_round_whose_deadline_has_passed(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, round_timeout_s=1.0, aggregation_lease_s=600.0)
    with served.serving():
        served.accept("a")
        waits_for(served, "deadline passed, b handed in and being inspected")


REFUSED = "2 updates are needed and 1 can come"


def cannot_go_on(served: Served) -> bool:
    """Whether those who look at the run learn that it cannot go on by itself."""
    wait = take_snapshot(served.runs).waits_for
    return wait is not None and wait.is_held


def test_a_round_whose_sites_wait_for_the_store(url: str, tmp_path: Path) -> None:
    """Also a person who has to be told, by `--notify`, learns that it cannot go on by itself."""
    served = Served(url, tmp_path, round_timeout_s=600.0)
    with served.opened():
        for client, reason in (
            ("a", "0 of 2 updates accepted, waiting for a, b"),
            ("b", "0 of 2 updates accepted, waiting for the object store, which a, b cannot use for now"),
        ):
            served.runs.redis.hset(served.runs.keys.client(client).hash, "awaits", "store")
            served.says(client, "ready")
            waits_for(served, reason)
            assert cannot_go_on(served) is (client == "b")


def refuse(served: Served, client: str) -> None:
    served.hands_in(client)
    assert served.runs.judge(1, client, Verdict(False, "NaN", try_id="t"))


def test_a_round_that_has_lost_its_quorum(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, on_quorum_lost="wait", round_timeout_s=600.0)
    with served.opened():
        refuse(served, "b")
        served.until("it is held", lambda: newest(served)[1].get("reason", "").startswith(REFUSED))
        reason = newest(served)[1]["reason"]
        assert reason.endswith("; b: NaN; waiting for clients to come back")
        waits_for(served, reason)
        snapshot = take_snapshot(served.runs).waits_for
        assert snapshot is not None
        assert snapshot.is_held


def test_a_round_that_cannot_be_opened_again_yet(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, on_quorum_lost="retry", round_timeout_s=600.0)
    with served.opened():
        refuse(served, "b")
        reason = f"{REFUSED}; b: NaN; 1 of the 2 clients that a round needs is ready"
        waits_for(served, reason)


def test_what_would_end_a_run_waits_while_sites_come_back_to_a_new_coordinator(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, on_quorum_lost="fail", round_timeout_s=600.0, heartbeat_timeout_s=30.0)
    with served.opened():
        pass
    served.renew()
    with served.started():
        waits_for(served, "0 of 2 updates accepted, waiting for a, b")
        refuse(served, "b")
        waits_for(served, f"{REFUSED}; b: NaN")


def test_a_run_that_was_resumed(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, on_quorum_lost="fail", round_timeout_s=600.0)
    with served.opened():
        served.runs.end(RunState.STOPPED, "enough")
    for client in "ab":
        served.says(client, "left", lives=False)
    resume(served.runs, given={}, tell=served.told.append)
    served.renew()
    with served.started():
        needed = "2 updates are needed and 0 can come"
        served.until("it is held", lambda: newest(served)[1].get("reason", "").startswith(needed))
        reason = newest(served)[1]["reason"]
        assert reason.endswith("; the run was resumed: waiting for clients to come back")
        waits_for(served, reason)


def test_a_resumed_run_ends_once_its_model_has_been_tried_again(url: str, tmp_path: Path) -> None:
    """It stood still until its deadline, because the refusals from before were there."""
    served = Served(url, tmp_path, on_quorum_lost="fail", round_timeout_s=600.0)
    refused = Verdict(
        False, "the global model has NaN; begin a new run", blameless=True, of_model=OfModel.SURE, try_id="t"
    )
    with served.opened():
        served.hands_in("b")
        assert served.runs.judge(1, "b", refused)
        served.until("it has failed", lambda: served.runs.read_own().state is RunState.FAILED)
    resume(served.runs, given={}, tell=served.told.append)
    served.renew()
    assert served.runs.read_round(1).verdicts == {}  # type: ignore[union-attr]
    with served.started():
        served.hands_in("b")
        assert served.runs.judge(1, "b", refused)
        served.until("it has failed again", lambda: served.runs.read_own().state is RunState.FAILED)
    assert served.runs.how_it_ended().endswith("(--init-model FILE); b: the global model has NaN")
    assert served.runs.refusals() == {}


def test_a_wait_goes_on_while_another_coordinator_takes_over(url: str, tmp_path: Path) -> None:
    """The new coordinator gives missing clients time to come back; the wait was told to begin twice: then, and after.

    If the client has come back in that time, another wait begins.
    """
    served = Served(url, tmp_path, on_quorum_lost="wait", heartbeat_timeout_s=1.0, round_timeout_s=600.0)
    lost = "2 updates are needed and 1 can come; b: its heartbeat stopped; waiting for clients to come back"
    grace = "1 of 2 updates accepted, waiting for b"
    with served.opened():
        served.hands_in("a")
        served.accept("a")
        served.says("b", "ready", lives=False)
        waits_for(served, lost)
        began_ms = int(newest(served)[0].partition("-")[0])
    for reasons in ((grace, lost), (grace, lost)):
        served.renew()
        with served.started():
            for reason in reasons:
                waits_for(served, reason, since_ms=began_ms)
    served.renew()
    with served.started():
        waits_for(served, grace, since_ms=began_ms)
        served.says("b", "ready")
        served.hands_in("b")
        anew = "1 of 2 updates accepted, b handed in, waiting for an aggregator to inspect"
        served.until("it is seen", lambda: newest(served)[1]["reason"] == anew and "since_ms" not in newest(served)[1])


def test_sites_that_have_ended_with_a_run_are_not_told_to_have_failed(url: str, tmp_path: Path) -> None:
    """Their heartbeats stop as they must: they end with the run. One that came back and vanished is told as before."""
    served = Served(url, tmp_path, on_quorum_lost="wait", heartbeat_timeout_s=0.5, round_timeout_s=600.0)
    with served.opened():
        served.runs.end(RunState.STOPPED, "enough")

    def left_behind(client: str) -> None:
        served.says(client, "ready", lives=False)
        served.runs.redis.hset(served.runs.keys.client(client).hash, "told_ms", served.runs.now_ms())

    for client in "ab":
        left_behind(client)
    served.until("the clock has gone on", lambda: served.runs.now_ms() > served.runs.read().ended_ms + 20)
    resume(served.runs, given={}, tell=served.told.append)
    left_behind("b")  # it came back
    served.renew()
    ended = "it ended with the run, and has not come back yet"
    with served.started():
        lost = f"2 updates are needed and 0 can come; a: {ended}; b: its heartbeat stopped"
        served.until("it is held", lambda: newest(served)[1].get("reason", "").startswith(lost))
        waits_for(served, newest(served)[1]["reason"])
        rows = take_snapshot(served.runs).clients
        assert {name: (row.phase, row.reason) for name, row in rows.items()} == {
            "a": ("gone", ended),
            "b": ("gone", ""),
        }


def test_an_aggregation(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, aggregation_lease_s=3.0, round_timeout_s=600.0)
    runs = served.runs
    with served.serving():
        assert served.accept("a")
        assert served.accept("b")
        waits_for(served, "waiting for an aggregator")
        served.jobs.absent = "no aggregator listens on queue 'flavor': start one with `flavor-agg`"
        waits_for(served, served.jobs.absent)
        runs.claim_round(1, attempt=1, token="w", ttl_s=60)
        waits_for(served, "being aggregated")
        runs.fail_attempt(1, attempt=1, token="w", reason="no space left", passing=True)
        waits_for(served, "waiting, because: no space left")


def test_a_store_that_the_coordinator_cannot_use(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, Faulty, quorum=1)
    store = served.store
    assert isinstance(store, Faulty)

    def breaks() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "store" / "x"))

    with served.serving():
        close_without_manifest(served, after=lambda: setattr(store, "breaks", breaks))
        away = f"store {store.url}: {tmp_path}/store/x: Read-only file system; trying again until it can be used"
        waits_for(served, away, None)
        assert cannot_go_on(served)
        store.breaks = None
        served.until("the run is over", lambda: served.runs.read().state is RunState.FINISHED)
    assert take_snapshot(served.runs).waits_for is None
    shown = CliRunner().invoke(status, ["r", "--redis-url", url]).stdout
    assert "waits:" not in shown


def test_without_a_coordinator_it_is_worked_out_and_said_that_there_is_none(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last one has written stands as long as it is so."""
    served = Served(url, tmp_path, on_quorum_lost="wait", heartbeat_timeout_s=600.0)
    with served.started():
        waits_for(served, NOBODY, None)
    since_ms = int(newest(served)[0].partition("-")[0])
    wait = take_snapshot(served.runs).waits_for
    assert wait is not None
    assert (wait.reason, wait.since_ms) == (NOBODY, since_ms)
    served.runs.redis.sadd(served.runs.keys.members, "a")
    served.says("a", "joined")
    snapshot = take_snapshot(served.runs)
    assert not snapshot.is_served
    assert snapshot.waits_for is not None
    assert "waiting for a to call" in snapshot.waits_for.reason
    assert snapshot.waits_for.since_ms is None
    with monkeypatch.context() as asked:
        asked.delattr("flavor.view.snapshot.refusal_of")  # the list asks the server once, and not for each run
        listed = json.loads(CliRunner().invoke(status, ["--json", "--redis-url", url]).stdout)
    assert [row["reason"].partition(":")[0] for row in listed] == ["no coordinator serves it"]
    shown = CliRunner().invoke(status, ["r", "--redis-url", url]).stdout
    assert 0 < shown.index("no coordinator serves it") < shown.index("waits: "), "nothing moves without it"
    assert json.loads(CliRunner().invoke(status, ["r", "--json", "--redis-url", url]).stdout)["served"] is False


def test_without_a_coordinator_it_says_what_the_next_one_does(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, on_quorum_lost="fail", round_timeout_s=600.0, heartbeat_timeout_s=600.0)
    with served.opened():
        pass
    refuse(served, "b")
    wait = take_snapshot(served.runs).waits_for
    assert wait is not None
    then = "unless clients come back in time, the next coordinator fails the run"
    assert wait.sentence == f"round 1: {then}: {REFUSED}; b: NaN"
    assert not wait.is_held


def test_a_new_coordinator_does_not_repeat_what_the_log_says(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, on_quorum_lost="wait")
    with served.started():
        waits_for(served, NOBODY, None)
    before = newest(served)
    served.renew()
    with served.started():
        told = f"waiting: {NOBODY}"
        served.until("it is told again", lambda: served.told.count(told) == 2)
    assert newest(served) == before


def test_beyond_its_bounds_the_newest_sentence_takes_the_place_of_the_one_before(url: str, tmp_path: Path) -> None:
    served = Served(url, tmp_path, min_clients=3)
    with served.started():
        waits_for(served, NOBODY.replace("2", "3"), None)
        while served.coordinator._client_log.allows_unusual_wait():
            pass
        before = served.runs.redis.xlen(served.runs.keys.log)
        served.says("a", "ready")
        served.until("a joins", lambda: served.runs.members() == ["a"])
        waits_for(served, "1 of at least 3 clients is ready; waiting for 2 more sites to join", None)
        assert served.runs.redis.xlen(served.runs.keys.log) == before + 1, "that it has joined, and no more of waiting"
    assert not any("1 of at least 3" in line for line in served.told), "a terminal has enough"
