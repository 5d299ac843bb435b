"""The worker: what it accepts, what it refuses, and that doing anything twice changes nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from flavor.bus.admission import tell_admission
from flavor.bus.claim import Attempt, Claim
from flavor.bus.connection import connect
from flavor.bus.jobs import RqJobQueue
from flavor.bus.runs import RunStore
from flavor.checkpoints import Inspection, TensorFile, TensorFileWriter, TensorSpec, convert, finite
from flavor.checkpoints.unmapped import WHOLE_BYTES, Unmapped
from flavor.config import SMALL_UPDATE_BYTES, RunConfig
from flavor.errors import BadObjectPath, LocalFault, ObjectMissing, StoreError, StoreFull, StoreUnavailable
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import RunRecord
from flavor.records.admission import Admission
from flavor.records.info import CONFUSION
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import Reference
from flavor.records.states import RoundState
from flavor.records.verdict import Verdict
from flavor.resume import FEDTRAIN
from flavor.rule_settings import COMMAND
from flavor.store.open import open_store
from flavor.store.paths import accepted_path, named, update_prefix
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Lines
from tests.infos import put_info
from tests.polled import eventually
from workers import inspection, jobs, look_tensors
from workers.builtin import Engine
from workers.combiner import RULES, Combined, Work
from workers.context import WorkerContext, set_context
from workers.fault import GivenBack
from workers.own_jobs import OwnQueue
from workers.worker import OwnWorker, make_worker

TOKEN = "coordinator"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def runs(url: str, store: ObjectStore) -> Iterator[RunStore]:
    """A run in its open first round, with the clients a, b and c."""
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    config = RunConfig(rounds=3, min_clients=3, store=store.url)
    record = RunRecord(run="r", run_id="0" * 32, rounds=3, config=config.to_mapping(), initial=None)
    Archive(store, "r").begin(record)
    runs.create(rounds=3, config=config.to_mapping(), run_id=record.run_id)
    redis.set(runs.keys.coordinator, TOKEN)
    open_round(runs, 1)
    set_context(WorkerContext(redis, url, store, name="worker-1"))
    yield runs
    set_context(None)
    redis.close()


def open_round(runs: RunStore, round_: int) -> None:
    runs.open_round(TOKEN, round_, expected=["a", "b", "c"], timeout_s=60, reason="go")


def info(size: int = 100, **metrics: float) -> dict[str, Any]:
    return {
        "metadata": {"epoch": 1, "datasetSize": size, "importance": 1.0},
        "metrics": {**dict.fromkeys(CONFUSION, -1), **metrics},
    }


def submit(
    runs: RunStore,
    store: ObjectStore,
    client: str,
    tensors: dict[str, np.ndarray],
    *,
    size: int = 100,
    round_: int = 1,
    told: dict[str, Any] | bytes | None = None,
    **changes: str,
) -> str:
    """Put an update into the store and into the client's hash, as an edge does; `changes` lie about it.

    `told` is in place of its info.json.
    """
    with store.stage() as staged:
        specs = [TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()]
        with TensorFileWriter(staged, specs) as writer:
            for name, array in writer.map().items():
                array[...] = tensors[name]
        path = named(update_prefix("r", round_, client), "update", writer.sha256, ".safetensors")
        store.put(ObjectRef(path, writer.sha256), staged)
    fields = {
        "path": path,
        "digest": writer.sha256,
        "size": str(writer.size_bytes),
        "format": "npz",
        **put_info(store, update_prefix("r", round_, client), info(size) if told is None else told),
    }
    runs.redis.hset(runs.keys.client(client).update(round_), mapping={**fields, **changes})
    return path


class Archived:
    """A store, some of whose objects cannot be read."""

    def __init__(self, store: ObjectStore, *paths: str, error: Exception | None = None) -> None:
        self._store, self._paths = store, paths
        self._error = error or StoreUnavailable("it is in the archive")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open(self, ref: ObjectRef) -> Path:
        if ref.path in self._paths:
            raise self._error
        return self._store.open(ref)

    def place(self, ref: ObjectRef, destination: Path, **options: Any) -> None:
        if ref.path in self._paths:
            raise self._error
        self._store.place(ref, destination, **options)

    def read(self, ref: ObjectRef, **options: Any) -> bytes:
        if ref.path in self._paths:
            raise self._error
        return self._store.read(ref, **options)

    def read_unverified(self, path: str, **options: Any) -> bytes:
        if path in self._paths:
            raise self._error
        return self._store.read_unverified(path, **options)

    def start(self, path: str, size_bytes: int) -> bytes:
        if path in self._paths:
            raise self._error
        return self._store.start(path, size_bytes)

    def local(self, path: str, **options: Any) -> Path:
        if path in self._paths:
            raise self._error
        return self._store.local(path, **options)


def taken(worker: OwnWorker) -> tuple[Job, Queue]:
    """A job as the worker takes it from its queue, which has one."""
    found = OwnQueue.dequeue_any(
        worker.queues, None, worker.connection, serializer=JSONSerializer, errand=worker.errand
    )
    assert found is not None
    return found


def rewritten(path: Path, content: bytes) -> None:
    """What a site can do to its object, its times set back."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def verdict(runs: RunStore, client: str, round_: int = 1) -> Verdict:
    jobs.inspect("r", round_, [client])
    view = runs.read_round(round_)
    assert view is not None
    return view.verdicts[client]


def decide(runs: RunStore, found: Verdict) -> None:
    """Fix the first round's structure, as the coordinator does once most of its sites agree on it."""
    first = Reference(found.inspected.object.sealed(""), found.structure)
    runs.decide_structure(TOKEN, 1, first, others=(), reason="2 of 3")


def model(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), value, np.float32), "steps": np.array(7, np.int64)}


