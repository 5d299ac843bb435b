"""The trainer's face without a server: what it imports, its files, its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flavor.cook import utils
from flavor.errors import AggregatorFailed, BusUnavailable, InvalidInfo, InvalidSetting, MissingVariable, UnknownEvent
from flavor.programs.finished_mark import mark_path
from flavor.records.names import Event

GOOD = {
    "metadata": {"epoch": 0, "datasetSize": 5, "importance": 1.0},
    "metrics": {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")},
}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FLAVOR_RUN", "FLAVOR_CLIENT", "FLAVOR_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(tmp_path / "local" / "model.ckpt"))
    monkeypatch.setenv("GLOBAL_MODEL_PATH", str(tmp_path / "global" / "model.ckpt"))
    monkeypatch.setenv("OUTPUT_PATH", str(tmp_path / "output"))
    monkeypatch.setattr(utils._Session, "_instance", None)
    return tmp_path


def test_the_public_face_is_pinned() -> None:
    assert sorted(utils.__all__) == [
        "CleanAllEvent", "CleanEvent", "CleanInfoJson", "EventSet", "GetPaths", "IsSetEvent", "LoadGlobalInfoJson",
        "PathSet", "Report", "SaveGlobalInfoJson", "SaveInfoJson", "SetEvent", "SetPaths", "TimeLeft", "WaitEvent",
    ]  # fmt: skip


def test_importing_costs_redis_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text("raise SystemExit('imported the workers of the trainer')")
    (tmp_path / "aggregators.py").write_text("raise SystemExit('imported the aggregators of the trainer')")
    code = (
        "import sys, flavor.cook.utils, flavor.bus.events;"
        "bad = {'numpy', 'torch', 'rq', 'pydantic', 'click', 'rich', 'workers', 'aggregators'} & set(sys.modules);"
        "sys.exit(' '.join(bad) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_may_be_called_as_what_a_dataclass_imports(tmp_path: Path) -> None:
    """It is in the place of that module then, and imports this one in the midst of its own import."""
    script = tmp_path / "copy.py"
    script.write_text("from flavor.cook.utils import GetPaths\nprint(GetPaths.__name__)")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "GetPaths\n", "")


@pytest.mark.parametrize("role", ["evaluator", "aggregator"])
def test_no_deadline_holds_for_a_script_that_trains_nothing(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAVOR_ROLE", role)
    monkeypatch.delenv("FLAVOR_REDIS_URL", raising=False)
    assert utils.TimeLeft() is None
    monkeypatch.delenv("FLAVOR_ROLE")
    with pytest.raises(MissingVariable, match="FLAVOR_REDIS_URL"):
        utils.TimeLeft()


def test_saving_info_and_removing_it(environment: Path) -> None:
    utils.SaveInfoJson(GOOD)
    path = environment / "local" / "info.json"
    assert json.loads(path.read_text()) == GOOD
    with pytest.raises(InvalidInfo, match="epoch is missing"):
        utils.SaveInfoJson({"metadata": {"datasetSize": 1, "importance": 1}, "metrics": GOOD["metrics"]})
    with pytest.raises(InvalidInfo, match="datasetSize is absurdly large: 1000000000000 examples at most are taken"):
        utils.SaveInfoJson({**GOOD, "metadata": {**GOOD["metadata"], "datasetSize": 2**62}})
    assert json.loads(path.read_text()) == GOOD
    assert [item.name for item in path.parent.iterdir()] == ["info.json"]
    utils.CleanInfoJson()
    utils.CleanInfoJson()
    assert not path.exists()


def test_the_global_info_is_absent_before_the_first_round(environment: Path) -> None:
    assert utils.LoadGlobalInfoJson() is None
    (environment / "global").mkdir()
    (environment / "global" / "info.json").write_text('{"metrics": {}}')
    assert utils.LoadGlobalInfoJson() == {"metrics": {}}


def test_paths(environment: Path) -> None:
    with pytest.raises(InvalidSetting, match="nothing has set"):
        utils.GetPaths("localModels")
    utils.SetPaths("localModels", ["/a", environment / "b"])
    assert utils.GetPaths("localModels") == ["/a", str(environment / "b")]
    with pytest.raises(InvalidSetting, match="localModels, localInfos, globalModel, globalInfo"):
        utils.GetPaths("models")


@pytest.mark.parametrize("call", [utils.SetEvent, utils.WaitEvent, utils.IsSetEvent, utils.CleanEvent])
def test_wrong_events_and_missing_variables(environment: Path, call: object) -> None:
    with pytest.raises(UnknownEvent, match="TrainInitDone, TrainStarted"):
        call("Nonsense")  # type: ignore[operator]
    with pytest.raises(MissingVariable, match="FLAVOR_REDIS_URL is not set: run this script through"):
        call("TrainStarted")  # type: ignore[operator]


def test_a_negative_timeout(environment: Path) -> None:
    with pytest.raises(InvalidSetting, match="timeout_s"):
        utils.WaitEvent("TrainStarted", -1)


# -- an aggregator's


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """The environment of an aggregator that is started anew in each round."""
    for name in ("FLAVOR_REDIS_URL", "FLAVOR_RUN", "FLAVOR_CLIENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLAVOR_ROLE", "aggregator")
    monkeypatch.setenv("OUTPUT_PATH", str(tmp_path))


def test_the_end_of_an_aggregator_that_is_started_anew_needs_no_event(anew):
    utils.SetEvent("ProcessFinished")  # and harms nothing


@pytest.mark.parametrize("call", [utils.SetEvent, utils.WaitEvent, utils.IsSetEvent, utils.CleanEvent])
@pytest.mark.parametrize("event", ["AggregateStarted", "AggregateFinished"])
def test_an_aggregator_that_is_started_anew_has_no_events(anew, call, event):
    with pytest.raises(InvalidSetting, match=r"started anew in each round has no events.*--init-once"):
        call(event)


def test_an_evaluator_has_no_events_and_hears_where_they_may_come_from(monkeypatch):
    monkeypatch.setenv("FLAVOR_ROLE", "evaluator")
    with pytest.raises(InvalidSetting, match=r"has no events.*imports your training script.*if __name__ =="):
        utils.SetEvent("TrainInitDone")


def test_its_error_ends_it(anew):
    with pytest.raises(AggregatorFailed, match="set the event Error"):
        utils.SetEvent("Error")


@pytest.mark.parametrize("paths", ["/a/b c", Path("/a/b c"), ["/a/b c"], (Path("/a/b c"),)])
def test_paths_are_one_or_several(anew, tmp_path, paths):
    utils.SetPaths("globalModel", paths)
    assert utils.GetPaths("globalModel") == ["/a/b c"]
    assert (tmp_path / "globalModel").read_text() == "/a/b c\n"
    assert json.loads((tmp_path / "globalModel.json").read_text()) == ["/a/b c"]


def test_a_path_of_two_lines_is_refused(anew):
    with pytest.raises(InvalidSetting, match="line break"):
        utils.SetPaths("globalModel", "/a\n/b")


@pytest.mark.parametrize(
    ("role", "event", "message"),
    [
        ("", "TrainInitDone", "a trainer sets it itself.*call WaitEvent\\('TrainStarted'\\)"),
        ("", "TrainFinished", "a trainer sets it itself"),
        ("", "AggregateFinished", "a trainer is never sent it"),
        ("", "AggregateStarted", "a trainer is never sent it"),
        ("aggregator", "TrainStarted", "an aggregator is never sent it.*WaitEvent\\('AggregateStarted'\\)"),
        ("aggregator", "AggregateFinished", "an aggregator sets it itself"),
    ],
)
def test_waiting_for_what_never_comes_is_refused(
    environment: Path, monkeypatch: pytest.MonkeyPatch, role: str, event: str, message: str
) -> None:
    monkeypatch.setenv("FLAVOR_ROLE", role)
    monkeypatch.setenv("FLAVOR_REDIS_URL", "unix:///none")  # an aggregator that is started once has a bus
    with pytest.raises(InvalidSetting, match=message):
        utils.WaitEvent(event)


def test_the_names_and_keywords_of_the_ancestor(environment: Path) -> None:
    assert "TrainStarted" in utils.EventSet
    assert "localModels" in utils.PathSet
    utils.SaveInfoJson(info=GOOD)
    utils.SaveInfoJson(output=GOOD)
    utils.SetPaths(filename="globalModel", items="/a/b")
    assert utils.GetPaths(filename="globalModel") == ["/a/b"]
    merged = environment / "merged.json"
    for client in ("site-1", "site-2"):
        (environment / client).mkdir()
        (environment / client / "info.json").write_text(json.dumps(GOOD))
    utils.SaveGlobalInfoJson([str(environment / f"site-{i}" / "info.json") for i in (1, 2)], str(merged))
    found = json.loads(merged.read_text())
    assert found["metadata"]["datasetSize"] == [5, 5]
    assert found["metadata"]["clients"] == ["site-1", "site-2"]


def test_the_merged_information_in_a_folder_with_both_models(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOBAL_MODEL_PATH", str(environment / "local" / "global.ckpt"))
    utils.SaveInfoJson(GOOD)
    assert utils.LoadGlobalInfoJson() is None, "the client's own is not the merged one"
    (environment / "local" / "merged-info.json").write_text('{"metrics": {}}')
    assert utils.LoadGlobalInfoJson() == {"metrics": {}}


def test_an_event_that_could_not_be_set_leaves_no_mark_of_the_files(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script may write again before it sets the event."""
    marks: list[bool] = []

    class Events:
        marks_files = True

        def set(self, event: Event, round_: int) -> None:
            marks.append(mark_path(environment / "local" / "model.ckpt").is_file())
            if len(marks) == 1:
                raise BusUnavailable("away")

    class Session:
        round, finishes, events = None, (Event.TRAIN_FINISHED,), Events()

        def round_of(self, event: Event) -> int:
            return 1

    monkeypatch.setattr(utils._Session, "current", Session)
    utils.SaveInfoJson(GOOD)
    with pytest.raises(BusUnavailable):
        utils.SetEvent("TrainFinished")
    assert not mark_path(environment / "local" / "model.ckpt").exists()
    utils.SetEvent("TrainFinished")
    utils.SetEvent("TrainInitDone")
    assert marks == [True, True, True]


@pytest.mark.parametrize("given", ["a day", "-1", "nan"])
def test_a_patience_that_is_no_time_is_said_with_its_variable(
    environment: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    for name, value in {"REDIS_URL": "redis://127.0.0.1:1", "RUN": "r", "CLIENT": "c", "PATIENCE_S": given}.items():
        monkeypatch.setenv(f"FLAVOR_{name}", value)
    with pytest.raises(InvalidSetting, match=f"FLAVOR_PATIENCE_S must be seconds, 0 or more, and is {given!r}"):
        utils.WaitEvent("TrainStarted")
