"""`flavor export` writes evaluations apart from what training scripts report, and each of them once."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flavor.credits import contributions
from flavor.errors import InvalidSetting
from flavor.records.evaluation import CENTRAL
from flavor.records.info import MOST_EXAMPLES
from flavor.records.summary import RoundSummary
from flavor.results.evaluation_files import EvaluationFiles
from flavor.results.read_evaluated import from_folder, from_redis, summaries
from flavor.store.local import LocalStore
from flavor.store.paths import run_record_path
from flavor.trackers.export import Export, Exported
from flavor.trackers.files import CsvTracker, JsonTracker
from flavor.trackers.mlflow import MlflowTracker
from flavor.trackers.tensorboard import TensorBoardTracker
from flavor.trackers.tracker import Tracker
from flavor.view.evaluations import read_evaluations
from tests.driven import Driven

CLAIMS = dict.fromkeys(("central/accuracy", "pooled/accuracy", "worst/accuracy", "accuracy (weighted)"), 1.0)
"""What a site reports under names that flavor has a meaning for."""
C1, C2 = (100, {"accuracy": 0.5, **CLAIMS}), (300, {"accuracy": 0.9})


def round_of(run: Driven) -> None:
    run.open(["c1", "c2"])
    for client in ("c1", "c2"):
        run.accept(client, 10, {"accuracy": 0.1, "evaluation/accuracy": 0.2, **CLAIMS})
    run.close()


@pytest.fixture
def run(server: str, tmp_path: Path) -> Driven:
    """Two rounds, of which the model of each was judged."""
    run = Driven(server, LocalStore(tmp_path / "store", create=True))
    record = tmp_path / "store" / run_record_path(run.runs.run)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("{}")
    for _ in range(2):
        round_of(run)
        run.judge({"c1": C1, "c2": C2}, {"c3": "it is gone"})
    return run


def exported(run: Driven, tracker: Tracker) -> str:
    @contextlib.contextmanager
    def opened() -> Iterator[Exported]:
        assert run.store is not None
        yield Exported(run.runs, run.store)

    export = Export(opened, tracker, print)
    export.once()
    return export.summary()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def judged_centrally(run: Driven, tracker: Callable[[], Tracker]) -> None:
    """The models of rounds 3 to 5 are judged on the operator's data, that of round 3 last, each exported by itself."""
    for _ in range(3):
        round_of(run)
        run.open_evaluation([], number=CENTRAL)
        run.judge({"c1": C1})
    assert "3 rounds and 3 evaluations" in exported(run, tracker())
    for round_ in (4, 5, 3):
        run.judge_centrally(50, {"central/accuracy": round_ / 10, "central/pooled/auc": 0.9}, round_)
        assert exported(run, tracker()).startswith("1 evaluation of run")
    assert "nothing is new" in exported(run, tracker())


