"""A run in a store, made by hand: what an honest federation leaves, to be tampered with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Contributor, Manifest, Model, RunRecord
from flavor.ledger.statement import signed
from flavor.protocol import new_run_id
from flavor.records.info import CONFUSION
from flavor.records.merging import merge_infos
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.open import open_store
from flavor.store.paths import (
    clients_folder,
    global_folder,
    global_prefix,
    manifests_folder,
    named,
    run_record_path,
    update_prefix,
)
from flavor.store.protocol import ObjectStore

CONFIG = {"rounds": 3, "keep_rounds": 2, "store": "file:///elsewhere", "heartbeat_timeout_s": 15.0}
CONFIG["settings"] = {"CITY": "Zürich"}
SIZES = {"a": 10, "b": 20}


def put(store: ObjectStore, prefix: str, stem: str, data: bytes, extension: str) -> tuple[str, str]:
    """An object named by its digest: its path and digest."""
    digest = sha256(data)
    path = named(prefix, stem, digest, extension)
    with store.stage() as staged:
        staged.write_bytes(data)
        store.put(ObjectRef(path, digest), staged)
    return path, digest


@dataclass
class ForgedRun:
    """Records and objects of a run; `worker` and `clients` are the keys they are signed with."""

    folder: Path
    name: str = "r"
    run_id: str = field(default_factory=new_run_id)
    config: dict[str, Any] = field(default_factory=lambda: dict(CONFIG))
    worker: SigningKey = field(default_factory=SigningKey.generate)
    replaced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    clients: dict[str, SigningKey | None] = field(
        default_factory=lambda: {client: SigningKey.generate() for client in SIZES}
    )

    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each client, if their information is to be such as sites hand in."""
    merged: bytes = b""
    """The merged information of round 2, whatever that is."""
    created_ms: int | None = None

    def __post_init__(self) -> None:
        self.store = open_store(str(self.folder), create=True)
        self.archive = Archive(self.store, self.name)
        self.manifests: list[Manifest] = []

    def begin(self) -> RunRecord:
        """The run's record, with pre-trained weights."""
        path, digest = put(self.store, global_prefix(self.name, 0), "model", b"initial weights", ".safetensors")
        initial = Model(path=path, digest=digest, size_bytes=15, format="torch")
        self.record = RunRecord(
            run=self.name,
            run_id=self.run_id,
            rounds=self.config.get("rounds", 3),
            config=self.config,
            initial=initial,
            created_ms=self.created_ms,
        )
        self.archive.begin(self.record)
        return self.record

    def manifest(
        self,
        round_: int,
        *,
        previous: str = "",
        trained_from: str = "",
        tag: str = "",
        weights: bytes = b"",
        stale: Mapping[str, tuple[int, str]] | None = None,
    ) -> Manifest:
        """A round's objects, and its manifest, not put into the store yet. `tag` makes its model another one.

        `stale` are clients that have done the task of an earlier round: that round, and the digest of its model.
        """
        before = self.manifests[round_ - 2] if round_ > 1 else None
        assert self.record.initial is not None
        previous = previous or (before.digest if before else self.record.digest)
        trained_from = trained_from or (before.global_model.digest if before else self.record.initial.digest)
        prefix = global_prefix(self.name, round_)
        weights = weights or f"weights {round_}{tag}".encode()
        path, digest = put(self.store, prefix, "model", weights, ".safetensors")
        info = {"metadata": {"clients": list(SIZES), "datasetSize": list(SIZES.values())}, "metrics": {}}
        if self.metrics:
            info = merge_infos(list(SIZES), [self.info(client) for client in SIZES])
        data = self.merged if round_ == 2 and self.merged else json.dumps(info).encode()
        info_path, info_digest = put(self.store, prefix, "info", data, ".json")
        state_path, state_digest = put(self.store, prefix, "state", f"state {round_}".encode(), ".safetensors")
        return Manifest(
            run=self.name,
            run_id=self.run_id,
            round=round_,
            attempt=1,
            config=self.config,
            opened_ms=1000 * round_,
            closed_ms=1000 * round_ + 500,
            expected=tuple(SIZES),
            trained_from=trained_from,
            contributors=tuple(
                self._stale(client, *stale[client])
                if stale and client in stale
                else self._contributor(client, round_, trained_from)
                for client in SIZES
            ),
            global_model=Model(
                path=path,
                digest=digest,
                size_bytes=len(weights),
                format="torch",
                info_path=info_path,
                info_digest=info_digest,
                state_path=state_path,
                state_digest=state_digest,
            ),
            previous=previous,
        )

    def info(self, client: str) -> dict[str, Any]:
        """What a client says of a round."""
        if not self.metrics:
            return {"metadata": {"datasetSize": SIZES[client]}}
        metadata = {"epoch": 1, "datasetSize": SIZES[client], "importance": 1.0}
        return {"metadata": metadata, "metrics": {**dict.fromkeys(CONFUSION, -1), **self.metrics.get(client, {})}}

    def _stale(self, client: str, round_: int, trained_from: str) -> Contributor:
        """A client that has done the task of an earlier round."""
        whole = self._contributor(client, round_, trained_from)
        return whole.model_copy(update={"task_round": round_, "trained_from": trained_from})

    def _contributor(self, client: str, round_: int, trained_from: str) -> Contributor:
        data = f"update of {client} in {round_}".encode()
        prefix = update_prefix(self.name, round_, client)
        path, digest = put(self.store, prefix, "update", data, ".safetensors")
        info = ObjectRef(*put(self.store, prefix, "info", json.dumps(self.info(client)).encode(), ".json"))
        base = ObjectRef("", trained_from) if trained_from else None
        update = Update(ObjectRef(path, digest, len(data)), info, "torch", SIZES[client], base)
        if key := self.clients[client]:
            update = signed(update, key, run=(self.name, self.run_id), round_=round_, client=client)
        return Contributor.of(client, update, self.replaced.get(client, ()))

    def close(self, manifest: Manifest, key: SigningKey | None = None) -> Manifest:
        """Sign a manifest and put it in place, as a worker does."""
        closed = manifest.signed(key or self.worker)
        self.archive.publish(closed.round, self.archive.stage(closed))
        self.manifests.append(closed)
        return closed

    def complete(self, rounds: int = 3) -> ForgedRun:
        """Begin it, and close this many rounds."""
        self.begin()
        for round_ in range(1, rounds + 1):
            self.close(self.manifest(round_))
        return self

    def files(self) -> list[Path]:
        """Every file of the run."""
        folders = [
            manifests_folder(self.name),
            global_folder(self.name),
            *self.store.folders(clients_folder(self.name)),
        ]
        paths = [path for folder in folders for path in self.store.list(folder)]
        return [self.store.local(path) for path in [run_record_path(self.name), *paths]]


def overwrite(path: Path, data: bytes) -> None:
    """Change an object, which is read-only."""
    path.chmod(0o644)
    path.write_bytes(data)
