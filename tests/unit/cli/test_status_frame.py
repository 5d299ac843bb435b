"""What `flavor status --watch` draws: it fits every terminal, and what needs attention is on it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from rich.cells import cell_len

from flavor.cli.status_frame import Screen, found_of, run_frame, runs_frame, spark_line
from flavor.cli.status_lines import columns_of, summary_of
from flavor.results.best import BestRound
from flavor.view.document import lost_row
from flavor.view.styles import BAD, COLOUR_OF_PHASE

NOW = 1_795_980_000_000
EVIL = "\x1b[2J[red]x[/red]\nFORGED \u202e" + " " * 500 + "y"
SIZES = [(40, 12), (40, 24), (80, 24), (120, 40), (200, 60), (20, 6)]


def client(phase: str = "training", **fields: Any) -> dict[str, Any]:
    made = dict.fromkeys(("samples", "transfer", "reported", "load", "failure", "report", "update_bytes"))
    made |= {"doing_ms": None, "reported_ms": None}
    made |= {"state": "ready", "phase": phase, "alive": True, "host": "h", "this_round": "pending", "awaited": False}
    made |= {"seen_ms": NOW - 2000, "metrics": {}, "metrics_round": 11, "doing": None, "progress": phase, "reason": ""}
    made |= {"staleness": "", "warning": ""}
    return {**made, **fields}


def document(clients: dict[str, dict[str, Any]], **fields: Any) -> dict[str, Any]:
    made = {"run": "mammo", "state": "running", "round": 12, "rounds": 50, "round_state": "open", "reason": "ready"}
    made |= {"created_ms": NOW - 7_200_000, "ended_ms": None, "opened_ms": NOW - 60_000, "deadline_ms": NOW + 600_000}
    made |= {"took_s": None, "worked_from_ms": NOW - 60_000, "round_timeout_s": 660.0}
    made |= {"expected": len(clients), "needed": max(1, len(clients) - 1), "in": 1, "heartbeat_timeout_s": 30.0}
    made |= {"closes_early": False}
    made |= {"waits_for": "1 of 3 updates accepted, waiting for site-2, site-3", "since_ms": NOW - 50_000}
    made |= {"held": False, "absent": [], "metric": "auc", "global_model": "runs/mammo/global/0011-model-1.npz"}
    made |= {
        "last_round": {"round": 11, "metrics": {"auc": 0.87654, "loss": 0.31}, "contributors": 3},
        "left_s": 3000.0,
    }
    best = {"metric": "auc", "rounds": 11, **asdict(BestRound(9, 0.88, 3, 3, 3, 0, 0, 11))}
    made |= {"best": best, "clients": clients}
    return {**made, **fields}


def event(number: int, name: str = "update.accepted", line: str = "") -> dict[str, Any]:
    line = line or f"round 12: site-{number}: it is accepted"
    return {
        "id": f"{NOW - 1000 * (100 - number)}-0",
        "time_ms": NOW - 1000 * (100 - number),
        "event": name,
        "line": line,
    }


EVENTS = [event(number) for number in range(40)]
SITES = {
    "site-1": client("done", samples=100, update_bytes=4096, metrics={"auc": 0.9}, progress="done"),
    "site-2": client(
        progress="training 61 % (310 of 508)", doing="training", doing_ms=NOW - 840_000, reported_ms=NOW - 120_000
    ),
    "hospital-of-the-long-name-in-the-north-3": client("refused", reason='"NaN in layer4.1.conv2.weight"'),
}


def drawn(
    found: dict[str, Any], width: int, height: int, events: list[dict[str, Any]] = EVENTS, **more: Any
) -> list[str]:
    lines = run_frame(found_of(found, NOW), events, Screen(width, height, NOW, **more))
    text = [line.plain for line in lines]
    assert len(text) <= height, (len(text), height)
    assert max(map(cell_len, text)) <= width, max(text, key=cell_len)
    assert all(line.isprintable() for line in text)
    return text


def test_an_asynchronous_run_says_when_its_round_closes_and_from_which_model_each_site_trains() -> None:
    sites = {
        "site-1": client(
            "done", progress="done", reason="hidden", staleness="trained from the model of round 9, 2 rounds ago"
        ),
        "site-2": client(staleness="trains from the model of round 10, 1 round ago"),
        "site-3": client(
            "gone", reason="its heartbeat stopped", staleness="trains from the model of round 3, 8 rounds ago"
        ),
    }
    text = drawn(document(sites, closes_early=True), 200, 40)
    assert text[0].endswith("open for 1 min, 1 in, closes with the first 2 of 3, deadline in 10 min")
    told = {line.split()[0]: line for line in text if line.startswith("site-")}
    assert told["site-1"].endswith("  trained from the model of round 9, 2 rounds ago")
    assert told["site-2"].endswith("  trains from the model of round 10, 1 round ago")
    assert told["site-3"].endswith("  its heartbeat stopped")
    late = drawn(document(sites, closes_early=True, deadline_ms=NOW - 1), 200, 40)[0]
    assert late.endswith("closes with the first 2 of 3, the deadline has passed")


def test_a_run_of_three_sites() -> None:
    text = drawn(document(SITES), 200, 40)
    assert text[0] == (
        "mammo  running  round 12 of 50  open for 1 min, 1 in, closes when all 3 are, with 2 at the deadline in 10 min"
    )
    assert text[1] == "waits: 1 of 3 updates accepted, waiting for site-2, site-3, for 50 s"
    assert text[2].startswith("round 11: auc 0.8765 (best: 0.88, reported in round 9, which began from ")
    assert "about 50 min left, at the pace of the last rounds" in text
    table = text.index(next(line for line in text if line.startswith("SITE")))
    assert text[table].split() == ["SITE", "STATE", "LAST", "SEEN", "EXAMPLES", "UPLOADED", "AUC", "WHY"]
    assert text[table + 1].split() == ["site-1", "done", "2", "s", "100", "4.1", "kB", "0.9"]
    assert "training 61 % (310 of 508), reported 2 min ago, began 14 min ago" in text[table + 2]
    assert "hospital-of-the-long-name-in-…  refused" in text[table + 3]
    assert text[table + 3].endswith('"NaN in layer4.1.conv2.weight"')
    assert text[table + 4] == ""
    assert text[-2].endswith("round 12: site-39: it is accepted"), "the newest event is the last"
    assert len([line for line in text if "it is accepted" in line]) == 20
    assert text[-1].endswith("Ctrl-C ends this")


def test_a_round_that_lacks_its_quorum_does_not_say_that_it_closes() -> None:
    gone = {f"gone-{number}": client("gone", this_round="gone", reason="its heartbeat stopped") for number in range(9)}
    lacks = "3 updates are needed and 2 can come; 9 sites (gone-0, gone-1 and 7 more): its heartbeat stopped"
    some = {name: SITES[name] for name in ("site-1", "site-2")}
    text = drawn(document({**gone, **some}, needed=3, waits_for=lacks), 200, 40)
    assert text[0] == "mammo  running  round 12 of 50  open for 1 min, 1 in"
    assert not [line for line in text if line.startswith("without")], "the sentence has them"
    assert "closes when all 11 are" in drawn(document({**gone, **some}, needed=2), 200, 40)[0]


@pytest.mark.parametrize("held", [True, False])
def test_a_wait_that_does_not_end_by_itself_is_red(held: bool) -> None:
    lines = run_frame(found_of(document(SITES, held=held), NOW), EVENTS, Screen(200, 40, NOW))
    (wait,) = [line for line in lines if line.plain.startswith("waits:")]
    assert (wait.style == BAD) is held


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_size(width: int, height: int) -> None:
    """The sentence, the site that needs attention and its reason are there on every usable terminal."""
    text = drawn(document(SITES), width, height)
    if height >= 24:
        assert any(line.startswith("waits: 1 of 3") for line in text)
        assert any("refused" in line for line in text)
        assert any("NaN in layer4" in line for line in text), "below the row, where the terminal is narrow"
        assert any("training 61 %" in line for line in text)
        assert any("it is accepted" in line or "round 12" in line for line in text[-4:])
    assert not [line for line in drawn(document({}), width, height) if line.startswith("SITE")]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_sites_write_changes_nothing_but_its_place(width: int, height: int) -> None:
    hostile = client("refused", reason=EVIL, progress=EVIL, report=EVIL)
    hostile["reported"] = {"done": 1.0, "total": 2.0, "message": EVIL, "metrics": {EVIL: 1.0}, "round": 12}
    made = document({"site-1": hostile}, waits_for=EVIL, reason=EVIL, absent=[EVIL], metric=EVIL)
    text = drawn(made, width, height, [event(1, "update.refused", EVIL)], problem=EVIL)
    assert not [line for line in text if line.lstrip().startswith("FORGED")]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_of_two_thousand_sites_those_that_need_attention_come_first(width: int, height: int) -> None:
    sites = {f"site-{number:04d}": client("done") for number in range(1_940)}
    sites |= {f"slow-{number:02d}": client(doing_ms=NOW - 1000 * number) for number in range(57)}
    sites |= {"zz-gone": client("gone", reason="its heartbeat stopped"), "zz-refused": client("refused", reason="NaN")}
    sites |= {"zz-stopped": client("stopped")}
    text = drawn(document(sites), width, height)
    if height < 24:
        return
    rows = [line for line in text if line.startswith(("site-", "slow-", "zz-"))]
    assert [row.split()[0] for row in rows[:4]] == ["zz-refused", "zz-gone", "zz-stopped", "slow-56"]
    more = next(line for line in text if line.startswith("and "))
    assert more.startswith(f"and {2000 - len(rows):,} more: 1,940 done"), more
    assert f", {57 - (len(rows) - 3)} training" in more or width < 40


def test_the_colours_are_those_of_phases_and_events() -> None:
    lines = run_frame(found_of(document(SITES), NOW), [event(1, "update.refused")], Screen(120, 40, NOW))
    of = {
        line.plain[span.start : span.end].strip(): str(span.style)
        for line in lines
        for span in line.spans
        if span.style
    }
    assert of["refused"] == COLOUR_OF_PHASE["refused"] == "red"
    assert of["done"] == "green"
    styles = [str(line.style) for line in lines]
    assert styles[0] == "bold"
    assert styles[1] == "yellow"
    assert styles[-2] == "red"


def test_a_redis_that_is_away_is_said_first() -> None:
    text = drawn(document(SITES), 80, 24, problem="Redis cannot be read since 2026-11-29 19:00:00 UTC: refused")
    assert text[0] == "Redis cannot be read since 2026-11-29 19:00:00 UTC: refused; what follows is of"
    assert text[1] == "that time"


def test_an_ended_run_says_why_and_counts_no_time() -> None:
    ended = document(
        SITES, state="failed", ended_ms=NOW - 3_600_000, took_s=3000.0, reason="2 updates are needed", waits_for=""
    )
    text = drawn(ended, 120, 40)
    assert text[0] == "mammo  failed  round 12 of 50  took 50 min"
    assert text[1] == "2 updates are needed"
    assert not [line for line in text if "left, at the pace" in line]


def row(run: str, **fields: Any) -> dict[str, Any]:
    made = {"run": run, "state": "running", "round": 3, "rounds": 9, "round_state": "open", "sentence": "1 of 2 in"}
    made |= {"held": False, "since_ms": NOW - 9000, "waits_s": 9.0, "absent": [], "clients": 3, "alive": 2}
    made |= {"metric": "auc", "value": 0.9123, "best": None, "spark": [0.1, 0.5, 0.9], "created_ms": NOW - 7_200_000}
    return {**made, "ended_ms": None, **fields}


def drawn_runs(rows: list[dict[str, Any]], width: int, height: int) -> list[str]:
    text = [line.plain for line in runs_frame(rows, "redis://localhost", Screen(width, height, NOW))]
    assert len(text) <= height
    assert max(map(cell_len, text)) <= width
    assert all(line.isprintable() for line in text)
    return text


def test_all_runs() -> None:
    text = drawn_runs(
        [row("mammo"), row("chest", state="finished", sentence="all 9 rounds are closed", waits_s=None)], 140, 24
    )
    assert text[0].split() == ["RUN", "STATE", "ROUND", "BEGUN", "SITES", "METRIC", "CURVE", "WHY"]
    assert text[1] == "mammo  running   3 of 9  2 h ago  2 of 3  auc 0.9123  ▁▅█    1 of 2 in, for 9 s"
    assert text[2].endswith("all 9 rounds are closed")
    assert drawn_runs([], 140, 24)[0] == "There are no runs on redis://localhost."


def test_a_run_that_redis_has_lost_says_so() -> None:
    text = drawn_runs([row("mammo"), lost_row(row("chest", waits_s=None), "Redis has lost run 'chest'")], 140, 24)
    assert text[2] == "chest  lost     3 of 9  2 h ago  ? of 3  auc 0.9123  ▁▅█    Redis has lost run 'chest'"
    assert text[1].startswith("mammo  running")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_of_many_runs_those_that_cannot_go_on_come_first(width: int, height: int) -> None:
    rows = [row(f"run-{number}", created_ms=NOW - number) for number in range(50)]
    rows += [row("held", held=True, sentence=EVIL), row("over", state="failed", ended_ms=NOW), row("bad", state=EVIL)]
    text = drawn_runs(rows, width, height)
    if height < 60:
        assert text[1].startswith("held")
        assert any(line.startswith("and ") and " more" in line for line in text), text


def test_small_bars() -> None:
    assert spark_line([0.0, 1.0, 0.5], 12) == "▁█▅"
    assert spark_line([2.0] * 3, 12) == "▁▁▁"
    assert spark_line([1.0], 12) == ""
    assert len(spark_line(list(range(100)), 12)) == 12


def test_a_site_that_is_lost_is_named_above_the_table_unless_the_sentence_does() -> None:
    gone = client("gone", reason="its heartbeat stopped")
    sites = {**SITES, "site-5": gone, "site-10": gone, "site-1": client("quarantined")}
    waits = "waiting for site-2; without site-10: its heartbeat stopped"
    lines = [line.text for line in summary_of(found_of(document(sites, waits_for=waits), NOW))]
    assert "without: site-1 (quarantined), site-5 (gone)" in lines
    many = {f"s{number}": gone for number in range(9)}
    (line,) = [each.text for each in summary_of(found_of(document(many), NOW)) if each.text.startswith("without")]
    assert line.endswith("s4 (gone), and 4 more")
    absent = "no coordinator serves it"
    found = found_of(document(SITES, waits_for=absent, absent=[absent]), NOW)
    kinds = {line.kind for line in summary_of(found) if absent in line.text}
    assert kinds == {"absent"}, "it stays red once the log says it, too"


def test_of_a_local_run_the_command_that_goes_on_and_the_logs_are_named() -> None:
    lost = {"site-1": client("gone"), "site-2": client("done")}
    failed = document(
        lost, state="failed", ended_ms=NOW, reason="site-1: its heartbeat stopped", folder="flavor-runs/a b"
    )
    said = [line.text for line in summary_of(found_of(failed, NOW))]
    at = said.index("site-1: its heartbeat stopped")
    assert said[at + 1 : at + 3] == [
        "go on with it: flavor run --resume 'flavor-runs/a b'",
        "log of site-1: flavor-runs/a b/logs/site-1.log",
    ]
    assert any("`flavor get 'flavor-runs/a b' --round 8`" in line for line in said)
    deployed = [line.text for line in summary_of(found_of({**failed, "folder": ""}, NOW))]
    assert not any("flavor-runs" in line or "--resume" in line for line in deployed)
    assert any("`flavor get mammo --round 8`" in line for line in deployed)


def test_a_crash_is_told_once() -> None:
    """The site's own text begins with what its edge has told, and the table had both."""
    ended = "trainer ended in round 3, before TrainFinished (exit code 1)"
    crashed = client("failed", reason=f'"its {ended}"', report=f"the {ended}: ValueError: image 17")
    other = client("failed", reason='"its disk is full"', report="something else")
    why = columns_of(found_of(document({"a": crashed, "b": other}), NOW))[-1].cells
    assert why == {"a": f'"its {ended}: ValueError: image 17"', "b": '"its disk is full" ("something else")'}


SELECTED = {"round": 8, "metric": "auc", "better": "larger", "value": 0.9, "sites": 3}


@pytest.mark.parametrize(
    ("keep", "selected", "is_offered"), [(0, None, True), (3, None, False), (4, None, True), (3, SELECTED, True)]
)
def test_no_model_is_offered_that_is_no_longer_kept(keep: int, selected: Any, is_offered: bool) -> None:
    """The metrics of round 9 are those of the model of round 8, and round 11 is the newest."""
    found = found_of(document(SITES, keep_globals=keep), NOW)
    (line,) = [line.text for line in summary_of({**found, "selected": selected}) if "reported in round 9" in line.text]
    assert ("--round 8`" in line) == is_offered
    assert is_offered or "the model of round 8, which is no longer kept (--keep-globals 3)" in line