def test_tables(run: Driven, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    assert "2 rounds and 2 evaluations of run" in exported(run, CsvTracker(path, print))
    round_of(run)
    run.judge({"c1": C1})
    assert "1 round and 1 evaluation of run" in exported(run, CsvTracker(path, print))
    assert "nothing is new" in exported(run, CsvTracker(path, print))
    found = rows(tmp_path / "m-evaluations.csv")
    assert [(each["round"], each["sites"], each["missing"]) for each in found] == [
        ("1", "2", "c3"),
        ("2", "2", "c3"),
        ("3", "1", ""),
    ]
    assert [float(each["accuracy"]) for each in found] == pytest.approx([0.7, 0.7, 0.5])
    assert [float(each["accuracy (weighted)"]) for each in found] == pytest.approx([0.8, 0.8, 0.5])
    of_sites = rows(tmp_path / "m-evaluations-sites.csv")
    assert len(of_sites) == 5
    for name in ("m-evaluations.csv", "m-evaluations-sites.csv"):
        table = tmp_path / name
        before = table.read_bytes()
        with table.open(newline="") as file:
            lines = list(csv.reader(file))
        at = lines[0].index("model")
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([*line[:at], *line[at + 1 :]] for line in lines)
        assert "nothing is new" in exported(run, CsvTracker(path, print)), "an earlier release has exported it"
        assert table.read_bytes() == before
    assert not {*of_sites[0], *rows(tmp_path / "m-sites.csv")[0]} & CLAIMS.keys(), "no name of flavor's is a site's"
    assert [float(each["accuracy"]) for each in rows(path)] == pytest.approx([0.1] * 3), "what scripts report"
    (tmp_path / "other-evaluations.csv").write_text("name,age\nmeier,7\n")
    with pytest.raises(InvalidSetting, match="is no export of flavor"):
        exported(run, CsvTracker(tmp_path / "other.csv", print))


def test_metrics_that_are_called_like_computed_columns(run: Driven, tmp_path: Path) -> None:
    """Also where the file is all that is left of a round."""
    run.open(["c1", "c2"])
    run.accept("c1", 10, {"accuracy": 0.5, "accuracy (sites)": 7.0})
    run.accept("c2", 10, {"accuracy (sites)": 9.0})
    run.close()
    run.judge({"c1": (100, {"accuracy": 0.5, "accuracy (lowest)": 3.0}), "c2": C2})
    table, whole = tmp_path / "m.csv", tmp_path / "m.json"
    for tracker in (CsvTracker(table, print), JsonTracker(whole, print)):
        assert "3 rounds and 3 evaluations" in exported(run, tracker)
    of_round, of_evaluation = rows(table)[2], rows(tmp_path / "m-evaluations.csv")[2]
    assert (of_round["accuracy (sites)"], of_round["accuracy (sites) (metric)"]) == ("1", "8.0")
    assert (of_evaluation["accuracy (lowest)"], of_evaluation["accuracy (lowest) (metric)"]) == ("0.5", "3.0")
    before = table.read_bytes()
    for path in (tmp_path / "store").rglob("*info*"):
        path.unlink()
    for tracker in (CsvTracker(table, print), JsonTracker(whole, print)):
        assert "nothing is new" in exported(run, tracker)
    assert table.read_bytes() == before


def test_the_examples_of_a_thousand_sites_are_read_wherever_they_are_written(run: Driven, tmp_path: Path) -> None:
    """Each of them claims as many as a site can."""
    sites, most = [f"s{number:04}" for number in range(1000)], MOST_EXAMPLES
    run.open(sites)
    for site in sites:
        run.accept(site, most, {"accuracy": 0.5})
    run.close()
    run.judge({site: (most, {"accuracy": 0.5}) for site in sites})
    total = 1000 * most
    of_round = RoundSummary.from_json(run.runs.summaries(-1)[0])
    assert (of_round.examples, summaries(run.runs)[-1].examples) == (total, total)
    newest = read_evaluations(run.runs).summary
    assert newest is not None
    assert (from_redis(run.runs).examples, newest.examples) == (total, total)
    for _ in range(2):
        exported(run, CsvTracker(tmp_path / "m.csv", print))
        exported(run, JsonTracker(tmp_path / "m.json", print))
    for table in ("m.csv", "m-evaluations.csv"):
        assert rows(tmp_path / table)[-1]["examples"] == str(total)
    assert json.loads((tmp_path / "m.json").read_text())["evaluations"][-1]["examples"] == total
    files = EvaluationFiles(tmp_path, print)
    assert run.store is not None
    files.update(run.runs, run.store, run.runs.read())
    assert from_folder(tmp_path).examples == total
    assert sum(each.samples for each in contributions(run.runs)) == total + 2 * 2 * 10


def test_tables_have_evaluations_on_the_operators_data(run: Driven, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    exported(run, CsvTracker(path, print))
    judged_centrally(run, lambda: CsvTracker(path, print))
    found = rows(tmp_path / "m-evaluations.csv")
    shown = [(each["round"], each["evaluation"], each["sites"], each["expected"], each["examples"]) for each in found]
    assert shown[5:] == [(str(round_), "central", "0", "0", "50") for round_ in (4, 5, 3)]
    assert [each["central/accuracy"] for each in found] == [*[""] * 5, "0.4", "0.5", "0.3"]
    assert [each["accuracy"] for each in found[5:]] == [""] * 3
    assert len(rows(tmp_path / "m-evaluations-sites.csv")) == 2 * 2 + 3


def test_json_has_evaluations_on_the_operators_data(run: Driven, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    exported(run, JsonTracker(path, print))
    judged_centrally(run, lambda: JsonTracker(path, print))
    found = json.loads(path.read_text())["evaluations"]
    assert [(each["round"], each["evaluation"]) for each in found[5:]] == [(round_, CENTRAL) for round_ in (4, 5, 3)]
    metrics = {"central/accuracy": 0.4, "central/pooled/auc": 0.9}
    assert (found[5]["central"], found[5]["sites"]) == ({"examples": 50, "metrics": metrics, "not_finite": {}}, {})


def test_json(run: Driven, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    assert "2 rounds and 2 evaluations" in exported(run, JsonTracker(path, print))
    assert "nothing is new" in exported(run, JsonTracker(path, print))
    found = json.loads(path.read_text())
    assert [each["round"] for each in found["evaluations"]] == [1, 2]
    assert found["evaluations"][0]["sites"]["c2"] == {"examples": 300, "metrics": {"accuracy": 0.9}, "not_finite": {}}
    assert found["evaluations"][0]["missing"] == {"c3": "it is gone"}
    assert [each["metrics"]["accuracy"] for each in found["rounds"]] == pytest.approx([0.1, 0.1])


def scalars_in(folder: Path) -> Callable[[str, str], list[tuple[int, float]]]:
    """Read, as TensorBoard does, the steps and values of a tag at a place."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(place: str, tag: str) -> list[tuple[int, float]]:
        found = EventAccumulator(str(folder / place), size_guidance={"scalars": 0})
        found.Reload()
        return [(each.step, pytest.approx(each.value)) for each in found.Scalars(tag)]

    return scalars


def test_tensorboard(run: Driven, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    scalars = scalars_in(tmp_path / "tb" / run.runs.run)
    assert "2 rounds and 2 evaluations" in exported(run, TensorBoardTracker(tmp_path / "tb", print))
    round_of(run)  # of which the model is not judged yet
    assert exported(run, TensorBoardTracker(tmp_path / "tb", print)).startswith("1 round of run")
    run.judge({"c1": C1})
    assert exported(run, TensorBoardTracker(tmp_path / "tb", print)).startswith("1 evaluation of run")
    assert "nothing is new" in exported(run, TensorBoardTracker(tmp_path / "tb", print))
    assert scalars("evaluation", "evaluation/accuracy") == [(1, 0.7), (2, 0.7), (3, 0.5)]
    assert scalars("evaluation-weighted", "evaluation/accuracy") == [(1, 0.8), (2, 0.8), (3, 0.5)]
    assert scalars("evaluation-sites/c2", "evaluation/accuracy") == [(1, 0.9), (2, 0.9)]
    for place, tag in (("evaluation-sites/c1", "evaluation/pooled/accuracy"), ("sites/c1", "pooled/accuracy")):
        with pytest.raises(KeyError):
            scalars(place, tag)
    assert scalars("merged", "accuracy") == [(1, 0.1), (2, 0.1), (3, 0.1)]
    assert scalars("merged", "evaluation/accuracy (metric)") == [(1, 0.2), (2, 0.2), (3, 0.2)]


def test_tensorboard_has_evaluations_on_the_operators_data_at_their_rounds(run: Driven, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    exported(run, TensorBoardTracker(tmp_path / "tb", print))
    judged_centrally(run, lambda: TensorBoardTracker(tmp_path / "tb", print))
    scalars = scalars_in(tmp_path / "tb" / run.runs.run)
    assert sorted(scalars("evaluation-central", "evaluation/accuracy")) == [(3, 0.3), (4, 0.4), (5, 0.5)]
    assert sorted(scalars("evaluation-central", "evaluation/pooled/auc")) == [(3, 0.9), (4, 0.9), (5, 0.9)]
    assert sorted(scalars("evaluation-central", "flavor/examples")) == [(3, 50), (4, 50), (5, 50)]
    assert scalars("evaluation", "evaluation/accuracy") == [(1, 0.7), (2, 0.7), (3, 0.5), (4, 0.5), (5, 0.5)]


def test_tensorboard_has_metrics_that_are_called_like_computed_columns_apart(run: Driven, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run.open(["c1", "c2"])
    run.accept("c1", 10, {"accuracy": 0.5, "accuracy (sites)": 7.0})
    run.accept("c2", 10, {"accuracy (sites)": 9.0})
    run.close()
    run.judge({"c1": (100, {"accuracy": 0.5, "accuracy (lowest)": 3.0}), "c2": C2})
    exported(run, TensorBoardTracker(tmp_path / "tb", print))
    scalars = scalars_in(tmp_path / "tb" / run.runs.run)
    assert scalars("merged", "accuracy (sites)") == [(3, 1)]
    for place in ("merged", "merged-weighted"):
        assert scalars(place, "accuracy (sites) (metric)") == [(3, 8)]
    assert scalars("evaluation", "evaluation/accuracy (lowest)")[-1] == (3, 0.5)
    for place in ("evaluation", "evaluation-weighted"):
        assert scalars(place, "evaluation/accuracy (lowest) (metric)") == [(3, 3.0)]


def test_mlflow(run: Driven, mlflow_url: str) -> None:
    from mlflow.tracking import MlflowClient

    def tracker() -> MlflowTracker:
        return MlflowTracker(mlflow_url, "judged", model=None, has_model=False, tell=print)

    assert "2 rounds and 2 evaluations" in exported(run, tracker())
    round_of(run)
    run.judge({"c1": C1})
    assert "1 round and 1 evaluation" in exported(run, tracker())
    assert "nothing is new" in exported(run, tracker())
    client = MlflowClient(mlflow_url)
    experiment = client.get_experiment_by_name("judged")
    assert experiment is not None
    found = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}

    def values(name: str, metric: str) -> list[tuple[int, float]]:
        history = client.get_metric_history(found[name].info.run_id, metric)
        return [(each.step, pytest.approx(each.value)) for each in history]

    parent = run.runs.run
    assert values(parent, "evaluation/accuracy") == [(1, 0.7), (2, 0.7), (3, 0.5)]
    assert values(parent, "evaluation/weighted/accuracy") == [(1, 0.8), (2, 0.8), (3, 0.5)]
    assert values("c2", "evaluation/accuracy") == [(1, 0.9), (2, 0.9)]
    assert values(parent, "accuracy") == [(1, 0.1), (2, 0.1), (3, 0.1)]
    assert values(parent, "evaluation/flavor/sites") == [(1, 2), (2, 2), (3, 1)]
    told = {name.removeprefix("evaluation/") for name in found["c1"].data.metrics}
    assert "accuracy" in told
    assert not told & {*CLAIMS, "weighted/accuracy"}, "no name of flavor's is a site's"


def test_mlflow_has_evaluations_on_the_operators_data_at_their_rounds(run: Driven, mlflow_url: str) -> None:
    from mlflow.tracking import MlflowClient

    def tracker() -> MlflowTracker:
        return MlflowTracker(mlflow_url, "judged centrally", model=None, has_model=False, tell=print)

    exported(run, tracker())
    judged_centrally(run, tracker)
    client = MlflowClient(mlflow_url)
    experiment = client.get_experiment_by_name("judged centrally")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run.runs.run}'")

    def values(metric: str) -> list[tuple[int, float]]:
        history = client.get_metric_history(found.info.run_id, metric)
        return sorted((each.step, each.value) for each in history)

    assert values("evaluation/central/accuracy") == [(3, 0.3), (4, 0.4), (5, 0.5)]
    assert values("evaluation/flavor/central/examples") == [(3, 50), (4, 50), (5, 50)]
    assert values("evaluation/flavor/central/round") == [(3, 3), (4, 4), (5, 5)]
    assert [step for step, _ in values("evaluation/accuracy")] == [1, 2, 3, 4, 5]
