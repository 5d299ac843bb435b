"""A run in a store whose updates are what a test says: aggregated, signed and recorded as a worker does it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flavor.checkpoints import TensorFile, TensorFileWriter, TensorSpec
from flavor.checkpoints.encoding import Encoding, encode
from flavor.config import RunConfig
from flavor.ledger.archive import Archive
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Contributor, Manifest, Model, RunRecord
from flavor.protocol import new_run_id
from flavor.records.info import CONFUSION
from flavor.records.merging import merge_infos
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.digests import sha256_file
from flavor.store.open import open_store
from flavor.store.paths import global_prefix, named, update_prefix
from workers.builtin import Engine
from workers.combiner import Combiner, Work
from workers.reading import reading
from workers.stale import Stale

Model_ = Mapping[str, Any]


@dataclass
class MadeRun:
    """A run; `round` closes one after another."""

    folder: Path
    initial: Model_ | None = None
    name: str = "r"
    config: dict[str, Any] = field(default_factory=dict)
    key: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.store = open_store(str(self.folder), create=True)
        self.archive = Archive(self.store, self.name)
        self.run_id = new_run_id()
        self.settings = RunConfig(**{"rounds": 5, "keep_rounds": 3, "store": str(self.folder), **self.config})
        self.manifests: list[Manifest] = []
        self.model: GlobalModel | None = None
        self.made: list[GlobalModel] = []
        """The initial model, where there is one, and that of each round."""
        self.steps: dict[str, float] = {}
        """The local steps that clients report."""
        self.notes: tuple[str, ...] = ()
        """What the newest aggregation noticed."""
        if self.initial is not None:
            path = self.put(global_prefix(self.name, 0), "model", self.initial)
            self.model = GlobalModel(path, None, None, "pickle")
            self.made.append(self.model)
        self.record = RunRecord(
            run=self.name,
            run_id=self.run_id,
            rounds=self.settings.rounds,
            config=self.settings.to_mapping(),
            initial=Model.of(self.model) if self.model else None,
        )
        self.archive.begin(self.record)

    def put(self, prefix: str, stem: str, tensors: Model_) -> ObjectRef:
        """Put tensors into the store."""
        specs = [TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()]
        with self.store.stage() as staged:
            with TensorFileWriter(staged, specs, {}) as writer:
                for spec in writer.specs:
                    writer.write(spec.name, tensors[spec.name])
            return self.put_file(prefix, stem, staged, ".safetensors")

    def put_file(self, prefix: str, stem: str, staged: Path, extension: str) -> ObjectRef:
        """Put a staged file into the store, named by its digest."""
        digest, size = sha256_file(staged)
        ref = ObjectRef(named(prefix, stem, digest, extension), digest, size)
        self.store.put(ref, staged)
        return ref

    def put_json(self, prefix: str, stem: str, value: object) -> ObjectRef:
        """Put JSON into the store."""
        with self.store.stage() as staged:
            staged.write_text(json.dumps(value))
            return self.put_file(prefix, stem, staged, ".json")

    def tensors(self) -> dict[str, Any]:
        """The newest global model."""
        assert self.model is not None
        file = TensorFile.open(self.store.local(self.model.model.path))
        return {name: np.array(file.tensor(name)) for name in file.names}

    def update(self, client: str, tensors: Model_, examples: int, round_: int, given: GlobalModel | None) -> Update:
        """Hand in an update that was trained from the model `given`, compressed as the run asks."""
        prefix = update_prefix(self.name, round_, client)
        ref = self.put(prefix, "update", tensors)
        if self.settings.compress != "none" and given is not None:
            with self.store.stage() as staged:
                base = TensorFile.open(self.store.local(given.model.path))
                encoding = Encoding(self.settings.compress, given.model.digest)
                encode(self.store.local(ref.path), staged, base, encoding)
                ref = self.put_file(prefix, "update", staged, ".safetensors")
        metadata: dict[str, Any] = {"epoch": 1, "datasetSize": examples, "importance": 1.0}
        if client in self.steps:
            metadata["localSteps"] = self.steps[client]
        info = self.put_json(prefix, "info", {"metadata": metadata, "metrics": dict.fromkeys(CONFUSION, -1)})
        return Update(ref, ObjectRef(info.path, info.digest), "pickle", examples, given.model if given else None)

    def round(
        self,
        models: Mapping[str, tuple[Model_, int]],
        *,
        by: RunConfig | None = None,
        constants: Mapping[str, Sequence[str]] | None = None,
        stale: Mapping[str, tuple[int, float]] | None = None,
        combiner: Combiner | None = None,
    ) -> Manifest:
        """Close a round: client to its model and its number of examples.

        `by` are other settings of the worker, `constants` what its inspection has found. `stale` are clients that have
        done the task of an earlier round: that round, and s(τ). `combiner` is another one than the run's rule.
        """
        number = len(self.manifests) + 1
        late = {c: Stale(round_, self.made[round_ - 1], scale) for c, (round_, scale) in (stale or {}).items()}
        updates = {
            client: self.update(client, *given, late[client].task_round, late[client].base)
            if client in late
            else self.update(client, *given, number, self.model)
            for client, given in models.items()
        }
        infos = {client: json.loads(self.store.local(each.info.path).read_text()) for client, each in updates.items()}
        prefix, old = global_prefix(self.name, number), self.model
        with self.store.stage() as staged:
            with reading(self.store) as opened:
                work = Work(
                    run=self.name,
                    round=number,
                    config=by or self.settings,
                    store=self.store,
                    prefix=prefix,
                    old=old,
                    updates=updates,
                    constants=constants or {},
                    infos=infos,
                    info=merge_infos(list(infos), list(infos.values())),
                    opened=opened,
                    stale=late,
                )
                made = (combiner or Engine(1)).combine(work, staged)
            self.notes = made.notes
            model = self.put_file(prefix, "model", staged, ".safetensors")
        info = self.put_json(prefix, "info", made.info)
        self.model = GlobalModel(model, ObjectRef(info.path, info.digest), made.state, "pickle")
        self.made.append(self.model)
        manifest = Manifest(
            run=self.name,
            run_id=self.run_id,
            round=number,
            attempt=1,
            config=self.settings.to_mapping(),
            opened_ms=1000 * number,
            closed_ms=1000 * number + 500,
            expected=tuple(updates),
            trained_from=old.model.digest if old else "",
            contributors=tuple(
                Contributor.of(client, each, task_round=late[client].task_round if client in late else None)
                for client, each in updates.items()
            ),
            chosen=made.chosen,
            global_model=Model.of(self.model),
            previous=self.manifests[-1].digest if self.manifests else self.record.digest,
        ).signed(self.key)
        self.archive.publish(number, self.archive.stage(manifest))
        self.manifests.append(manifest)
        return manifest

    def prune(self, round_: int) -> None:
        """Remove the updates of a round."""
        self.store.delete([each.path for each in self.manifests[round_ - 1].contributors])


def weights(*values: float) -> dict[str, Any]:
    """A model of one tensor."""
    return {"w": np.array(values, np.float32)}
