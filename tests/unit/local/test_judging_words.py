"""What `flavor run` quotes of a site's log where a model could not be judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.config import RunConfig
from flavor.local.judging import given_way_words, named_log
from flavor.records.comparison import Beside, Comparison
from flavor.records.evaluation import EvaluationSummary
from flavor.records.lacking import SomeSites

TIME = "2026-11-30 17:05:28 "
ENDED = "the evaluator ended (exit code 2): python: can't open file 'evalute.py'"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([f"{TIME}[b] flavor: round 1: its global model could not be judged: {ENDED}"], ENDED),
        ([f"[b] flavor: a model that no round has made could not be judged: {ENDED}; before that: x | y"], ENDED),
        ([f"{TIME}[b] run r: {ENDED}", f"{TIME}[b] run r, round 2: 2 updates"], ENDED),
        (
            [f"[b] flavor: round {n}: its global model could not be judged: it is {n}" for n in (1, 2)],
            "it is 2",
        ),
        (["[b] flavor: round 1: its global model could not be judged: a\x1b[2Jb"], "a\\x1b[2Jb"),
        (["[b] flavor: round 1: the result is handed in", "[b] run r: an update is refused"], ""),
        ([], ""),
    ],
)
def test_the_newest_reason_in_the_log_of_the_first_site_is_quoted(tmp_path: Path, lines: list[str], words: str) -> None:
    log = tmp_path / "b.log"
    log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert named_log(tmp_path, ["b", "c"]) == f"{f'; b: {words}' if words else ''}; its log: {log}"


@pytest.mark.parametrize(
    ("first", "named"),
    [
        ("the evaluator has written no result: call SaveInfoJson", "c"),
        ("the evaluator ended (exit code 3), silently", "c"),
        ("the evaluator ended (killed by SIGKILL (out of memory?)): Traceback", "b"),
        ("", "c"),
    ],
)
def test_quoted_is_a_site_whose_evaluator_has_ended_with_a_line_of_its_own(
    tmp_path: Path, first: str, named: str
) -> None:
    """What the first site's log says stands in its reason already."""
    said = {"b": first, "c": ENDED, "d": ENDED}
    for site, words in said.items():
        line = f"[{site}] flavor: round 1: its global model could not be judged: {words}\n" if words else ""
        (tmp_path / f"{site}.log").write_text(line)
    assert named_log(tmp_path, ["d", "c", "b"]) == f"; {named}: {said[named]}; its log: {tmp_path / named}.log"
    (tmp_path / "c.log").unlink()
    (tmp_path / "d.log").unlink()
    assert named_log(tmp_path, ["d", "c", "b"]).endswith(f"; its log: {tmp_path / 'b'}.log"), "the first one's"


def test_of_a_long_log_the_end_is_read_and_of_a_long_line_the_beginning(tmp_path: Path) -> None:
    log = tmp_path / "aggregator.log"
    log.write_text(f"[aggregator] run r: {ENDED}\n" + "x\n" * 50_000, encoding="utf-8")
    assert named_log(tmp_path, []) == f"; its log: {log}"
    log.write_text(f"[aggregator] run r: the evaluator {'y' * 5000}\n", encoding="utf-8")
    assert len(named_log(tmp_path, [])) < 400 + len(str(log))


def test_a_log_that_is_not_there_is_named_all_the_same(tmp_path: Path) -> None:
    assert named_log(tmp_path, ["a"]) == f"; its log: {tmp_path / 'a.log'}"
    assert named_log(tmp_path, []) == ""


FELL = SomeSites(("d (NaN)",), 1)


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (
            Comparison(recovered=FELL),
            "the best by a is now the model of round 2, 0.5: that of round 1 has diverged at d (NaN), "
            "where this one has a finite value",
        ),
        (Comparison(recovered=FELL, diverged=SomeSites(("c (inf)",), 1)), ""),
        (Comparison(Beside(0.5, 0.4, 3)), ""),
    ],
)
def test_a_best_model_that_gives_way_because_it_had_diverged_is_told(comparison: Comparison, words: str) -> None:
    config = RunConfig(rounds=2, store="file:///store", select="a:max")
    summary = EvaluationSummary(
        2, 0, 1, sites=3, expected=3, examples=9, metrics={"a": 0.5}, best_before=1, comparison=comparison
    )
    assert given_way_words(config, summary) == words
