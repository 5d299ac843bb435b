"""What a scrape says of a run, in which names, and with how many labels."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from flavor.errors import BusUnavailable
from flavor.metrics.scrape import MOST_RUNS, OPEN_METRICS, PLAIN, Scraper
from flavor.metrics.table import FAMILIES, OTHERS
from flavor.records.evaluation import CENTRAL
from flavor.records.names import is_name
from flavor.view.server import ServerState
from tests.measured import NOW_MS, MadeUp, best_value, client, document, entry

ROOT = Path(__file__).parents[3]
SERVER = ServerState(used_bytes=1_000_000, max_bytes=4_000_000, is_kept=True)
JUDGED: dict[str, Any] = {
    "round": 7,
    "evaluation": 0,
    "opened_ms": NOW_MS - 2000,
    "closed_ms": NOW_MS - 1000,
    "sites": 2,
    "expected": 3,
    "examples": 400,
    "metric": "accuracy",
    "metrics": {
        "accuracy": {"sites": 2, "plain_mean": 0.7, "weighted_mean": 0.8, "pooled": 0.75},
        "auc": {"sites": 2, "pooled": 0.9, "pooled_bound": 0.01},
    },
    "missing": {"c": "it is gone"},
    "skipped": [],
}


def scraper(board: MadeUp, *, most: int = 200, after_s: float = 0.0) -> Scraper:
    board.later_ms = int(after_s * 1000)
    return Scraper(board, lambda: SERVER, most_clients=most)


def samples(found: Scraper) -> dict[str, float]:
    """Every sample of a scrape, by its name and labels in their order."""
    body, kind = found.answer("application/openmetrics-text; version=1.0.0")
    assert kind == OPEN_METRICS
    said: dict[str, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in said, "Prometheus refuses a scrape that has a sample twice"
            said[key] = sample.value
    return said


def of(said: dict[str, float], family: str) -> dict[str, float]:
    return {key: value for key, value in said.items() if re.match(rf"{family}\b", key)}


def by_kind(said: dict[str, float], family: str) -> dict[str, float]:
    """The values of a family by the kind of evaluation."""
    return {re.findall(r'kind="(\w+)"', key)[0]: value for key, value in of(said, family).items()}


def test_a_run() -> None:
    a = client(
        phase="done",
        this_round="accepted",
        samples=1204,
        doing="inspected",
        sent_bytes=41,
        received_bytes=40,
        median_s=530.0,
        last_s=520.0,
        phases=[["downloading", NOW_MS - 60_000], ["training", NOW_MS - 50_000], ["uploaded", NOW_MS - 10_000]],
    )
    b = client(
        refused_in_a_row=2,
        reported={"done": 310.0, "total": 508.0},
        reported_ms=NOW_MS - 20_000,
        phases=[["downloading", NOW_MS - 60_000], ["training", NOW_MS - 55_000]],
    )
    log = [
        entry(1, "round.opened", after_s=-400, round=1),
        entry(2, "update.accepted", after_s=-300, round=1, client="a"),
        entry(3, "update.refused", after_s=-290, round=1, client="b", reason="tensor 'w' has NaN values"),
        entry(4, "update.refused", after_s=-280, round=1, client="b", reason="late: round 1 no longer takes updates"),
        entry(5, "round.aggregating", after_s=-250, round="1"),
        entry(6, "round.attempt_failed", after_s=-240, round=1),
        entry(7, "round.aggregating", after_s=-230, round=1),
        entry(8, "round.closed", after_s=-200, round=1),
        entry(9, "round.opened", after_s=-60, round=2),
        entry(10, "an.event.of.later", after_s=-50),
    ]
    board = MadeUp(
        document(**{"in": 1}, clients={"a": a, "b": b}, round_last_s=7.0, recovered_ms=NOW_MS - 1_800_000),
        events={"mammo": log},
    )
    said = samples(scraper(board))
    assert said['flavor_run_info{protocol="2",run="mammo",run_id="00000000000000000000000000000000"}'] == 1
    assert {key: value for key, value in of(said, "flavor_run_state").items() if value} == {
        'flavor_run_state{flavor_run_state="running",run="mammo"}': 1
    }
    assert of(said, "flavor_round_state").keys() >= {'flavor_round_state{flavor_round_state="closed",run="mammo"}'}
    assert said['flavor_run_round{run="mammo"}'] == 2
    assert said['flavor_run_started_timestamp_seconds{run="mammo"}'] == NOW_MS / 1000 - 3600
    assert said['flavor_run_recovered_timestamp_seconds{run="mammo"}'] == NOW_MS / 1000 - 1800
    assert said['flavor_run_waiting_since_timestamp_seconds{run="mammo"}'] == NOW_MS / 1000 - 30
    assert said['flavor_run_coordinator_up{run="mammo"}'] == 1
    assert said['flavor_run_aggregator_missing{run="mammo"}'] == 0
    assert said['flavor_round_open_seconds{run="mammo"}'] == 60
    assert said['flavor_round_aggregating_seconds{run="mammo"}'] == 0
    assert said['flavor_round_deadline_timestamp_seconds{run="mammo"}'] == NOW_MS / 1000 + 540
    assert said['flavor_round_quorum_margin{run="mammo"}'] == 0
    assert said['flavor_round_last_seconds{run="mammo"}'] == 7, "as the page has it, and not by the log, 200"
    assert said['flavor_round_median_seconds{run="mammo"}'] == 200
    assert said['flavor_round_duration_seconds_sum{run="mammo"}'] == 200
    assert said['flavor_aggregation_duration_seconds_count{run="mammo"}'] == 1
    assert said['flavor_aggregation_duration_seconds_sum{run="mammo"}'] == 30, "of the attempt that made the model"
    assert of(said, "flavor_aggregation_attempts_total") == {
        'flavor_aggregation_attempts_total{outcome="begun",run="mammo"}': 2,
        'flavor_aggregation_attempts_total{outcome="failed",run="mammo"}': 1,
    }
    assert of(said, "flavor_updates_total") == {
        'flavor_updates_total{reason="",run="mammo",verdict="accepted"}': 1,
        'flavor_updates_total{reason="late",run="mammo",verdict="refused"}': 1,
        'flavor_updates_total{reason="values",run="mammo",verdict="refused"}': 1,
    }
    assert said['flavor_events_total{event="other",run="mammo"}'] == 1
    assert of(said, "flavor_client_phase") == {
        'flavor_client_phase{client="a",phase="done",run="mammo"}': 1,
        'flavor_client_phase{client="b",phase="training",run="mammo"}': 1,
    }
    assert of(said, "flavor_client_phase_seconds") == {
        'flavor_client_phase_seconds{client="a",phase="downloading",run="mammo"}': 10,
        'flavor_client_phase_seconds{client="a",phase="training",run="mammo"}': 40,
        'flavor_client_phase_seconds{client="b",phase="downloading",run="mammo"}': 5,
        'flavor_client_phase_seconds{client="b",phase="training",run="mammo"}': 55,
    }
    assert said['flavor_client_transferred_bytes_total{client="a",direction="sent",run="mammo"}'] == 41
    assert said['flavor_client_heartbeat_age_seconds{client="a",run="mammo"}'] == 2
    assert said['flavor_client_round_median_seconds{client="a",run="mammo"}'] == 530
    assert said['flavor_client_examples{client="a",run="mammo"}'] == 1204
    assert said['flavor_client_refused_in_a_row{client="b",run="mammo"}'] == 2
    assert said['flavor_client_progress_ratio{client="b",run="mammo"}'] == pytest.approx(310 / 508)
    assert said['flavor_client_report_timestamp_seconds{client="b",run="mammo"}'] == NOW_MS / 1000 - 20
    assert said['flavor_metric_last{metric="val_auc",run="mammo"}'] == 0.94
    assert said['flavor_metric_best{metric="val_auc",run="mammo"}'] == 0.94
    assert said['flavor_metric_best_round{run="mammo"}'] == 1
    assert said['flavor_runs{state="running"}'] == 1
    assert said['flavor_queue_length{queue="flavor"}'] == 3
    assert said['flavor_workers{queue="flavor",state="idle"}'] == 2
    removed = {name: value for name, value in said.items() if name.startswith("flavor_run_removed")}
    assert removed == {'flavor_run_removed_timestamp_seconds{run="removed"}': NOW_MS / 1000 - 60}, (
        "mammo is there again"
    )
    assert said["flavor_redis_memory_max_bytes"] == 4_000_000
    assert said["flavor_redis_up"] == said["flavor_redis_persistence_ok"] == 1
    others = {name for name in FAMILIES if not name.startswith("flavor_evaluation")}  # another test has those
    assert {name for name in others if not any(key.startswith(name) for key in said)} == set(), "each has a sample"


def test_a_client_that_has_not_handed_in_has_the_seconds_of_what_it_does_now() -> None:
    clients = {
        "a": client(doing="training", doing_ms=NOW_MS - 7_000),
        "b": client(doing="waiting", doing_ms=NOW_MS - 7_000),
        "c": client(doing=None, doing_ms=None),
    }
    assert of(samples(scraper(MadeUp(document(clients=clients)))), "flavor_client_phase_seconds") == {
        'flavor_client_phase_seconds{client="a",phase="training",run="mammo"}': 7
    }


def test_time_that_passes_counts_although_nothing_changes() -> None:
    board = MadeUp(document())
    said = samples(scraper(board, after_s=100))
    assert said['flavor_round_open_seconds{run="mammo"}'] == 160
    assert said['flavor_client_heartbeat_age_seconds{client="a",run="mammo"}'] == 15, "it is there: it has its lease"


def test_the_quorum_has_a_margin_until_clients_are_lost() -> None:
    lost = [client(this_round=standing) for standing in ("refused", "shut out", "revoked", "left", "gone")]
    there = [client(this_round=standing) for standing in ("accepted", "submitted", "pending")]
    clients = {f"site-{number}": each for number, each in enumerate([*lost, *there, client(this_round="not expected")])}
    said = samples(scraper(MadeUp(document(clients=clients, expected=8, needed=4))))
    assert said['flavor_round_quorum_margin{run="mammo"}'] == -1


def test_the_time_in_which_a_run_had_ended_is_no_rounds() -> None:
    log = [
        entry(1, "round.opened", after_s=-9000, round=1),
        entry(2, "run.failed", after_s=-8000),
        entry(3, "run.resumed", after_s=-100),
        entry(4, "round.closed", after_s=-90, round=1),
        entry(5, "round.opened", after_s=-80, round=2),
        entry(6, "round.closed", after_s=-70, round=2),
    ]
    said = samples(scraper(MadeUp(document(), events={"mammo": log})))
    assert said['flavor_round_last_seconds{run="mammo"}'] == 10
    assert said['flavor_round_duration_seconds_count{run="mammo"}'] == 2
    assert said['flavor_round_duration_seconds_sum{run="mammo"}'] == 1010 + 10
    unheard = samples(scraper(MadeUp(document(), events={"mammo": [log[0], *log[2:]]})))
    assert unheard['flavor_round_duration_seconds_count{run="mammo"}'] == 1, "nobody knows when it ended"
    resumed = samples(scraper(MadeUp(document(paused_ms=25_000))))
    assert resumed['flavor_round_open_seconds{run="mammo"}'] == 35
    assert resumed['flavor_round_opened_timestamp_seconds{run="mammo"}'] == NOW_MS / 1000 - 60


def test_a_client_whose_edge_is_gone_has_an_age() -> None:
    gone = client(alive=False, phase="gone", seen_ms=None, this_round="gone")
    board = MadeUp(document(clients={"a": gone, "b": gone, "c": client(alive=True, seen_ms=None)}))
    board.logs["mammo"] = [entry(1, "client.lost", after_s=-50, client="a", reason="its heartbeat stopped")]
    said = of(samples(scraper(board)), "flavor_client_heartbeat_age_seconds")
    assert said == {
        'flavor_client_heartbeat_age_seconds{client="a",run="mammo"}': 65,
        'flavor_client_heartbeat_age_seconds{client="b",run="mammo"}': 15,
        'flavor_client_heartbeat_age_seconds{client="c",run="mammo"}': 0,
    }


def test_a_client_that_the_log_does_not_miss_is_missed_from_the_first_scrape_on() -> None:
    """Its heartbeat is older than the lease, and nothing says by how much."""
    board = MadeUp(document(clients={"a": client(alive=False, phase="gone", seen_ms=None)}))
    scraped, age = scraper(board), 'flavor_client_heartbeat_age_seconds{client="a",run="mammo"}'
    assert samples(scraped)[age] == 15
    board.later_ms = 40_000
    assert samples(scraped)[age] == 55
    board.documents["mammo"]["clients"]["a"] = client(seen_ms=None)
    assert samples(scraped)[age] == 0
    board.logs["mammo"] = [entry(1, "client.lost", after_s=-500, client="a")]  # of an earlier time
    board.documents["mammo"]["clients"]["a"] = client(alive=False, phase="gone", seen_ms=None)
    assert samples(scraped)[age] == 15


def test_an_aggregating_round_and_one_that_is_closed() -> None:
    log = [entry(1, "round.opened", after_s=-60, round=2), entry(2, "round.aggregating", after_s=-20, round=2)]
    board = MadeUp(document(round_state="aggregating"), events={"mammo": log})
    said = samples(scraper(board))
    assert said['flavor_round_open_seconds{run="mammo"}'] == 40
    assert said['flavor_round_aggregating_seconds{run="mammo"}'] == 20
    assert not of(said, "flavor_round_quorum_margin")
    assert not of(said, "flavor_round_deadline_timestamp_seconds")
    board.documents["mammo"]["round_state"] = "closed"
    assert not of(samples(scraper(board)), "flavor_round_open_seconds")


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_a_run_that_has_ended_keeps_its_state_and_results_alone(state: str) -> None:
    said = samples(scraper(MadeUp(document(state=state, round_state="closed"))))
    assert said[f'flavor_run_state{{flavor_run_state="{state}",run="mammo"}}'] == 1
    assert said['flavor_metric_last{metric="loss",run="mammo"}'] == 0.3
    assert not of(said, "flavor_client_phase")
    assert not of(said, "flavor_client_heartbeat_age_seconds")
    assert not of(said, "flavor_run_coordinator_up")
    assert not of(said, "flavor_run_held")


def test_a_run_before_its_first_round() -> None:
    empty: dict[str, Any] = dict.fromkeys(("round_state", "opened_ms", "deadline_ms", "last_round", "best", "metric"))
    said = samples(scraper(MadeUp(document(state="waiting", round=0, expected=0, needed=0, clients={}, **empty))))
    assert said['flavor_run_round{run="mammo"}'] == 0
    assert not of(said, "flavor_round_state")
    assert not of(said, "flavor_round_median_seconds")


def test_while_redis_cannot_be_read_nothing_else_is_said() -> None:
    board = MadeUp(document())
    found = scraper(board)
    assert len(samples(found)) > 20
    board.said = "Redis at x: it does not answer"
    assert samples(found) == {"flavor_redis_up": 0}


def test_a_redis_that_goes_away_during_a_scrape_is_away() -> None:
    board = MadeUp(document())
    found = scraper(board)

    def away(run: str) -> Any:
        raise BusUnavailable("Redis at x: it does not answer")

    board.document = away  # type: ignore[method-assign]
    assert samples(found) == {"flavor_redis_up": 0}


def test_runs_beyond_the_bound_are_counted_alone_the_oldest_that_have_ended_first() -> None:
    old = [document(run=f"old-{number}", state="finished", created_ms=number) for number in range(MOST_RUNS)]
    board = MadeUp(*old, document(run="going-on", created_ms=0))
    said = samples(scraper(board))
    assert len(of(said, "flavor_run_round")) == MOST_RUNS
    assert 'flavor_run_round{run="going-on"}' in said
    assert 'flavor_run_round{run="old-1"}' in said
    assert 'flavor_run_round{run="old-0"}' not in said
    assert said['flavor_runs{state="finished"}'] == MOST_RUNS


def many(number: int, **at: dict[str, Any]) -> dict[str, Any]:
    """A run with so many clients, of which some are as said."""
    names = [f"site-{each:04}" for each in range(number)]
    clients = {name: client(sent_bytes=10, samples=5) for name in names}
    return document(clients={**clients, **{name.replace("_", "-"): fields for name, fields in at.items()}})


def test_no_client_can_be_called_like_the_others() -> None:
    assert not is_name(OTHERS)


def test_clients_beyond_the_bound_are_summed_up_and_those_in_trouble_come_first() -> None:
    gone = client(alive=False, phase="gone", seen_ms=NOW_MS - 90_000, this_round="gone", samples=5, sent_bytes=10)
    found = many(
        30, site_0017=gone, site_0020=client(refused_in_a_row=1, sent_bytes=10), site_0021=client(phase="quarantined")
    )
    said = samples(scraper(MadeUp(found), most=4))
    names = ("site-0000", "site-0017", "site-0020", "site-0021", OTHERS)
    phases = of(said, "flavor_client_phase")
    assert {key.split('"')[1] for key in phases} == set(names)
    assert phases[f'flavor_client_phase{{client="{OTHERS}",phase="training",run="mammo"}}'] == 26
    assert said[f'flavor_client_examples{{client="{OTHERS}",run="mammo"}}'] == 26 * 5
    assert said[f'flavor_client_transferred_bytes_total{{client="{OTHERS}",direction="sent",run="mammo"}}'] == 260
    assert said[f'flavor_client_heartbeat_age_seconds{{client="{OTHERS}",run="mammo"}}'] == 2
    none = samples(scraper(MadeUp(found), most=0))
    assert {key.split('"')[1] for key in of(none, "flavor_client_phase")} == {OTHERS}
    assert none[f'flavor_client_heartbeat_age_seconds{{client="{OTHERS}",run="mammo"}}'] == 90


def test_no_client_is_in_a_phase_for_longer_than_the_round() -> None:
    said = samples(scraper(MadeUp(document(clients={"a": client(doing_ms=1)}))))
    assert of(said, "flavor_client_phase_seconds") == {
        'flavor_client_phase_seconds{client="a",phase="training",run="mammo"}': 60
    }


def test_events_are_counted_once_and_anew_for_another_run_of_the_name() -> None:
    board = MadeUp(document(), events={"mammo": [entry(n, "update.accepted", client="a") for n in range(1, 9)]})
    scraped = scraper(board)
    total = 'flavor_updates_total{reason="",run="mammo",verdict="accepted"}'
    assert samples(scraped)[total] == 8
    assert samples(scraped)[total] == 8
    board.logs["mammo"].append(entry(9, "update.accepted", client="b"))
    assert samples(scraped)[total] == 9
    board.logs["mammo"] += [entry(n, "update.accepted", after_s=1 + n / 1000) for n in range(5001)]
    assert samples(scraped)[total] == 5010, "more than are read at once"
    board.documents["mammo"]["run_id"] = "1" * 32
    board.logs["mammo"] = [entry(1, "update.accepted", after_s=50, client="b")]
    assert samples(scraped)[total] == 1


def test_events_of_a_log_that_was_made_anew_by_a_clock_that_is_behind_are_counted() -> None:
    total = 'flavor_updates_total{reason="",run="mammo",verdict="accepted"}'
    board = MadeUp(document(), events={"mammo": [entry(n, "update.accepted", client="a") for n in range(5, 9)]})
    scraped = scraper(board)
    assert samples(scraped)[total] == 4
    board.logs["mammo"] = [entry(n, "update.accepted", client="a") for n in range(1, 3)]
    assert samples(scraped)[total] == 6
    assert samples(scraped)[total] == 6


def test_a_round_that_no_other_is_compared_with_is_not_the_best() -> None:
    """Nothing beside a number in Prometheus says that it is the best of one."""
    said = samples(scraper(MadeUp(document(best=best_value("val_auc", 0.94, fewer=1)))))
    assert not of(said, "flavor_metric_best")
    assert not of(said, "flavor_metric_best_round")
    assert of(said, "flavor_metric_last")


def test_a_run_that_was_not_rebuilt_has_no_time_of_that() -> None:
    assert not of(samples(scraper(MadeUp(document(recovered_ms=None)))), "flavor_run_recovered")


def test_names_that_a_site_has_chosen_do_no_harm() -> None:
    hostile = {'a"} 1\nflavor_redis_up 0': 1.0, "x" * 5000: 2.0, "x" * 4999: 3.0, "\ud800": 4.0, "nan": math.nan}
    many_more = {f"metric-{number}": 1.0 for number in range(500)}
    last = {"round": 1, "metrics": {**hostile, **many_more}}
    found = document(last_round=last, best=best_value("\ud800", 1.0))
    said = samples(scraper(MadeUp(found)))
    assert said["flavor_redis_up"] == 1
    values = of(said, "flavor_metric_last")
    assert len(values) <= 40
    assert max(map(len, values)) < 200
    assert all(map(math.isfinite, values.values()))


def test_a_run_that_goes_or_cannot_be_read_costs_only_itself() -> None:
    board = MadeUp(document(), document(run="other"))
    rows = [*board.runs(), {"run": "hurt", "state": "damaged", "created_ms": None}]
    board.runs = lambda: rows  # type: ignore[method-assign]
    del board.documents["other"]
    said = samples(scraper(board))
    assert 'flavor_run_round{run="mammo"}' in said
    assert 'flavor_run_round{run="other"}' not in said
    assert said['flavor_runs{state="running"}'] == 2
    assert said['flavor_runs{state="damaged"}'] == 1


def test_prometheus_own_text_for_who_accepts_no_open_metrics() -> None:
    body, kind = scraper(MadeUp(document())).answer("text/plain")
    assert kind == PLAIN
    assert b"# TYPE flavor_run_state gauge\n" in body


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_promtool_finds_nothing_wrong_with_the_names() -> None:
    times = {"opened_ms": NOW_MS, "deadline_ms": NOW_MS}
    found = {**many(3), "evaluation": JUDGED, "evaluating_central_times": [times]}
    log = [entry(1, "round.opened", round=1), entry(2, "round.aggregating", round=1), entry(3, "round.closed", round=1)]
    log.append(entry(4, "evaluation.failed", round=1, evaluation=0))
    body, _ = scraper(MadeUp(found, events={"mammo": log})).answer()
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_the_documents_table_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(flavor_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", page, flags=re.MULTILINE)
    assert rows == [
        (
            family.shown,
            family.kind.value,
            ", ".join(f"`{label}`" for label in family.labels),
            family.help,
        )
        for family in FAMILIES.values()
    ]


def test_a_run_that_was_rebuilt_has_the_times_of_its_rounds_although_its_log_has_none() -> None:
    said = samples(scraper(MadeUp(document(round_last_s=7.5, round_median_s=6.5))))
    assert said['flavor_round_last_seconds{run="mammo"}'] == 7.5
    assert said['flavor_round_median_seconds{run="mammo"}'] == 6.5


def test_evaluations_have_families_of_their_own() -> None:
    best = {"metric": "worst/accuracy", "better": "larger", "round": 5, "value": 0.6, "sites": 2}
    times = {"opened_ms": NOW_MS - 60_000, "deadline_ms": NOW_MS + 30_000}
    found = document(
        clients={"a": client(), "b": client()},
        evaluation=JUDGED,
        incomplete_in_a_row=4,
        selected=best,
        central={"round": 6, "opened_ms": NOW_MS - 9000, "closed_ms": NOW_MS - 4000, "metrics": {"central/auc": 0.8}},
        evaluating=[{"evaluation": 2, **times}, {"evaluation": 0, **times}, {"evaluation": 3, "opened_ms": NOW_MS}],
        evaluating_central_times=[{"opened_ms": NOW_MS - 500, "deadline_ms": NOW_MS + 500}],
    )
    closed, failed, skipped = (f"evaluation.{what}" for what in ("closed", "failed", "skipped"))
    log = [entry(1, failed, round=5, evaluation=0), entry(2, closed, round=7, evaluation=0), entry(3, failed, round=8)]
    log += [entry(number, failed, round=4, evaluation=CENTRAL) for number in (4, 5)]
    log += [entry(6, skipped, round=4, evaluation=CENTRAL), entry(7, closed, round=1, evaluation=1)]
    said = samples(scraper(MadeUp(found, events={"mammo": log})))
    run = 'run="mammo"'
    assert of(said, "flavor_evaluation_last") == {
        f'flavor_evaluation_last{{metric="central/auc",{run}}}': 0.8,
        f'flavor_evaluation_last{{metric="accuracy",{run}}}': 0.7,
        f'flavor_evaluation_last{{metric="pooled/accuracy",{run}}}': 0.75,
        f'flavor_evaluation_last{{metric="pooled/auc",{run}}}': 0.9,
    }
    assert by_kind(said, "flavor_evaluation_round") == {"sites": 7, "central": 6}
    assert by_kind(said, "flavor_evaluation_last_seconds") == {"sites": 1, "central": 5}
    assert said[f"flavor_evaluation_sites{{{run}}}"] == 2
    assert said[f"flavor_evaluation_expected_sites{{{run}}}"] == 3
    assert said[f"flavor_evaluations_incomplete_in_a_row{{{run}}}"] == 4
    assert by_kind(said, "flavor_evaluations_open") == {"sites": 1, "central": 1, "asked": 2}
    opened = by_kind(said, "flavor_evaluation_opened_timestamp_seconds")
    assert {kind: NOW_MS / 1000 - at for kind, at in opened.items()} == {"sites": 60, "central": 0.5, "asked": 60}
    deadline = by_kind(said, "flavor_evaluation_deadline_timestamp_seconds")
    assert {kind: at - NOW_MS / 1000 for kind, at in deadline.items()} == {"sites": 30, "central": 0.5, "asked": 30}
    assert by_kind(said, "flavor_evaluations_failed_in_a_row") == {"sites": 1, "central": 2, "asked": 0}
    assert said[f"flavor_evaluation_best_round{{{run}}}"] == 5
    assert said[f'flavor_evaluation_best{{metric="worst/accuracy",{run}}}'] == 0.6
    counted = of(said, "flavor_evaluations_total").items()
    totals = {" ".join(re.findall(r'(?:kind|outcome)="(\w+)"', key)): value for key, value in counted if value}
    assert totals == {
        "sites closed": 1,
        "sites failed": 2,
        "central failed": 2,
        "central skipped": 1,
        "asked closed": 1,
    }
    assert {name for name in FAMILIES if name.startswith("flavor_evaluation") and f"{name}" not in str(said)} == set()
    assert not of(samples(scraper(MadeUp(document(clients={})))), r"flavor_evaluation\w*")


def test_an_evaluation_that_somebody_asks_for_leaves_the_values_of_the_runs_own() -> None:
    own, asked = ({**JUDGED, "evaluation": number, "round": 9 - number} for number in (0, 1))
    asked["metrics"] = {"accuracy": {"sites": 1, "plain_mean": 0.1}}
    board = MadeUp(document(evaluation=asked, automatic=own))
    said = samples(scraper(board))
    assert said['flavor_evaluation_last{metric="accuracy",run="mammo"}'] == 0.7
    assert by_kind(said, "flavor_evaluation_round") == {"sites": 9}
    board.documents["mammo"] |= {"automatic": None}
    assert not of(samples(scraper(board)), r"flavor_evaluation\w*"), "the run has made none"