class TestInspection:
    def test_an_update_of_a_quarantined_site_is_not_looked_at(self, runs: RunStore, store: ObjectStore) -> None:
        """Neither where it was asked for, nor because it arrives while another's is inspected."""
        runs.redis.hset(runs.keys.refusals, "b", 3)
        path = submit(runs, store, "b", model(9))
        submit(runs, store, "a", model(1))
        jobs.inspect("r", 1, ["a", "b"])
        view = runs.read_round(1)
        assert view is not None
        assert set(view.verdicts) == {"a"}
        assert store.exists(path), "it was not even taken"
        runs.pardon("b")
        assert verdict(runs, "b").accepted

    def test_a_good_update_is_accepted_with_what_was_inspected(self, runs: RunStore, store: ObjectStore) -> None:
        path = submit(runs, store, "a", model(1))
        found = verdict(runs, "a")
        assert found.accepted
        assert (found.inspected.object.path, found.inspected.format, found.inspected.num_examples) == (
            accepted_path(path),
            "npz",
            100,
        )
        assert not store.exists(path), "it is out of its site's reach"

    def test_an_update_that_its_round_no_longer_waits_for_is_told_of_as_late(
        self, runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The round begins to aggregate while the update is inspected, which finds nothing wrong with it."""
        told = list[str]()
        submit(runs, store, "b", model(1))
        jobs.inspect("r", 1, ["b"])
        path = submit(runs, store, "a", model(1))
        set_context(WorkerContext(runs.redis, "", store, name="worker-1", observer=Lines(told.append)))

        def reach(name: str) -> None:
            if name == "worker.inspected":
                runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["b"], reason="the deadline")

        monkeypatch.setattr(inspection, "reach", reach)
        jobs.inspect("r", 1, ["a"])
        late = "late: round 1 no longer takes updates"
        assert runs.verdicts(1, ["a"])["a"].reason == late
        assert told == [f"a: the update of round 1 is refused: {late}"]
        assert not store.exists(accepted_path(path)), "what was taken of a refused update is removed"

    def test_an_update_of_a_client_that_was_turned_away_meantime_is_told_of_as_that(
        self, runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its edge is replaced by one of another key, say, while the update is inspected."""
        told = list[str]()
        path = submit(runs, store, "a", model(1))
        set_context(WorkerContext(runs.redis, "", store, name="worker-1", observer=Lines(told.append)))

        def reach(name: str) -> None:
            if name == "worker.inspected":
                tell_admission(runs, "a", Admission(False, "another key"))

        monkeypatch.setattr(inspection, "reach", reach)
        jobs.inspect("r", 1, ["a"])
        assert told == ["round 1: a: the run does not admit its edge, and told it why"]
        assert not store.exists(accepted_path(path))

    def test_one_object_that_cannot_be_read_keeps_no_other_from_being_judged(
        self, runs: RunStore, store: ObjectStore
    ) -> None:
        """As a bucket does with an object in an archive: its neighbours can be read, so that is its own fault."""
        submit(runs, store, "a", model(1))
        broken = submit(runs, store, "b", model(1))
        set_context(WorkerContext(runs.redis, "", Archived(store, accepted_path(broken)), name="worker-1"))
        jobs.inspect("r", 1, ["a", "b"])
        found = runs.verdicts(1, ["a", "b"])
        assert [(found[client].accepted, found[client].reason) for client in "b"] == [(False, "it is in the archive")]
        assert found["a"].accepted

    def test_one_that_stays_away_for_a_while_is_asked_for_again(self, runs: RunStore, store: ObjectStore) -> None:
        submit(runs, store, "a", model(1))
        broken, error = submit(runs, store, "b", model(1)), StoreUnavailable("it answered 503", passing=True)
        set_context(WorkerContext(runs.redis, "", Archived(store, accepted_path(broken), error=error), name="worker-1"))
        with pytest.raises(StoreUnavailable):
            jobs.inspect("r", 1, ["a", "b"])
        assert runs.verdicts(1, ["a", "b"]).keys() == {"a"}

    @pytest.mark.parametrize(
        "error",
        [
            LocalFault("/cache: Permission denied"),
            StoreFull("/store: No space left on device"),
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.ESTALE, "Stale file handle"),
            StoreUnavailable("it does not let us in"),
            ObjectMissing("it is not in the store"),
        ],
    )
    def test_a_fault_of_the_workers_own_is_no_verdict(
        self, runs: RunStore, store: ObjectStore, error: Exception
    ) -> None:
        """What is refused for the run's own record, too, says nothing about any site."""
        handed_in = [submit(runs, store, client, model(1)) for client in "ab"]
        paths = [*handed_in, *map(accepted_path, handed_in)]
        set_context(WorkerContext(runs.redis, "", Archived(store, *paths, "runs/r/run.json", error=error), name="w"))
        said = getattr(error, "strerror", None) or str(error)
        with pytest.raises(GivenBack, match="does not have" if isinstance(error, ObjectMissing) else said):
            jobs.inspect("r", 1, ["a", "b"])
        assert runs.verdicts(1, ["a", "b"]) == {}

    def test_a_store_that_is_not_the_runs_is_not_looked_into(
        self, runs: RunStore, store: ObjectStore, tmp_path: Path
    ) -> None:
        """A share that is not mounted is an empty folder, and another run of the name is not this one."""
        submit(runs, store, "a", model(1))
        runs.redis.hset(runs.keys.state, mapping={"manifest_path": "x", "manifest_digest": "0" * 64})
        for path, said in (
            (tmp_path / "empty", "does not have runs/r/run.json"),
            (tmp_path / "other", "another run's"),
        ):
            other = open_store(str(path), create=True)
            if "another" in said:
                record = RunRecord(run="r", run_id="1" * 32, rounds=3, config={})
                Archive(other, "r").begin(record)
            set_context(WorkerContext(runs.redis, "", other, name="w"))
            with pytest.raises(GivenBack, match=said):
                jobs.inspect("r", 1, ["a"])
        assert runs.verdicts(1, ["a"]) == {}

    def test_an_object_that_changes_while_it_is_inspected_is_refused(
        self, runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between its header, which is good, and its digest, which is that of bad bytes, as it was said."""
        submit(runs, store, "a", model(1))
        assert verdict(runs, "a").accepted
        path = store.local(submit(runs, store, "b", model(1)))
        good = path.read_bytes()
        bad = store.local(submit(runs, store, "c", model(1) | {"w": np.zeros((3, 2), np.float32)})).read_bytes()
        assert len(bad) == len(good)
        runs.redis.hset(runs.keys.client("b").update(1), "digest", hashlib.sha256(bad).hexdigest())
        changed = []

        def digest_and_check(file: TensorFile) -> Inspection:
            path = store.local(file.path.removeprefix("object "))
            rewritten(path, bad)
            changed.append(path)
            return finite.digest_and_check(file)

        monkeypatch.setattr(look_tensors, "digest_and_check", digest_and_check)
        assert "is not what was submitted" in verdict(runs, "b").reason  # so small a file is read once
        assert "still writes to its file after SetEvent('TrainFinished')" in verdict(runs, "b").reason
        assert changed

    @pytest.mark.parametrize("keep", [0.0, 0.5])
    def test_an_object_that_is_cut_off_while_it_is_inspected_is_refused(
        self, runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, keep: float
    ) -> None:
        """Who had it mapped would be killed by SIGBUS."""
        path = submit(runs, store, "a", {"w": np.ones(500_000, np.float32)})
        size = store.size_bytes(path)

        def digest_and_check(file: TensorFile) -> Inspection:
            os.truncate(store.local(accepted_path(path)), int(size * keep))
            return finite.digest_and_check(file)

        monkeypatch.setattr(look_tensors, "digest_and_check", digest_and_check)
        said = "the bytes are not those that were recorded: it was cut off while it was read"
        assert verdict(runs, "a").reason == f"object {accepted_path(path)}: {said}"

    @pytest.mark.parametrize("round_", [1, 2])
    def test_of_a_giant_of_another_structure_only_the_header_is_read(
        self, runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, round_: int
    ) -> None:
        """In a first round without a model that is the structure that most sites agree on."""
        for client in "ac":
            submit(runs, store, client, model(1))
        assert all(verdict(runs, client).accepted for client in "ac")
        decide(runs, verdict(runs, "a"))
        if round_ == 2:
            runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "c"], reason="2 of 3")
            jobs.aggregate("r", 1, 1)
            open_round(runs, 2)
        path = store.local(submit(runs, store, "b", model(1), round_=round_))
        table = {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
        header = json.dumps(table).encode()
        rewritten(path, len(header).to_bytes(8, "little") + header)
        size = 8 + len(header) + 2**42
        os.truncate(path, size)
        runs.redis.hset(runs.keys.client("b").update(round_), "size", str(size))

        def digest_and_check(file: TensorFile) -> Inspection:
            pytest.fail(f"{file.path} would be read")

        monkeypatch.setattr(look_tensors, "digest_and_check", digest_and_check)
        whose = {1: "the model of the other sites", 2: "the global model"}[round_]
        assert f"tensor 'w' has shape (1099511627776,); {whose}" in verdict(runs, "b", round_).reason

    @pytest.mark.parametrize("how", ["terabytes", "other bytes", "gone"])
    def test_the_structure_that_was_agreed_on_outlives_the_object_that_had_it(
        self, runs: RunStore, store: ObjectStore, how: str
    ) -> None:
        """Its site may spoil it; the others are judged by the structure, and told nothing of that site."""
        path = submit(runs, store, "a", model(1))
        decide(runs, verdict(runs, "a"))
        file = store.local(accepted_path(path))
        if how == "terabytes":
            os.truncate(file, 2**42)
        elif how == "other bytes":
            rewritten(file, b"x" * file.stat().st_size)
        else:
            file.unlink()
        submit(runs, store, "b", {"w": np.zeros((3, 2), np.float32)})
        assert verdict(runs, "b").reason.startswith("the tensors' names, shapes or dtypes are not those of the model")
        submit(runs, store, "c", model(2))
        assert verdict(runs, "c").accepted
        runs.redis.hdel(runs.keys.verdicts(1), "b")
        submit(runs, store, "b", {"w": np.zeros((3, 2), np.float32)})
        assert "tensor 'w' has shape (3, 2); the model of the other sites has (2, 3)" in verdict(runs, "b").reason

    def test_an_object_whose_links_change_while_it_is_inspected_is_inspected_again(
        self, runs: RunStore, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As its edge removes a link to it when it has handed in."""
        path = store.local(submit(runs, store, "a", {"w": np.ones(WHOLE_BYTES, np.float32)}))  # too large for memory
        link = tmp_path / "the edge's own name"
        link.hardlink_to(path)
        looks = []

        def check_metadata(file: TensorFile) -> None:
            link.unlink(missing_ok=True)
            looks.append(file)
            convert.check_metadata(file)

        monkeypatch.setattr(look_tensors, "check_metadata", check_metadata)
        assert verdict(runs, "a").accepted
        assert [file.path.rpartition("/")[2] for file in looks] == [f"0001-a-{path.name.removeprefix('0001-')}"] * 2

    @pytest.mark.parametrize("elements", [10, SMALL_UPDATE_BYTES // 4])
    def test_an_object_of_another_size_than_was_said_is_not_read(
        self, runs: RunStore, store: ObjectStore, elements: int
    ) -> None:
        path = submit(runs, store, "a", {"w": np.zeros(elements, np.float32)})
        runs.redis.hset(runs.keys.client("a").update(1), "size", "100")
        set_context(WorkerContext(runs.redis, "", Archived(store, accepted_path(path)), name="worker-1"))
        assert "100 were handed in" in verdict(runs, "a").reason

    @pytest.mark.parametrize(
        ("tensors", "said"),
        [
            ({"w": np.array([[1, np.nan]], np.float32)}, "tensor 'w' has NaN or infinite values"),
            ({"w": np.array([[1, np.inf]], np.float64)}, "tensor 'w' has NaN or infinite values"),
        ],
    )
    def test_values(self, runs: RunStore, store: ObjectStore, tensors: dict[str, np.ndarray], said: str) -> None:
        submit(runs, store, "a", tensors)
        assert said in verdict(runs, "a").reason

    @pytest.mark.parametrize(
        ("tensors", "said"),
        [
            (
                {"steps": np.array(7, np.int64)},
                "tensor 'w' is missing; the model of the other sites has it",
            ),
            ({**model(1), "extra": np.zeros(1, np.float32)}, "tensor 'extra' is not in"),
            (
                {**model(1), "w": np.zeros((3, 2), np.float32)},
                "tensor 'w' has shape (3, 2); the model of the other sites has (2, 3)",
            ),
            ({**model(1), "w": np.zeros((2, 3), np.float64)}, "tensor 'w' is float64"),
        ],
    )
    def test_structure_in_the_first_round(
        self, runs: RunStore, store: ObjectStore, tensors: dict[str, np.ndarray], said: str
    ) -> None:
        submit(runs, store, "a", model(1))
        first = verdict(runs, "a")
        assert first.accepted
        decide(runs, first)
        submit(runs, store, "b", tensors)
        assert said in verdict(runs, "b").reason

    def test_another_structure_counts_until_the_coordinator_has_decided(
        self, runs: RunStore, store: ObjectStore
    ) -> None:
        for client, tensors in (("a", model(1)), ("b", {f"module.{name}": x for name, x in model(1).items()})):
            submit(runs, store, client, tensors)
        first, second = verdict(runs, "a"), verdict(runs, "b")
        assert first.accepted
        assert second.accepted
        assert first.structure != second.structure

    @pytest.mark.parametrize(("prefix", "told"), [("module.", "DataParallel"), ("_orig_mod.", "torch.compile")])
    def test_a_wrappers_prefix_is_named(self, runs: RunStore, store: ObjectStore, prefix: str, told: str) -> None:
        submit(runs, store, "a", model(1))
        decide(runs, verdict(runs, "a"))
        submit(runs, store, "b", {f"{prefix}{name}": x for name, x in model(1).items()})
        reason = verdict(runs, "b").reason
        assert repr(prefix) in reason
        assert told in reason

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"digest": "0" * 64}, "is not what was submitted"),
            ({"path": "../../etc/passwd"}, "is refused"),
            ({"path": "/etc/passwd"}, "is refused"),
            ({"path": "runs/r/clients/b/0001-update-0.safetensors"}, "does not belong to this client"),
            ({"path": "runs/r/clients/a/0001-update-none.safetensors"}, "is not in the store"),
            ({"told": b'{"metadata": {"epo'}, "not complete JSON"),
            ({"told": b"{}"}, "metadata is missing"),
            ({"told": info(10**30)}, "absurdly large"),
            ({"told": b" " * 65_537}, "larger than 65536 bytes"),
        ],
    )
    def test_lies(self, runs: RunStore, store: ObjectStore, changes: dict[str, Any], said: str) -> None:
        submit(runs, store, "a", model(1), **changes)
        found = verdict(runs, "a")
        assert not found.accepted
        assert said in found.reason

    def test_changed_bytes(self, runs: RunStore, store: ObjectStore) -> None:
        path = store.local(submit(runs, store, "a", model(1)))
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\xff")
        assert "is not what was submitted" in verdict(runs, "a").reason

    def test_no_tensors_at_all(self, runs: RunStore, store: ObjectStore) -> None:
        submit(runs, store, "a", model(1))
        path = store.local(runs.updates(1, ["a"])["a"].object.path)
        path.chmod(0o644)
        path.write_bytes(b"not a checkpoint")
        found = verdict(runs, "a")
        assert not found.accepted
        assert "\n" not in found.reason

    def test_a_second_inspection_changes_nothing(self, runs: RunStore, store: ObjectStore) -> None:
        submit(runs, store, "a", model(1))
        before = verdict(runs, "a")
        submit(runs, store, "a", model(2))
        assert verdict(runs, "a") == before


