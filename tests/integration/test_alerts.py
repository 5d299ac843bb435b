"""Every row of the table of faults that lasts makes one alert fire, and one alone.

A row lasts if, two heartbeats after the fault, something is still as it should not be. For each of these, a run is
brought into that state on a real server, with a real coordinator. What a board tells of it is turned into metrics, as
they would be scraped over the next minutes, and promtool evaluates the alert rules on them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.resting import note_resting
from flavor.coordinator import current_run, inspections, wait_log
from flavor.ledger.canonical import sha256
from flavor.metrics.families import families
from flavor.metrics.scene import Scene
from flavor.metrics.scrape import Scraper
from flavor.metrics.tally import Tally
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.records.objects import ObjectRef
from flavor.records.states import EvaluationState, RunState
from flavor.records.verdict import Verdict
from flavor.store import waiting
from flavor.view.board import Board
from tests.promtool import STEP_S, Case, check, needs_promtool
from tests.recorded import global_model
from tests.served import Faulty, Served

README = Path(__file__).parents[1] / "faults" / "README.md"
WELL_STEPS, ILL_STEPS = 2, 28
"""Scrapes before the fault, and while it lasts: seven minutes."""
USUAL_S = 100
QUEUE = "flavor"


class Watched(Served):
    """A run of the sites a, b and c, two of which make a quorum, in its second round; and who watches it."""

    board: Board

    def begin(self) -> None:
        """Close the first round, and open the second."""
        for client in "abc":
            self.says(client, "ready")
        self.until("round 1 is open", lambda: self.runs.read_round(1) is not None)
        for client in "abc":
            assert self.accept(client)
        self.aggregating()
        self.commit(1, self.manifest(1))
        self.until("round 2 is open", lambda: self.runs.read_round(2) is not None)

    def manifest(self, round_: int) -> ObjectRef:
        """Put a round's manifest into the store, as its aggregator does."""
        path, data = f"runs/r/manifests/staged-{round_}.json", b"{}"
        with self.store.stage() as staged:
            staged.write_bytes(data)
            self.store.put(ObjectRef(path, sha256(data)), staged)
        return ObjectRef(path, sha256(data))

    def commit(self, round_: int, manifest: ObjectRef) -> None:
        """An aggregator closes a round."""
        self.runs.claim_round(round_, attempt=1, token="w", ttl_s=60)
        model = global_model(f"runs/r/global/{round_:04}-model", "0" * 64, 1)
        self.runs.commit_round(round_, attempt=1, token="w", model=model, reason="", manifest=manifest)

    def accept_all_again(self) -> None:
        """The updates of round 2 are accepted, and it is being aggregated."""
        for client in "abc":
            self.runs.judge(2, client, replace(accepted_of(self, client), try_id="t"))
        self.until("it is aggregated", lambda: self.runs.read_round(2).attempt == 1)  # type: ignore[union-attr]

    def works(self) -> None:
        """An aggregator listens."""
        redis = self.runs.redis
        redis.sadd("rq:workers", "rq:worker:w")
        redis.sadd(f"rq:workers:{QUEUE}", "rq:worker:w")
        redis.hset("rq:worker:w", mapping={"queues": QUEUE, "state": "idle", "hostname": "h", "birth": "", "pid": "1"})

    def refuse(self, client: str, times: int = 1) -> None:
        """An inspection refuses the client's update, and what it hands in after that."""
        for number in range(times):
            self.hand_in(client, f"t{number}")
            assert self.runs.judge(2, client, Verdict(False, "tensor 'w' has NaN values", try_id=f"t{number}"))

    def hand_in(self, client: str, try_id: str = "t") -> None:
        """There is an update of this client, which is not inspected yet."""
        key = self.runs.keys.client(client).update(2)
        self.runs.redis.hset(key, mapping={"path": client, "digest": client, "size": "12", "try": try_id})
        self.runs.redis.publish(key, "2")


Harm = Callable[[Watched], None]


@dataclass(frozen=True)
class Fault:
    """A fault, and which alert is to fire."""

    harm: Harm
    alert: str
    rows: tuple[int, ...]
    """Of the table of faults."""
    settings: tuple[tuple[str, object], ...] = ()
    goes_on: bool = False
    """Whether the run goes on with its rounds at their pace, because it does not wait for what is at fault."""


def site_gone(run: Watched) -> None:
    run.says("c", "ready", lives=False)
    run.until("it is missed", lambda: run.board.document("r")["clients"]["c"]["phase"] == "gone")


def site_failed(run: Watched) -> None:
    run.says("c", "failed", lives=False)
    run.until("it is missed", lambda: run.board.document("r")["clients"]["c"]["phase"] == "failed")


