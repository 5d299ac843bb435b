"""`flavor results` tells of evaluations that have no result, of a run on Redis and of a result folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from flavor.cli.get import get
from flavor.cli.results import results
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.results.evaluation_files import EvaluationFiles
from flavor.store.local import LocalStore
from flavor.store.paths import run_record_path
from tests.driven import Driven


def trains(run: Driven) -> None:
    run.open(["c1"])
    run.accept("c1", 10, {})
    run.close()


def fails(run: Driven, number: int = AUTOMATIC) -> None:
    run.open_evaluation(["c1"] if number == AUTOMATIC else [], number=number)
    view = run.runs.read_evaluation(run.round, number)
    assert view is not None
    run.runs.give_up_evaluation("coordinator", view, f"the model of round {run.round}: it ended")


def asked(where: object, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(results, [str(where), *words], env={"FLAVOR_STORE": None, "COLUMNS": "200"})
    assert done.exit_code == code, done.output
    return done.output


def test_a_model_that_is_pruned_is_said_to_be_pruned(server: str, tmp_path: Path) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True), keep_globals=2)
    for _ in range(2):
        trains(run)
    view, store = run.runs.read_round(1), run.store
    assert view is not None
    assert view.model is not None
    assert store is not None
    store.delete([view.model.path])
    (tmp_path / "store" / run_record_path(run.runs.run)).write_text("{}")
    words = [run.runs.run, "--redis-url", server, "--round", "1", "-o", str(tmp_path / "model.pt")]
    done = CliRunner().invoke(get, [*words, "--store", str(tmp_path / "store")])
    assert done.exit_code == 1
    assert "the model of round 1 of run" in done.output
    assert "is no longer in the store (--keep-globals)" in done.output


def test_evaluations_without_a_result_are_told_of_until_there_is_one(server: str, tmp_path: Path) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True), rounds=9)
    record = tmp_path / "store" / run_record_path(run.runs.run)
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    out = tmp_path / "out"

    def written() -> None:
        assert run.store is not None
        EvaluationFiles(out, print).update(run.runs, run.store, run.runs.read())

    out.mkdir()
    trains(run)
    fails(run)
    written()
    why = "the model of round 1: it ended"
    assert f"no model of run {str(out)!r} has been judged: {why}" in asked(out, code=1)
    trains(run)
    run.judge({"c1": (10, {"accuracy": 0.9})})
    written()
    assert "no result" not in asked(out)
    assert json.loads(asked(out, "--json"))["not_judged"] == []
    for number in (AUTOMATIC, AUTOMATIC, CENTRAL):
        trains(run)
        fails(run, number)
    written()
    sentences = [
        "the last 2 evaluations by the sites have no result, the newest: the model of round 4: it ended",
        "no result: the model of round 5: it ended",
    ]
    of_redis = (run.runs.run, "--redis-url", server)
    for words in ((out,), of_redis):
        shown: dict[str, Any] = json.loads(asked(*map(str, words), "--json"))
        assert (shown["round"], [each["sentence"] for each in shown["not_judged"]]) == (2, sentences)
        lines = asked(*map(str, words)).splitlines()
        assert lines[1:3] == sentences, "beneath the line that names the model, above the table"
        assert "no result" not in asked(*map(str, words), "--round", "2")
    run.runs.redis.delete(run.runs.keys.unjudged, run.runs.keys.failing)  # as `flavor recover` leaves it
    written()
    assert asked(out).splitlines()[1:3] == sentences