class TestAggregation:
    def prepared(self, runs: RunStore, store: ObjectStore) -> None:
        for value, client in enumerate("abc", start=1):
            submit(runs, store, client, model(value), size=100 * value)
        jobs.inspect("r", 1, ["a", "b", "c"])
        runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b", "c"], reason="3 of 3")

    def test_the_weighted_mean_is_committed_with_its_info(self, runs: RunStore, store: ObjectStore) -> None:
        self.prepared(runs, store)
        jobs.aggregate("r", 1, 1)
        view = runs.read()
        assert view.global_model is not None
        file = TensorFile.open(store.local(view.global_model.model.path))
        np.testing.assert_allclose(file.tensor("w"), 14 / 6, rtol=1e-6)
        assert file.tensor("steps") == 7
        merged = json.loads(store.local(view.global_model.info.path).read_text())
        assert merged["metadata"]["datasetSize"] == [600]
        assert "clients" not in merged["metadata"], "a site sees sums, not the others"

    @pytest.mark.parametrize("recorded", [{"aggregator": FEDTRAIN, "server_step": "nesterov"}, {"aggregator": "mean"}])
    def test_no_round_of_aumai_fedtrain_is_aggregated(
        self, runs: RunStore, store: ObjectStore, recorded: dict[str, str]
    ) -> None:
        """Nor one of a run that was recorded as `mean`, as they once were: a state lies beside its global model."""
        self.prepared(runs, store)
        config = runs.read().config | recorded
        fields = {"config": json.dumps(config), "global_path": "m", "global_digest": "d", "state_path": "s"}
        runs.redis.hset(runs.keys.state, mapping={**fields, "state_digest": "e"})
        jobs.aggregate("r", 1, 1)
        view = runs.read_round(1)
        assert view is not None
        assert view.state is RoundState.AGGREGATING
        assert (view.error or "").startswith("run 'r' was begun by aumai_fedtrain, which coordinates it")

    @pytest.mark.parametrize(("first", "second"), [(RULES, COMMAND), (COMMAND, RULES)])
    def test_a_run_that_names_no_rule_keeps_that_of_its_first_round(
        self, runs: RunStore, store: ObjectStore, first: str, second: str
    ) -> None:
        """A worker that aggregates otherwise leaves the run to others, and no attempt is used up."""

        @dataclass(frozen=True)
        class Made:
            made_by: str

            def combine(self, work: Work, target: Path) -> Combined:
                return Engine(2).combine(work, target)

        def use(made_by: str) -> None:
            set_context(WorkerContext(runs.redis, "", store, combiner=Made(made_by), name="worker-1"))

        use(first)
        self.prepared(runs, store)
        jobs.aggregate("r", 1, 1)
        open_round(runs, 2)
        for client in "abc":
            submit(runs, store, client, model(9), round_=2)
        jobs.inspect("r", 2, ["a", "b", "c"])
        runs.begin_aggregation(TOKEN, 2, attempt=1, contributors=["a", "b", "c"], reason="3 of 3")
        use(second)
        said = "with an aggregator of its own" if first == COMMAND else "by a worker without -m"
        with pytest.raises(GivenBack, match=f"round 1 of run 'r' was aggregated .*{said}") as raised:
            jobs.aggregate("r", 2, 1)
        assert raised.value.run == "r"
        jobs.aggregate("r", 2, 2)  # of no attempt that goes on: it is dropped
        view = runs.read_round(2)
        assert view is not None
        assert (view.state, view.error, view.lease_ms) == (RoundState.AGGREGATING, None, None)
        use(first)
        jobs.aggregate("r", 2, 1)
        view = runs.read_round(2)
        assert view is not None
        assert (view.state, view.made_by) == (RoundState.CLOSED, first)

    def test_no_site_chooses_the_format_and_nesting_of_all_alone(self, runs: RunStore, store: ObjectStore) -> None:
        """What all are given is in the format, order and nesting that most save in, not the first by name."""
        for client in "abc":
            tensors = model(1) if client != "a" else dict(reversed(model(1).items()))
            submit(runs, store, client, tensors, format="torch" if client == "a" else "npz")
        jobs.inspect("r", 1, ["a", "b", "c"])
        runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b", "c"], reason="3 of 3")
        jobs.aggregate("r", 1, 1)
        view = runs.read()
        assert view.global_model is not None
        assert view.global_model.format == "npz"
        assert TensorFile.open(store.local(view.global_model.model.path)).names == tuple(model(1))

    def test_twice_is_once(self, runs: RunStore, store: ObjectStore) -> None:
        self.prepared(runs, store)
        jobs.aggregate("r", 1, 1)
        before = runs.read()
        jobs.aggregate("r", 1, 1)
        jobs.aggregate("r", 1, 2)
        assert runs.read() == before
        assert sum(f["event"] == "round.closed" for _, f in runs.redis.xrange(runs.keys.log)) == 1

    def test_what_was_inspected_is_aggregated_whatever_the_edge_writes_later(
        self, runs: RunStore, store: ObjectStore
    ) -> None:
        self.prepared(runs, store)
        submit(runs, store, "a", model(1000))
        jobs.aggregate("r", 1, 1)
        view = runs.read()
        assert view.global_model is not None
        np.testing.assert_allclose(
            TensorFile.open(store.local(view.global_model.model.path)).tensor("w"), 14 / 6, rtol=1e-6
        )

    @pytest.mark.parametrize("how", ["cut off", "written to"])
    def test_a_site_that_changes_its_object_while_it_is_aggregated_is_left_out(
        self, runs: RunStore, store: ObjectStore, how: str
    ) -> None:
        """Through a descriptor that it kept, at the very moment; nobody looks at its bytes again but for this."""
        for client in "abc":
            submit(runs, store, client, {"w": np.ones(500_000, np.float32)})
        jobs.inspect("r", 1, ["a", "b", "c"])
        runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b", "c"], reason="3 of 3")
        path = store.local(runs.verdicts(1, ["b"])["b"].inspected.object.path)
        path.chmod(0o644)
        kept = os.open(path, os.O_RDWR)

        class Late:
            made_by = RULES

            def combine(self, work: Work, target: Path) -> Combined:
                """As the engine, with a site that is quick."""
                if how == "cut off":
                    opened = Engine(2)
                    os.ftruncate(kept, 1_000_000)
                    return opened.combine(work, target)
                combined = Engine(2).combine(work, target)
                os.pwrite(kept, b"\xff" * 8, 1_000_000)
                return combined

        set_context(WorkerContext(runs.redis, "", store, combiner=Late(), name="worker-1"))
        jobs.aggregate("r", 1, 1)
        os.close(kept)
        view = runs.read_round(1)
        assert view is not None
        assert (view.state, view.spoiled) == (RoundState.AGGREGATING, ("b",))

    @pytest.mark.parametrize("elements", [10, 500_000], ids=["read whole", "read part by part"])
    @pytest.mark.parametrize("value", [999.0, np.nan, np.inf])
    @pytest.mark.parametrize("times", [1, 100])
    def test_what_a_site_shows_only_while_it_is_read_is_never_aggregated(
        self,
        runs: RunStore,
        store: ObjectStore,
        monkeypatch: pytest.MonkeyPatch,
        elements: int,
        value: float,
        times: int,
    ) -> None:
        """It puts the accepted bytes back each time, so that each digest before and after is right."""
        for client in "abc":
            handed_in = store.local(submit(runs, store, client, {"w": np.ones(elements, np.float32)}))
            handed_in.chmod(0o644)
        jobs.inspect("r", 1, ["a", "b", "c"])
        runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b", "c"], reason="3 of 3")
        path = store.local(runs.verdicts(1, ["b"])["b"].inspected.object.path)
        good, start = path.read_bytes(), path.stat().st_size - 4 * elements
        bad = np.full(elements, value, np.float32).tobytes()
        kept, read, shown = os.open(path, os.O_RDWR), Unmapped.read, []

        def read_while_it_shows_others(self: Unmapped, offset: int, out: Any) -> None:
            shows = self.path == os.fspath(path) and offset + memoryview(out).nbytes > start and len(shown) < times
            if shows:
                shown.append(offset)
                os.pwrite(kept, bad, start)
            read(self, offset, out)
            if shows:
                os.pwrite(kept, good, 0)

        monkeypatch.setattr(Unmapped, "read", read_while_it_shows_others)
        jobs.aggregate("r", 1, 1)
        os.close(kept)
        view, run = runs.read_round(1), runs.read()
        assert view is not None
        assert shown
        assert path.read_bytes() == good
        if times == 1 and elements > WHOLE_BYTES:
            assert view.state is RoundState.CLOSED, "it was read again"
            assert run.global_model is not None
            np.testing.assert_array_equal(TensorFile.open(store.local(run.global_model.model.path)).tensor("w"), 1)
        else:
            assert (view.state, view.spoiled, view.unfit) == (RoundState.AGGREGATING, ("b",), {})
            assert f"object {runs.verdicts(1, ['b'])['b'].inspected.object.path}: " in (view.error or "")

    def test_a_failure_is_reported_to_the_coordinator(self, runs: RunStore, store: ObjectStore) -> None:
        self.prepared(runs, store)
        store.remove("runs/r/clients/")  # what its sites can still reach is not what counts
        store.delete([path for path in store.list("runs/r/accepted/") if "-b-update-" in path])
        jobs.aggregate("r", 1, 1)
        view = runs.read_round(1)
        assert view is not None
        assert view.state is RoundState.AGGREGATING
        assert "is not in the store" in (view.error or "")

    @pytest.mark.parametrize(
        "error",
        [
            PermissionError(errno.EACCES, "Permission denied"),
            BadObjectPath("a link on the way leaves the store"),
            StoreError("it is larger than the cache"),
            StoreUnavailable("it does not let us in"),
        ],
    )
    def test_a_contributor_whose_object_cannot_be_read_any_more_is_left_out(
        self, runs: RunStore, store: ObjectStore, error: Exception
    ) -> None:
        """As after a chmod by its site, if the worker is not root; what nobody expected is no reason to fail all."""
        self.prepared(runs, store)
        broken = runs.verdicts(1, ["b"])["b"].inspected.object.path
        set_context(WorkerContext(runs.redis, "", Archived(store, broken, error=error), name="worker-1"))
        jobs.aggregate("r", 1, 1)
        view = runs.read_round(1)
        assert view is not None
        assert view.spoiled == ("b",)
        assert str(error) in (view.error or "")

    def test_an_object_that_stays_away_for_a_while_is_nobodys_fault(self, runs: RunStore, store: ObjectStore) -> None:
        self.prepared(runs, store)
        broken, error = (
            runs.verdicts(1, ["b"])["b"].inspected.object.path,
            StoreUnavailable("it answered 503", passing=True),
        )
        set_context(WorkerContext(runs.redis, "", Archived(store, broken, error=error), name="worker-1"))
        jobs.aggregate("r", 1, 1)
        view = runs.read_round(1)
        assert view is not None
        assert (view.spoiled, view.error) == ((), "it answered 503")

    def test_a_worker_that_can_read_nothing_accuses_nobody_but_who_changed_something(
        self, runs: RunStore, store: ObjectStore
    ) -> None:
        self.prepared(runs, store)
        paths = {client: found.inspected.object.path for client, found in runs.verdicts(1, ["a", "b", "c"]).items()}
        refused = StoreUnavailable("it does not let us in")
        set_context(WorkerContext(runs.redis, "", Archived(store, *paths.values(), error=refused), name="worker-1"))
        with pytest.raises(GivenBack, match="it does not let us in"):
            jobs.aggregate("r", 1, 1)
        view = runs.read_round(1)
        assert view is not None
        assert (view.spoiled, view.error, view.lease_ms, view.attempt) == ((), None, None, 1)
        rewritten(store.local(paths["a"]), b"something else")
        set_context(WorkerContext(runs.redis, "", Archived(store, paths["b"], paths["c"], error=refused), name="w"))
        jobs.aggregate("r", 1, 1)
        view = runs.read_round(1)
        assert view is not None
        assert view.spoiled == ("a",)

    def test_later_rounds_start_from_the_global_model_and_have_its_structure(
        self, runs: RunStore, store: ObjectStore
    ) -> None:
        self.prepared(runs, store)
        jobs.aggregate("r", 1, 1)
        open_round(runs, 2)
        model = runs.read().global_model
        assert model is not None
        task = runs.redis.hgetall(runs.keys.client("b").task(2))
        assert GlobalModel.from_hash(task) == replace(model, state=None)
        assert task["info_digest"] == hashlib.sha256(store.local(model.info.path).read_bytes()).hexdigest()
        submit(runs, store, "a", {"w": np.zeros((9, 9), np.float32), "steps": np.array(1, np.int64)}, round_=2)
        assert "the global model has (2, 3)" in verdict(runs, "a", 2).reason

    def test_a_store_without_room_for_the_result_costs_no_attempt(
        self, runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.prepared(runs, store)
        with monkeypatch.context() as full:
            full.setattr(store, "put", failing(StoreFull("/store: No space left on device: free some space")))
            with pytest.raises(GivenBack, match="No space left"):
                jobs.aggregate("r", 1, 1)
        jobs.aggregate("r", 1, 1)
        view = runs.read_round(1)
        assert view is not None
        assert (view.state, view.attempt) == (RoundState.CLOSED, 1)

    def test_what_was_put_into_another_share_is_not_committed(self, runs: RunStore, store: ObjectStore) -> None:
        """Also in the first round: a share goes, or another is mounted in its place, while the worker combines."""
        self.prepared(runs, store)
        record = store.local("runs/r/run.json")
        ours = record.read_bytes()

        class Moved(Engine):
            def combine(self, work: Work, target: Path) -> Combined:
                done = super().combine(work, target)
                rewritten(record, ours.replace(b"0" * 32, b"1" * 32))
                return done

        set_context(WorkerContext(runs.redis, "", store, Moved(threads=1), name="worker-1"))
        with pytest.raises(GivenBack, match=r"run.json of another run: is another share mounted there\?"):
            jobs.aggregate("r", 1, 1)
        rewritten(record, ours)
        set_context(WorkerContext(runs.redis, "", store, name="worker-2"))
        jobs.aggregate("r", 1, 1)
        view = runs.read_round(1)
        assert view is not None
        assert (view.state, view.attempt) == (RoundState.CLOSED, 1)


def failing(error: Exception) -> Any:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


class TestQueue:
    def test_what_a_worker_gives_back_another_does(self, url: str, runs: RunStore, store: ObjectStore) -> None:
        """It is no worker of its queue then, and says why; the other is, and it is again once it has done a job."""
        for client in "abc":
            submit(runs, store, client, model(1))
        queue, connection, told = RqJobQueue(url, "q", timeout_s=60), Redis.from_url(url, protocol=2), []
        queue.inspect("r", 1, ["a", "b", "c"], attempt=1)
        unfit = make_worker(connection, "q", observer=Lines(told.append))
        unfit.register_birth()
        context = WorkerContext(runs.redis, url, Archived(store, "runs/r/run.json", error=LocalFault("no mount")))
        paths = [each.object.path for each in runs.updates(1, "abc").values()]
        context.store._paths = (*context.store._paths, *paths, *map(accepted_path, paths))
        set_context(context)
        for turn in range(2):
            unfit.execute_job(*taken(unfit))
            assert (queue.workers(), runs.verdicts(1, "abc")) == (0, {}), turn
            assert queue.absence() == "every aggregator on queue 'q' gives its work back for now: no mount"
        connection.delete(unfit.key)  # the server has forgotten it, and it says again who it is
        unfit.heartbeat(30)
        assert (connection.exists(unfit.key), queue.workers()) == (1, 0)
        assert told == ["its work goes back into the queue, and it takes none for now: no mount"]
        assert 0 < unfit.rest.left_s() <= 2 * unfit.rest.FIRST_S
        set_context(WorkerContext(runs.redis, url, store))
        unfit.execute_job(*taken(unfit))
        assert runs.verdicts(1, "abc").keys() == set("abc")
        assert (queue.workers(), told[1:]) == (1, ["it takes work again"])
        assert "no aggregator listens" in queue.absence()
        unfit.register_death()

    def test_a_worker_without_the_store_of_one_run_stays_one_for_the_others(
        self, url: str, runs: RunStore, store: ObjectStore
    ) -> None:
        submit(runs, store, "a", model(1))
        queue, others = (RqJobQueue(url, "q", timeout_s=60, run=run) for run in ("r", "s"))
        connection, told = Redis.from_url(url, protocol=2), []
        queue.inspect("r", 1, ["a"], attempt=1)
        others.inspect("s", 1, ["a"], attempt=1)  # of which there is nothing to do
        worker = make_worker(connection, "q", observer=Lines(told.append))
        worker.register_birth()
        missing = Archived(store, "runs/r/run.json", error=ObjectMissing("there is none"))
        paths = [each.object.path for each in runs.updates(1, "a").values()]
        missing._paths = (*missing._paths, *paths, *map(accepted_path, paths))
        set_context(WorkerContext(runs.redis, url, missing))
        worker.execute_job(*taken(worker))
        assert (queue.workers(), others.workers()) == (0, 1)
        assert "does not have runs/r/run.json" in queue.absence()
        assert "no aggregator listens" in others.absence()
        assert told[0].startswith("the work of run 'r' goes back into the queue, and it takes none of it for now: ")
        assert worker.rest.reason == ""
        worker.work(burst=True, logging_level="CRITICAL")
        assert connection.llen(OwnQueue("q", connection=connection).key) == 1, (
            "the other job is done, and this one waits"
        )
        assert connection.llen(OwnQueue("q", connection=connection).intermediate_queue_key) == 0
        worker.aside["r"]._until = 0.0
        worker.register_birth()
        queue.inspect("r", 2, ["a"], attempt=1)  # of a round that is not open
        stale, given_back = taken(worker), taken(worker)
        if "2" not in str(stale[0].args):
            stale, given_back = given_back, stale
        worker.execute_job(*stale)
        assert (len(told), set(worker.aside)) == (1, {"r"}), "a job in which nothing was to be done shows nothing"
        set_context(WorkerContext(runs.redis, url, store))
        worker.execute_job(*given_back)
        assert runs.verdicts(1, "a").keys() == {"a"}
        assert (queue.workers(), told[1:]) == (1, ["it takes the work of run 'r' again"])
        worker.register_death()

    def drain(self, url: str) -> None:
        make_worker(Redis.from_url(url, protocol=2), "q").work(burst=True, logging_level="CRITICAL")

    def test_jobs_of_the_coordinator_are_done(self, url: str, runs: RunStore, store: ObjectStore) -> None:
        for client in "abc":
            submit(runs, store, client, model(1))
        queue = RqJobQueue(url, "q", timeout_s=60)
        queue.inspect("r", 1, ["a", "b", "c"], attempt=1)
        self.drain(url)
        runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=["a", "b", "c"], reason="")
        queue.aggregate("r", 1, attempt=1)
        self.drain(url)
        view = runs.read_round(1)
        assert view is not None
        assert view.state is RoundState.CLOSED

    def test_a_worker_tells_a_server_that_has_lost_it_of_itself_again(self, url: str) -> None:
        connection, queue = Redis.from_url(url, protocol=2), RqJobQueue(url, "q", timeout_s=60)
        connection.flushall()
        worker = make_worker(connection, "q")
        worker.register_birth()
        connection.flushall()
        assert queue.workers() == 0
        worker.heartbeat()
        assert queue.workers() == 1
        assert connection.hget(worker.key, "queues") == b"q"
        assert 0 < connection.ttl(worker.key) <= 30
        connection.delete(worker.key)  # as its time does with one that was killed
        assert queue.workers() == 0
        worker.register_death()

    def test_a_worker_that_is_killed_with_a_job_in_hand_counts_no_longer_than_another(
        self, url: str, runs: RunStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The time that its job may take, an hour say, is no sign of life; those that it gives during the job are."""
        connection, queue = Redis.from_url(url, protocol=2), RqJobQueue(url, "q", timeout_s=3600)
        worker, beats, ttls = make_worker(connection, "q"), threading.Event(), list[int]()
        expire = type(connection).expire

        def seen(self: Redis, key: str, seconds: int) -> object:
            if threading.current_thread().name == "heartbeat" and key == worker.key:
                beats.set()
            return expire(self, key, seconds)

        def held(*_: object) -> None:
            ttls.append(int(connection.ttl(worker.key)))
            assert beats.wait(30), "no sign of life while the job is in hand"

        monkeypatch.setattr("workers.worker._BEAT_S", 0.01)
        monkeypatch.setattr(type(connection), "expire", seen)
        monkeypatch.setattr("workers.jobs.inspect_updates", held)  # where the worker looks it up
        queue.inspect("r", 1, ["a"], attempt=1)
        worker.work(burst=True, logging_level="CRITICAL")
        assert len(ttls) == 1
        assert 0 < ttls[0] <= 30

    @pytest.mark.parametrize("lost", ["its key", "its place", "both"])
    def test_a_worker_that_is_forgotten_with_a_job_in_hand_tells_of_itself_again(
        self, url: str, runs: RunStore, monkeypatch: pytest.MonkeyPatch, lost: str
    ) -> None:
        """The server was away for longer than its key lives; and at its limit of threads it goes on beating."""
        connection, queue = Redis.from_url(url, protocol=2), RqJobQueue(url, "q", timeout_s=3600)
        worker, known = make_worker(connection, "q"), OwnWorker._is_known
        limits = iter([RuntimeError("can't start new thread"), MemoryError()])

        def limited(self: OwnWorker) -> bool:
            if threading.current_thread().name == "heartbeat" and (error := next(limits, None)):
                raise error
            return known(self)

        def held(*_: object) -> None:
            if lost != "its place":
                connection.delete(worker.key)
            if lost != "its key":
                connection.delete("rq:workers:q")
            eventually("it tells of itself", lambda: queue.workers() and connection.hget(worker.key, "birth"))
            seen.append((connection.hget(worker.key, "state"), connection.ttl(worker.key)))

        seen: list[tuple[bytes, int]] = []
        monkeypatch.setattr("workers.worker._BEAT_S", 0.01)
        monkeypatch.setattr(OwnWorker, "_is_known", limited)
        monkeypatch.setattr("workers.jobs.inspect_updates", held)  # where the worker looks it up
        queue.inspect("r", 1, ["a"], attempt=1)
        worker.work(burst=True, logging_level="CRITICAL")
        [(state, ttl)] = seen
        assert state == b"busy"
        assert 0 < ttl <= 30

    def test_a_worker_that_looks_whether_it_is_suspended_tells_who_it_is_all_the_same(self, url: str) -> None:
        """As it does in every turn of its loop; and a part that was lost alone is told again."""
        connection, queue = Redis.from_url(url, protocol=2), RqJobQueue(url, "q", timeout_s=60)
        for lost in (connection.flushall, lambda: connection.delete("rq:workers:q")):
            worker = make_worker(connection, "q")
            worker.register_birth()
            lost()
            assert queue.workers() == 0
            worker.check_for_suspension(burst=True)
            worker.heartbeat()
            assert queue.workers() == 1
            worker.register_death()

    def test_a_job_waits_until_it_is_taken(self, url: str, runs: RunStore, store: ObjectStore) -> None:
        submit(runs, store, "a", model(1))
        queue = RqJobQueue(url, "q", timeout_s=60)
        job = queue.inspect("r", 1, ["a"], attempt=1)
        assert queue.waits(job)
        self.drain(url)
        assert not queue.waits(job)

    @pytest.mark.parametrize("hook", ["function", "success", "failure", "webhook"])
    def test_a_crafted_job_runs_nothing(self, url: str, runs: RunStore, tmp_path: Path, hook: str) -> None:
        marker = tmp_path / "ran"
        connection = Redis.from_url(url, protocol=2)
        queue = Queue("q", connection=connection, serializer=JSONSerializer)
        function = "os.mkdir" if hook == "function" else "workers.jobs.inspect"
        args = (str(marker),) if hook in ("function", "failure") else ("r", 1, [])
        job = Job.create(function, args=args, connection=connection, serializer=JSONSerializer)
        job._success_callback_name = "os.abort" if hook == "success" else None
        job._failure_callback_name = "os.abort" if hook == "failure" else None
        queue.enqueue_job(job)
        if hook == "webhook":
            connection.hset(job.key, "webhooks", '[{"url": "http://127.0.0.1:9/x", "statuses": ["finished"]}]')
        self.drain(url)
        assert not marker.exists()


def test_what_a_renewal_of_a_rounds_lease_comes_upon_does_not_end_the_others() -> None:
    """A limit of threads or memory may be over at the next one."""
    errors = [MemoryError(), RuntimeError("can't start new thread"), OSError(24, "Too many open files")]
    renewed = threading.Event()

    class Renewed:
        lease_s = 0.03

        def claim(self) -> None:
            pass

        def renew(self) -> None:
            if errors:
                raise errors.pop()
            renewed.set()

    with Claim(cast(Attempt, Renewed())):
        assert renewed.wait(30)