def site_stopped(run: Watched) -> None:
    run.says("c", "stopped", lives=False)
    run.until("it is seen", lambda: run.board.document("r")["clients"]["c"]["phase"] in ("stopped", "gone"))


def site_refused(run: Watched) -> None:
    run.refuse("c", times=3)
    run.until("it is refused", lambda: run.board.document("r")["clients"]["c"]["refused_in_a_row"] == 3)


def site_gone_between_rounds(run: Watched) -> None:
    """The next round needs all three sites."""
    run.accept_all_again()
    run.says("c", "ready", lives=False)
    run.commit(2, run.manifest(2))
    run.until("it is missed", lambda: run.board.document("r")["missing_clients"] == 1)


def site_slow_and_another_gone(run: Watched) -> None:
    """The site that the open round does not wait for is not why it is slow."""
    site_gone(run)
    site_slow(run)


def site_slow(run: Watched) -> None:
    run.runs.redis.hset(run.runs.keys.client("c").hash, mapping={"doing": "uploading", "doing_round": "2"})


def quorum_lost(run: Watched) -> None:
    for client in "bc":
        run.refuse(client)
    run.until("it is held", lambda: run.board.document("r")["held"])


def nothing_comes(run: Watched) -> None:
    """The deadline of four minutes is all that comes."""


def not_inspected(run: Watched) -> None:
    """An object that cannot be read keeps the one aggregator until the deadline."""
    run.works()
    for client in "abc":
        run.hand_in(client)
    run.until("it is seen", lambda: run.board.document("r")["clients"]["c"]["this_round"] == "submitted")


def no_aggregator(run: Watched) -> None:
    for client in "abc":
        run.hand_in(client)
    run.until("it is seen", lambda: run.board.document("r")["no_aggregator"])


def aggregator_rests(run: Watched) -> None:
    note_resting(run.runs.redis, [QUEUE], "w", "no space left on device")
    no_aggregator(run)
    assert "no space left" in run.board.document("r")["no_aggregator"]


def store_away(run: Watched) -> None:
    """The share is read-only as the round is closed: its manifest cannot be put into its place."""
    store = run.store
    assert isinstance(store, Faulty)
    run.accept_all_again()

    def breaks() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "share")

    manifest = run.manifest(2)
    store.breaks = breaks
    run.commit(2, manifest)
    run.until("it is waited for", lambda: "Read-only" in run.board.document("r")["waits_for"])


def judges(run: Watched) -> None:
    """The sites a and b judge the model of round 2."""
    for client in "ab":
        run.runs.redis.hset(run.runs.keys.client(client).hash, "evaluates", "1")
        run.says(client, "ready")
    run.accept_all_again()
    run.commit(2, run.manifest(2))
    run.until("it is judged", lambda: len(run.board.document("r")["evaluating"]) == 1)


def evaluators_hang(run: Watched) -> None:
    """The timeout of four minutes is all that comes."""
    judges(run)
    run.until("it is waited for", lambda: "0 of 2 results" in run.board.document("r")["waits_for"])


def evaluators_fail(run: Watched) -> None:
    judges(run)
    for client in "ab":
        key = run.runs.keys.client(client).result(2, AUTOMATIC)
        run.runs.redis.hset(key, mapping={"refused": "its evaluator ended", "try": "t"})
        run.runs.redis.publish(key, "1")
    fails(run, AUTOMATIC)


def central_evaluator_fails(run: Watched) -> None:
    run.jobs.judges = lambda: 1  # type: ignore[method-assign]
    run.accept_all_again()
    run.commit(2, run.manifest(2))
    fails(run, CENTRAL)


def fails(run: Watched, number: int) -> None:
    """The aggregator says that there is no result, and the run goes on."""

    def is_merging() -> bool:
        view = run.runs.read_evaluation(2, number)
        return view is not None and view.state is EvaluationState.MERGING

    run.until("it is to be merged", is_merging)
    run.runs.fail_merge(2, number, attempt=1, reason="there is no result", is_hopeless=True)
    run.until("it is given up", lambda: any(each["event"] == "evaluation.failed" for each in run.board.events("r")))
    run.until("round 3 is seen", lambda: run.board.document("r")["round"] == 3)


def accepted_of(run: Watched, client: str) -> Verdict:
    verdict = run.runs.verdicts(1, [client])[client]
    assert verdict.accepted
    return verdict


def coordinator_gone(run: Watched) -> None:
    run.coordinator.stop()
    run.thread.join(60)
    run.runs.redis.delete(run.runs.keys.coordinator)
    run.until("it is missed", lambda: not run.board.document("r")["served"])


