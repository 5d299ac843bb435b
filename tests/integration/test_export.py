"""`flavor export`: every tracker has the numbers of metrics.csv, once, whatever happens in between."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.errors import BusUnavailable, FlavorError, InvalidSetting, RunError, TrackerUnavailable
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import Manifest
from flavor.ledger.rounds import closed_rounds, round_fields, round_verdicts
from flavor.records.merging import WEIGHTED
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.results.folder import ResultFolder
from flavor.store.local import LocalStore
from flavor.store.open import open_store
from flavor.store.paths import run_record_path
from flavor.trackers import mlflow_client
from flavor.trackers.export import Export, Exported
from flavor.trackers.files import CsvTracker, JsonTracker
from flavor.trackers.mlflow import MlflowTracker
from flavor.trackers.mlflow_names import mlflow_name
from flavor.trackers.source import RoundSource
from flavor.trackers.tensorboard import TensorBoardTracker
from flavor.trackers.tracker import ClosedRound, Tracker
from flavor.view.history import History
from tests.driven import Driven
from tests.lazy import Lazy
from tests.polled import eventually

reference = Lazy("sklearn.metrics")
TRAINER = Path(__file__).parent / "metrics_trainer.py"
RUN, ROUNDS, SITES = "mammo", 4, ("edge-1", "edge-2")
pytestmark = pytest.mark.timeout(300)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@dataclass
class Made:
    """A finished run: its result folder, and a server with its data."""

    folder: Path
    url: str
    tmp: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def runs(self) -> RunStore:
        return RunStore(connect(self.url), RUN, self.url)

    @property
    def merged(self) -> list[dict[str, str]]:
        return rows(self.folder / "metrics.csv")

    @property
    def of_sites(self) -> list[dict[str, str]]:
        return rows(self.folder / "metrics-sites.csv")

    def export(self, tracker: Tracker, *, store: Path | None = None, folder: bool = True) -> tuple[Export, list[str]]:
        """Export the run in this process; the lines that it tells."""

        @contextlib.contextmanager
        def opened() -> Iterator[Exported]:
            yield Exported(self.runs(), open_store(str(store or self.store)), self.folder if folder else None)

        told: list[str] = []
        made = Export(opened, tracker, told.append)
        made.once()
        return made, told


@pytest.fixture(scope="module")
def made(bench_class, server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    place = bench_class(server, tmp_path_factory.mktemp("export"))
    try:
        command = f"{sys.executable} {TRAINER}"
        words = f"--edges 2 --rounds {ROUNDS} --run {RUN} --out out --set LR=0.1 --set API_KEY=x".split()
        words += ["--set-for", "edge-1", "LR=0.2", "--set-for", "edge-1", "API_TOKEN=sesame"]
        done = place.done("flavor", "run", "-m", command, *words, timeout_s=120, env={"FLAVOR_REDIS_URL": None})
        assert done.wait() == 0, done.stderr
        folder = place.work / "out"
        with embedded_server(append_only=True, folder=folder / "redis") as url:
            yield Made(folder, url, place.folder)
    finally:
        place.close()


# -- files


def test_tables_are_those_of_the_result_folder(made: Made, tmp_path: Path) -> None:
    for source in (True, False):  # from the folder, and from Redis and the store alone
        target = tmp_path / f"{source}.csv"
        for new, summary in ((ROUNDS, f"{ROUNDS} rounds of run {RUN} written"), (0, f"nothing is new in run {RUN}")):
            exported, told = made.export(CsvTracker(target, print), folder=source)
            assert told == []
            assert (exported.written, exported.summary()) == (new, summary)
            assert target.read_bytes() == (made.folder / "metrics.csv").read_bytes()
            sites = target.with_name(f"{source}-sites.csv")
            assert sites.read_bytes() == (made.folder / "metrics-sites.csv").read_bytes()
    assert len(made.merged) == ROUNDS, "there is something to compare"


def test_pooled_metrics_are_in_the_tables_and_lists_are_not(made: Made) -> None:
    for row in made.merged:
        number = int(row["round"])
        scores = [0.2, 0.5, 0.1 * number, 0.2, 0.8, 0.1 * number]
        auc = reference.roc_auc_score([0, 1, 1] * 2, scores)
        assert float(row["pooled/nodule/auc"]) == pytest.approx(auc, abs=1e-12)
        assert row["count/missed"] == "3"
    for table in (made.merged, made.of_sites):
        assert not [name for name in table[0] if name.startswith("count/") and name != "count/missed"]
        assert "[" not in "".join(cell for row in table for cell in row.values())
    for summary in made.runs().summaries():
        assert "pooled/nodule/auc" in json.loads(summary)["metrics"]
        assert "count/nodule" not in summary
    info = json.loads((made.folder / "info" / "round-0001.json").read_text())
    assert info["metrics"]["count/nodule/binary/positives"][100] == 2
    assert "notMerged" not in info["metadata"]


def test_json_has_the_rounds_with_the_digests_of_their_manifests(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "m.json"
    for new in (ROUNDS, 0):
        assert made.export(JsonTracker(target, print))[0].written == new
    found = json.loads(target.read_text())
    assert [found[name] for name in ("run", "state")] == [RUN, "finished"]
    assert found["settings"]["rounds"] == str(ROUNDS)
    assert str(made.tmp) not in target.read_text(), "no path of this machine leaves it"
    assert found["settings"]["set/LR"] == "0.1"
    assert found["settings"]["set/LR/edge-1"] == "0.2"
    assert all("secret" in found["settings"][name] for name in ("set/API_KEY", "set/API_TOKEN/edge-1"))
    assert "sesame" not in target.read_text()
    summary = json.loads((made.folder / "summary.json").read_text())
    theirs = [{name: each[name] for name in summary["rounds"][0]} for each in found["rounds"]]
    assert theirs == summary["rounds"]
    for each in found["rounds"]:
        manifest = made.store / "runs" / RUN / "manifests"
        assert each["manifest"] in {hashlib.sha256(path.read_bytes()).hexdigest() for path in manifest.iterdir()}
    assert len({each["manifest"] for each in found["rounds"]}) == ROUNDS


def test_what_the_store_has_no_more_stays_in_the_file(made: Made, tmp_path: Path) -> None:
    """A run keeps information of some rounds only: an export each day must not empty what it wrote the day before."""
    store = tmp_path / "store"
    shutil.copytree(made.store, store)
    table, whole = tmp_path / "m.csv", tmp_path / "m.json"
    new = tmp_path / "new.csv"
    for tracker in (CsvTracker(table, print), JsonTracker(whole, print)):
        made.export(tracker, store=store, folder=False)
    before = {path: path.read_bytes() for path in (table, tmp_path / "m-sites.csv")}
    rounds = json.loads(whole.read_text())["rounds"]
    pruned = [path for path in store.rglob("*") if path.name.startswith(("0001", "0002")) and "-info-" in path.name]
    assert len(pruned) == 2 * (1 + len(SITES)), pruned
    for path in pruned:
        path.unlink()
    for tracker in (CsvTracker(table, print), JsonTracker(whole, print)):
        again, told = made.export(tracker, store=store, folder=False)
        assert again.written == 0
        assert any("2 rounds, 1 to 2: the merged information is no longer in the store" in line for line in told), told
    assert {path: path.read_bytes() for path in before} == before
    assert json.loads(whole.read_text())["rounds"] == rounds
    made.export(CsvTracker(new, print), store=store, folder=False)
    assert [bool(row["loss"]) for row in rows(new)] == [False, False, True, True], "they were gone"
    assert made.export(CsvTracker(new, print), folder=False)[0].written == 2, "what they lacked is new"


def test_a_file_that_is_not_the_runs_export_is_left_alone(made: Made, tmp_path: Path) -> None:
    table, other = tmp_path / "t.csv", tmp_path / "o.json"
    made.export(CsvTracker(table, print))
    made.export(JsonTracker(other, print))
    loss = made.merged[0]["loss"]
    assert loss in table.read_text()
    table.write_text(table.read_text().replace(loss, "0.25", 1))
    other.write_text(other.read_text().replace('"run_id": "', '"run_id": "0'))
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for tracker, said in (
        (CsvTracker(table, print), "the file holds the rounds of another run: name another file"),
        (JsonTracker(other, print), "the file holds the rounds of another run: name another file"),
        (CsvTracker(notes, print), "notes.txt: the file is there already and is no export of flavor"),
        (JsonTracker(notes, print), "notes.txt: the file is there already and is no export of flavor"),
        (JsonTracker(tmp_path, print), "it is a folder: name a file"),
        (CsvTracker(tmp_path / "none" / "x.csv", print), "there is no folder"),
        (CsvTracker(Path(os.devnull), print), "it is no regular file"),
    ):
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(InvalidSetting, match=said):
            made.export(tracker)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_round_has_the_same_seconds_wherever_it_is_read(made: Made, tmp_path: Path) -> None:
    """Also once Redis has pruned it: its manifest was signed before Redis closed the round, and has an earlier time."""
    shutil.copytree(made.folder / "redis", tmp_path / "redis", ignore=shutil.ignore_patterns("s"))
    table, whole, folder = tmp_path / "m.csv", tmp_path / "m.json", tmp_path / "folder"
    with embedded_server(append_only=True, folder=tmp_path / "redis") as url:
        pruned = Made(made.folder, url, made.tmp)
        runs, store = pruned.runs(), open_store(str(pruned.store))
        seconds = [row.seconds for row in History(runs, store).strip()]
        assert seconds == [float(row["seconds"]) for row in made.merged]
        manifests = [RoundView.from_hash(n, *recorded(made, n)).closed_ms for n in (1, 2)]
        assert manifests != [each.closed_ms for each in closed_rounds(runs, store)][:2], "there is something to see"
        pruned.export(JsonTracker(whole, print), folder=False)
        before = json.loads(whole.read_text())["rounds"]
        runs.forget_round(1, SITES, whole=True)
        runs.forget_round(2, SITES)
        runs.redis.delete(runs.keys.verdicts(2))
        for tracker in (CsvTracker(table, print), JsonTracker(whole, print)):
            pruned.export(tracker, folder=False)
        assert rows(table) == made.merged
        assert json.loads(whole.read_text())["rounds"] == before
        ResultFolder(folder, print).update(runs, store, runs.read())
        assert rows(folder / "metrics.csv") == made.merged
        assert [row.seconds for row in History(runs, store).strip()] == seconds
        summary = runs.summaries()
        runs.redis.delete(runs.keys.closed)
        runs.redis.rpush(runs.keys.closed, *summary[1:])  # an earlier release has closed round 2
        assert [each.closed_ms for each in closed_rounds(runs, store)][1:] == [each["closed_ms"] for each in before[1:]]
        runs.redis.delete(runs.keys.closed)
        pruned.export(CsvTracker(table, print), folder=False)  # as after `flavor recover`: no other run
        changed = [{**row, "seconds": ""} for row in rows(table)]
        assert changed == [{**row, "seconds": ""} for row in made.merged]
        gone = tmp_path / "none"
        shutil.copytree(made.store, gone, ignore=shutil.ignore_patterns("0001*", "0002*"))
        pruned.export(JsonTracker(whole, print), store=gone, folder=False)
        kept = json.loads(whole.read_text())["rounds"]
        assert [each["manifest"] for each in kept] == [each["manifest"] for each in before], "they stay in the file"


def recorded(made: Made, round_: int) -> tuple[dict[str, str], Mapping[str, str]]:
    """What the manifest of a round alone says."""
    data = Archive(open_store(str(made.store)), RUN).data(round_)
    assert data is not None
    manifest = Manifest.parse(data, "manifest")
    return round_fields(manifest, ObjectRef("manifest", manifest.digest)), round_verdicts(manifest)


# -- TensorBoard


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(each.step, each.value) for each in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def float32(value: str) -> float:
    return float(np.float32(float(value)))


def test_tensorboard_reads_the_numbers_of_the_table_once(made: Made, tmp_path: Path) -> None:
    for _ in range(2):
        made.export(TensorBoardTracker(tmp_path / "tb", print))
    out = tmp_path / "tb" / RUN
    merged, weighted = scalars(out / "merged"), scalars(out / "merged-weighted")
    names = [head for head in made.merged[0] if head not in ("round", "seconds", "clients", "examples", "bytes")]
    own = {"seconds": "seconds", "sites": "clients", "examples": "examples", "bytes": "bytes"}
    for tag, column in own.items():
        assert merged[f"flavor/{tag}"] == [(int(row["round"]), float32(row[column])) for row in made.merged]
    seen = 0
    for head in names:
        name = head.removeprefix("'").removesuffix(WEIGHTED)
        tag = f"{name} (metric)" if name.startswith("flavor/") else name
        expected = [(int(row["round"]), float32(row[head])) for row in made.merged if row[head]]
        assert (weighted if head.endswith(WEIGHTED) else merged)[tag] == expected, head
        seen += 1
    assert seen == len(merged) + len(weighted) - len(own)
    for site in SITES:
        of = [row for row in made.of_sites if row["site"] == site]
        found = scalars(out / "sites" / site)
        assert found["loss"] == [(int(row["round"]), float32(row["loss"])) for row in of]
        assert found["flavor/examples"] == [(int(row["round"]), float32(row["examples"])) for row in of]
        assert [tag for tag in found if "confusion" in tag] == ["basic/confusion_tp"], "-1 is for what is not counted"
        assert {row["basic/confusion_fp"] for row in of} == {"-1"}


def test_tensorboard_goes_on_after_a_torn_event(made: Made, tmp_path: Path) -> None:
    made.export(TensorBoardTracker(tmp_path, print))
    folders = [tmp_path / RUN / "merged", tmp_path / RUN / "merged-weighted", *(tmp_path / RUN / "sites").iterdir()]
    before = [scalars(folder) for folder in folders]
    file = next(folders[0].glob("events*"))
    os.truncate(file, file.stat().st_size - 10)
    file.rename(file.with_name("events.out.tfevents.0000000001.host.1"))  # as one of an earlier process
    exported, _ = made.export(TensorBoardTracker(tmp_path, print))
    assert exported.written == 1
    assert [scalars(folder) for folder in folders] == before


def test_a_folder_of_another_run_takes_no_events(made: Made, tmp_path: Path) -> None:
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "note").touch()
    with pytest.raises(InvalidSetting, match="is not empty and is no export of flavor"):
        made.export(TensorBoardTracker(tmp_path, print))
    (tmp_path / RUN / "note").unlink()
    made.export(TensorBoardTracker(tmp_path, print))
    mark = tmp_path / RUN / ".flavor-export.json"
    held = json.loads(mark.read_text())
    mark.write_text(json.dumps({**held, "run_id": "other"}))
    with pytest.raises(InvalidSetting, match="holds another run 'mammo': name another folder"):
        made.export(TensorBoardTracker(tmp_path, print))
    mark.write_text(json.dumps({**held, "manifest": "0" * 64}))
    with pytest.raises(RunError, match="holds round 4 of run 'mammo', which the run has made again since"):
        made.export(TensorBoardTracker(tmp_path, print))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting, match="Not a directory"):
        made.export(TensorBoardTracker(tmp_path / "file", print))


# -- MLflow


def history(client, run: str, name: str) -> list[tuple[int, float, int]]:
    return [(each.step, each.value, each.timestamp) for each in client.get_metric_history(run, name)]


def exported_to(made: Made, url: str, experiment: str, **options) -> list[str]:
    told: list[str] = []
    tracker = MlflowTracker(url, experiment, **{"model": None, "has_model": True, **options}, tell=told.append)
    return told + made.export(tracker)[1]


def test_mlflow_has_the_numbers_of_the_table_once_and_the_model(made: Made, mlflow_url: str, tmp_path: Path) -> None:
    first = exported_to(made, mlflow_url, "once")
    assert any("'f1 (macro, %)': it is 'f1 _macro" in line for line in first), first
    assert sum("registered the final model as version 1 of 'mammo'" in line for line in first) == 1
    assert not any("registered" in line for line in exported_to(made, mlflow_url, "once"))
    import mlflow
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow_url)
    runs = client.search_runs([client.get_experiment_by_name("once").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert sorted(by_name) == sorted([RUN, *SITES])
    assert len(runs) == 3
    parent = by_name[RUN]
    closed_ms = [each["closed_ms"] for each in json_rounds(made, tmp_path)]
    fixed = {"seconds": "seconds", "clients": "sites", "examples": "examples", "bytes": "bytes"}
    for head in made.merged[0]:
        name = f"flavor/{fixed.get(head, head)}" if head in (*fixed, "round") else mlflow_name(head.removeprefix("'"))
        rows_ = [
            (int(row["round"]), float(row[head]), closed_ms[int(row["round"]) - 1]) for row in made.merged if row[head]
        ]
        assert history(client, parent.info.run_id, name) == rows_, head
    for site in SITES:
        child = by_name[site]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for head in (
            "examples",
            "bytes",
            "basic/confusion_tp",
            "loss",
            "f1 (macro, %)",
            "val/auc",
            "'=cmd()",
            "flavor/round",
            "weighted/loss",
        ):
            name = f"flavor/{head}" if head in ("examples", "bytes") else mlflow_name(head.removeprefix("'"))
            of = [(int(row["round"]), float(row[head])) for row in made.of_sites if row["site"] == site]
            assert [each[:2] for each in history(client, child.info.run_id, name)] == of, head
        assert "basic/confusion_fp" not in child.data.metrics, "-1 is for what is not counted"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.params["rounds"] == str(ROUNDS)
    assert parent.data.params["set/LR"] == "0.1"
    assert "secret" in parent.data.params["set/API_KEY"]
    digests = [f"{each['round']} {each['manifest']}" for each in json_rounds(made, tmp_path)]
    assert parent.data.tags["flavor.manifests.0001-0050"].splitlines() == digests
    assert parent.data.tags["flavor.manifest"] == digests[-1].split()[1]
    assert parent.data.tags["flavor.contributors"] == ", ".join(SITES)
    versions = client.search_model_versions(f"name='{RUN}'")
    assert [version.tags["flavor.round"] for version in versions] == [str(ROUNDS)]
    mlflow.set_tracking_uri(mlflow_url)
    got = Path(mlflow.artifacts.download_artifacts(f"models:/{RUN}/1", dst_path=str(tmp_path / "got")))
    own = next(made.folder.glob("global_model.*"))
    assert (got / own.name).read_bytes() == own.read_bytes()


def json_rounds(made: Made, folder: Path) -> list[dict]:
    target = folder / "rounds.json"
    if not target.exists():
        made.export(JsonTracker(target, print))
    return json.loads(target.read_text())["rounds"]


def test_an_interrupted_export_to_mlflow_goes_on(made: Made, mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is cut off, the next export leaves what one without an interruption leaves."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow_url)
    exported_to(made, mlflow_url, "uncut", has_model=False)

    def all_of(experiment: str) -> list:
        runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        return sorted(
            (
                run.info.run_name,
                run.info.status,
                sorted(run.data.params.items()),
                sorted((name, value) for name, value in run.data.tags.items() if not name.startswith("mlflow.")),
                sorted((name, history(client, run.info.run_id, name)) for name in run.data.metrics),
            )
            for run in runs
        )

    calls = ("create_run", "log_batch", "set_terminated")
    originals = {name: getattr(MlflowClient, name) for name in calls}
    whole, cut = all_of("uncut"), 0
    assert len(whole) == 3
    for allowed in (2, 5, 9):  # requests that are made: those of the run itself, of one site, nearly all
        left = [allowed]

        def counting(name: str, left: list[int] = left) -> Callable:
            def call(self, *given, **named):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return originals[name](self, *given, **named)

            return call

        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(MlflowClient, name, counting(name))
            try:
                exported_to(made, mlflow_url, f"cut-{allowed}", has_model=False)
            except KeyboardInterrupt:
                cut += 1
        exported_to(made, mlflow_url, f"cut-{allowed}", has_model=False)
        assert all_of(f"cut-{allowed}") == whole, allowed
    assert cut == 3


def test_another_run_of_the_name_keeps_its_place_in_mlflow(made: Made, mlflow_url: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow_url)
    client.create_run(client.create_experiment("taken"), run_name=RUN)
    with pytest.raises(InvalidSetting, match=r"experiment 'taken' holds another run 'mammo' \(\w+\): name another exp"):
        exported_to(made, mlflow_url, "taken")
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(InvalidSetting, match="experiment 'gone' is deleted there"):
        exported_to(made, mlflow_url, "gone")


def test_a_server_that_cannot_be_used_is_named_in_a_line_without_secrets(
    made: Made, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_client, "_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        wrong: list[tuple[str, type[FlavorError], str]] = [
            (f"http://127.0.0.1:{port}", TrackerUnavailable, "does not answer within 0.5 s"),
            ("http://127.0.0.1:1", TrackerUnavailable, "it refuses the connection"),
            (f"{mlflow_url}/elsewhere", InvalidSetting, "there is a server, and no MLflow under this address"),
            ("htp://somewhere", InvalidSetting, "the scheme of the URI is none of http"),
            ("http://[somewhere", InvalidSetting, "the URI cannot be used: Invalid IPv6 URL"),
            ("http://somewhere:port", InvalidSetting, "the URI cannot be used"),
            ("http://me:secret@somewhere", InvalidSetting, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
            ("", InvalidSetting, "the URI is empty"),
            ("runs", InvalidSetting, "MLflow does not keep runs in folders any more"),
        ]
        for uri, kind, said in wrong:
            with pytest.raises(kind) as caught:
                exported_to(made, uri, "x")
            assert said in str(caught.value), uri
            assert "\n" not in str(caught.value)
            assert "secret" not in str(caught.value)


# -- following


def test_an_export_follows_a_run_across_a_redis_that_goes_away(made: Made, tmp_path: Path) -> None:
    """The run stands still after round 2; its Redis goes away and comes back; then the run goes on and ends."""
    folder = tmp_path / "redis"
    shutil.copytree(made.folder / "redis", folder, ignore=shutil.ignore_patterns("*.sock", "s", "lock", "url"))
    target, told = tmp_path / "m.csv", list[str]()
    table = (made.folder / "metrics.csv").read_text().splitlines(keepends=True)

    def written() -> int:
        return len(target.read_text().splitlines()) - 1 if target.exists() else 0

    def until(what: str, look: Callable[[], bool]) -> None:
        eventually(what, look, 60, told=lambda: told)

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(embedded_server(append_only=True, folder=folder))
        redis = connect(url)
        runs = RunStore(redis, RUN, url)
        redis.hset(runs.keys.state, mapping={"state": "running", "round": "2"})

        @contextlib.contextmanager
        def opened() -> Iterator[Exported]:
            with contextlib.closing(connect(url, patience_s=0.5)) as own:
                yield Exported(RunStore(own, RUN, url), open_store(str(made.store)))

        exported = Export(opened, CsvTracker(target, told.append), told.append)
        thread = threading.Thread(target=exported.follow, daemon=True)
        thread.start()
        until("rounds 1 and 2", lambda: written() == 2)
        stack.close()
        until("the outage is told", lambda: any("waiting, and trying again" in line for line in told))
        stack.enter_context(embedded_server(append_only=True, folder=folder))
        redis.hset(runs.keys.state, "round", "3")
        until("round 3", lambda: written() == 3)
        assert thread.is_alive(), "the run goes on"
        until("it is told that the export goes on", lambda: "going on" in told)
        redis.hset(runs.keys.state, mapping={"state": "finished", "round": "4"})
        redis.xadd(runs.keys.log, {"event": "run.finished", "reason": "all 4 rounds are closed"})
        thread.join(60)
        assert not thread.is_alive()
        assert exported.is_over
        redis.close()
    assert target.read_text().splitlines(keepends=True) == table
    assert sum("waiting, and trying again" in line for line in told) == 1


class Remade:
    """A run of one site, and the export that follows it while the run is removed, or rebuilt from its store."""

    def __init__(self, url: str, tmp_path: Path, kind: type[CsvTracker | JsonTracker]) -> None:
        self.url, self.folder, self.target = url, tmp_path, tmp_path / "out"
        self.begin([1.0, 2.0])
        self.export = Export(lambda: contextlib.nullcontext(self.opened()), kind(self.target, print), print)
        self.export.once()
        self.held = self.target.read_text()

    def opened(self) -> Exported:
        return Exported(self.run.runs, open_store(self.run.config.store))

    def begin(self, losses: Sequence[float]) -> None:
        """Begin another run of the name on a server that has lost everything."""
        connect(self.url).flushall()
        folder = self.folder / f"store-{losses[0]}"
        self.run = Driven(self.url, LocalStore(folder, create=True), run="again")
        path = folder / run_record_path("again")
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        for loss in losses:
            self.close_round(loss)

    def close_round(self, loss: float) -> None:
        self.run.open(["a"])
        self.run.accept("a", 10, {"loss": loss})
        self.run.close()
        self.sign(self.run.round, f"{loss:064.0f}")

    def sign(self, round_: int, digest: str) -> None:
        """Give a round a manifest."""
        keys = self.run.runs.keys
        self.run.runs.redis.hset(keys.round(round_), mapping={"manifest_path": "m.json", "manifest_digest": digest})

    def refuse(self, why: str) -> None:
        """The next look of the export is refused, and changes nothing."""
        with pytest.raises(RunError, match=why):
            self.export.once()
        assert self.target.read_text() == self.held, "nothing of the other run stands beside the rounds of the first"


@pytest.mark.parametrize("kind", [CsvTracker, JsonTracker])
def test_an_export_does_not_go_on_with_another_run_of_the_name(
    url: str, tmp_path: Path, kind: type[CsvTracker | JsonTracker]
) -> None:
    made = Remade(url, tmp_path, kind)
    made.begin([101.0, 102.0, 103.0])
    made.refuse("was removed, and another run has its name now: export that one to another place than .*/out")


def test_an_export_does_not_write_what_it_read_while_the_run_was_made_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Remade(url, tmp_path, CsvTracker)
    made.close_round(3.0)
    after = RoundSource.after

    def late(source: RoundSource, last: int, view: RunView) -> Iterator[ClosedRound]:
        monkeypatch.undo()
        made.begin([101.0, 102.0, 103.0])
        return after(source, last, view)

    monkeypatch.setattr(RoundSource, "after", late)
    made.refuse("another run has its name now")


def test_an_export_does_not_wait_for_a_key_that_has_another_type(url: str, tmp_path: Path) -> None:
    made = Remade(url, tmp_path, CsvTracker)
    made.run.runs.redis.delete(made.run.runs.keys.log)
    made.run.runs.redis.set(made.run.runs.keys.log, "x")
    with pytest.raises(BusUnavailable, match="WRONGTYPE"):
        made.export.follow()


def test_an_export_goes_on_with_a_run_that_was_rebuilt_only_from_the_same_rounds(url: str, tmp_path: Path) -> None:
    made = Remade(url, tmp_path, CsvTracker)
    redis, state = made.run.runs.redis, made.run.runs.keys.state
    redis.hset(state, "recovered_ms", 1)
    made.close_round(3.0)
    made.export.once()
    assert [row["loss"] for row in rows(made.target)] == ["1.0", "2.0", "3.0"], "it has the same rounds"
    made.held = made.target.read_text()
    redis.hset(state, "recovered_ms", 2)
    made.sign(3, "9" * 64)
    made.refuse("holds round 3 of run 'again', which the run has made again since: it was rebuilt from the store")
    redis.hset(state, mapping={"recovered_ms": 3, "round": 2})
    redis.delete(made.run.runs.keys.round(3))
    made.refuse("holds round 3 of run 'again', which the run does not have any more")


# -- the command


def test_the_command_says_where_the_export_is(made: Made, bench, tmp_path: Path) -> None:
    env = {"FLAVOR_REDIS_URL": made.url, "FLAVOR_STORE": str(made.store)}
    done = bench.done("flavor", "export", RUN, "--to", "csv", tmp_path / "m.csv", env=env)
    assert (done.wait(), done.stdout) == (0, f"{tmp_path / 'm.csv'} and {tmp_path / 'm-sites.csv'}\n"), done.stderr
    assert done.stderr == "4 rounds of run mammo written\n"
    done = bench.done("flavor", "export", RUN, "--to", "tensorboard", tmp_path / "tb", "--follow", env=env)
    assert done.wait() == 0, done.stderr
    assert scalars(tmp_path / "tb" / RUN / "merged")["loss"][-1][0] == ROUNDS
    for words, code, said in (
        (["nobody", "--to", "csv", tmp_path / "x.csv"], 1, "there is no run 'nobody'"),
        ([RUN, "--to", "csv", tmp_path / "x.csv", "--no-model"], 2, "--no-model is for --to mlflow"),
        ([RUN, "--to", "wandb", "x"], 2, "'wandb' is not one of 'csv', 'json', 'mlflow', 'tensorboard'"),
    ):
        done = bench.done("flavor", "export", *words, env=env)
        assert done.wait() == code, done.stderr
        assert said in done.stderr
        assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(("name", "module"), [("mlflow", "mlflow.tracking"), ("tensorboard", "tensorboard")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    make = {
        "mlflow": lambda: MlflowTracker("http://localhost", "x", model=None, has_model=True, tell=print),
        "tensorboard": lambda: TensorBoardTracker(tmp_path, print),
    }[name]
    with pytest.raises(InvalidSetting, match=rf"needs a library that is not installed: pip install '\.\[{name}\]' in"):
        make()