def run_failed(run: Watched) -> None:
    run.runs.end(RunState.FAILED, "attempt 3 of 3: it takes too long")
    run.until("it is seen", lambda: run.board.document("r")["state"] == "failed")


def redis_emptied(run: Watched) -> None:
    run.coordinator.stop()
    run.thread.join(60)
    run.runs.redis.flushall()
    run.until("it is seen", lambda: [row["state"] for row in run.board.runs()] == ["lost"])


def redis_full(run: Watched) -> None:
    run.runs.redis.config_set("maxmemory", run.runs.redis.info("memory")["used_memory"] // 2)


FAULTS = (
    Fault(site_gone, "FlavorSiteSilent c", (9, 10, 15, 16, 20, 42, 47, 58, 59), goes_on=True),
    Fault(site_gone_between_rounds, "FlavorSiteSilent c", (), (("quorum", 3),)),
    Fault(site_failed, "FlavorSiteSilent c", (13, 28, 37, 43), goes_on=True),
    Fault(site_stopped, "FlavorSiteSilent c", (39,), goes_on=True),
    Fault(site_refused, "FlavorSiteRefused c", (31, 32, 33, 51, 53), goes_on=True),
    Fault(site_slow, "FlavorRoundSlow", (46,)),
    Fault(quorum_lost, "FlavorNoQuorum", (29,)),
    Fault(nothing_comes, "FlavorNoQuorum", (14,), (("round_timeout_s", 240.0),)),
    Fault(not_inspected, "FlavorNoQuorum", (50,), (("round_timeout_s", 240.0),)),
    Fault(no_aggregator, "FlavorNoAggregator", (17, 19, 40)),
    Fault(aggregator_rests, "FlavorNoAggregator", (41,)),
    Fault(store_away, "FlavorRoundSlow", (45,)),
    Fault(evaluators_hang, "FlavorEvaluationSlow", (), (("evaluate", "every"), ("evaluation_timeout_s", 240.0))),
    Fault(evaluators_fail, "FlavorEvaluationsFail", (), (("evaluate", "every"),), goes_on=True),
    Fault(central_evaluator_fails, "FlavorEvaluationsFail", (), (("evaluate", "every"),), goes_on=True),
    Fault(coordinator_gone, "FlavorCoordinatorGone", (36,)),
    Fault(run_failed, "FlavorRunFailed", (22,)),
    Fault(redis_emptied, "FlavorRunFailed", (24,)),
    Fault(redis_full, "FlavorRedisNearlyFull", (26,)),
)
OF_THE_SERVER = {"cannot write": (25,), "away": (23, 27, 44, 54)}
"""Faults of a server of their own."""
PASSES = {
    **dict.fromkeys((1, 2, 4, 5, 7, 12, 34, 38, 48), "changes nothing that anybody sees"),
    3: "a run without publications is slower by its re-reads, which are shorter than a heartbeat",
    6: "13 seconds are less than two heartbeats",
    **dict.fromkeys((8, 35), "Redis or TLS refuses it at once"),
    11: "the site is there again",
    **dict.fromkeys((18, 21), "the attempt is made again at once"),
    **dict.fromkeys((30, 49), "one refusal, and the round goes on without the update"),
    **dict.fromkeys((55, 56), "another one goes on with the evaluation, or what judges is there again"),
    57: "another one goes on with the round, or the site does its task again",
    **dict.fromkeys((60, 61), "connections are made anew through the proxy, at once"),
    52: "Redis is as it should be: `flavor verify` looks at the store",
}
"""Rows after which nothing is wrong two heartbeats later, and why."""


def test_every_row_of_the_table_of_faults_fires_an_alert_or_passes() -> None:
    rows = [int(row) for row in re.findall(r"^\| ([0-9]+) \|", README.read_text(), flags=re.MULTILINE)]
    fire = [row for fault in FAULTS for row in fault.rows]
    fire += [row for of_server in OF_THE_SERVER.values() for row in of_server]
    assert sorted([*fire, *PASSES]) == sorted(rows)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_log, "SETTLED_S", 0.05)
    monkeypatch.setattr(current_run, "_TICK_S", 0.05)
    monkeypatch.setattr(inspections, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(waiting, "AGAIN_S", 0.05)


@contextlib.contextmanager
def watched(url: str, folder: Path, **settings: object) -> Iterator[tuple[Watched, Scraper]]:
    """A run in its second round."""
    chosen = {"rounds": 9, "min_clients": 3, "quorum": 2, "on_quorum_lost": "wait", "round_timeout_s": 86_400.0}
    run = Watched(url, folder, Faulty, queue=QUEUE, **{**chosen, **settings})
    run.runs.redis.config_set("maxmemory", 0)
    with run.started(), Board(url) as board:
        run.board = board
        run.begin()
        run.until("it is seen", lambda: any(each["run"] == "r" for each in board.runs()))
        run.until("its round is seen", lambda: board.document("r")["round"] == 2)
        yield run, Scraper.on(url, board)


def scraped(scenes: list[tuple[Scene, int]], *, goes_on: bool) -> dict[str, list[float | None]]:
    """The series of scenes, each scraped so many times; time begins with the first scrape.

    In a run that goes on, a round is opened every `USUAL_S` seconds.
    """
    steps = sum(number for _, number in scenes)
    found: dict[str, list[float | None]] = {'up{job="flavor",instance="i"}': [1.0] * steps}
    step = 0
    for scene, number in scenes:
        begun_s = scene.now_ms / 1000 - step * STEP_S
        for later in range(number):
            now = replace(scene, now_ms=scene.now_ms + later * STEP_S * 1000)
            if goes_on:
                now = opened(now, now.now_ms - (later * STEP_S % USUAL_S) * 1000)
            for family in families(now):
                for sample in family.samples:
                    value = sample.value - begun_s if "_timestamp_seconds" in sample.name else sample.value
                    labels = {"job": "flavor", "instance": "i", **sample.labels}
                    name = sample.name + "{" + ",".join(f'{key}="{each}"' for key, each in labels.items()) + "}"
                    found.setdefault(name, [None] * steps)[step] = value
            step += 1
    return found


def opened(scene: Scene, time_ms: int) -> Scene:
    """The scene with rounds that were opened at another time."""
    times = {"opened_ms": time_ms, "worked_from_ms": time_ms}
    return replace(scene, runs=[replace(run, document={**run.document, **times}) for run in scene.runs])


def seen(scraper: Scraper) -> Scene:
    """What is measured now, of a run whose rounds have taken `USUAL_S` seconds before: the first took none here."""
    scene = scraper.scene()
    tally = Tally()
    for event, time_ms in (("round.opened", 0), ("round.closed", USUAL_S * 1000)):
        tally.hear([{"id": f"{time_ms}-0", "time_ms": time_ms, "event": event, "round": 1}])
    return replace(scene, runs=[replace(run, tally=judged_as(run.tally, tally)) for run in scene.runs])


def judged_as(known: Tally, tally: Tally) -> Tally:
    """The tally with the evaluations that are known so far."""
    return replace(tally, evaluations=known.evaluations.copy(), failed_in_a_row=known.failed_in_a_row.copy())


def case(before: Scene, after: Scene, *alerts: str, goes_on: bool = False) -> Case:
    """Nothing fires before the fault, and these alerts alone from then on."""
    series = scraped([(before, WELL_STEPS), (after, ILL_STEPS)], goes_on=goes_on)
    end_s = (WELL_STEPS + ILL_STEPS - 1) * STEP_S
    return Case(series, {(WELL_STEPS - 1) * STEP_S: [], end_s: alerts}, ever={end_s: alerts})


@needs_promtool
def test_one_fault_makes_one_alert_fire(url: str, tmp_path: Path) -> None:
    cases: dict[str, Case] = {}
    for number, fault in enumerate(FAULTS):
        with watched(url, tmp_path / str(number), **dict(fault.settings)) as (run, scraper):
            before = seen(scraper)
            fault.harm(run)
            cases[fault.harm.__name__] = case(before, seen(scraper), fault.alert, goes_on=fault.goes_on)
            run.runs.redis.config_set("maxmemory", 0)
    with watched(url, tmp_path / "two") as (run, scraper):
        before = seen(scraper)
        site_slow_and_another_gone(run)
        cases["two faults"] = case(before, seen(scraper), "FlavorSiteSilent c", "FlavorRoundSlow")
    folder = tmp_path / "server"
    folder.mkdir()
    with embedded_server(folder=folder) as own, watched(own, tmp_path / "own") as (run, scraper):
        before = seen(scraper)
        (folder / "dump.rdb" / "in the way").mkdir(parents=True)
        run.runs.redis.bgsave()
        run.until("it fails", lambda: run.runs.redis.info("persistence")["rdb_last_bgsave_status"] == "err")
        cases["cannot write"] = case(before, seen(scraper), "FlavorRedisNearlyFull", goes_on=True)
        run.coordinator.stop()
        run.thread.join(60)
        with contextlib.suppress(Exception):
            connect(own, patience_s=0.1).shutdown(nosave=True)
        run.until("it is missed", lambda: bool(run.board.problem()))
        cases["away"] = case(before, seen(scraper), "FlavorUnobserved")
    assert {*OF_THE_SERVER} <= {*cases}
    check(cases, tmp_path)
