"""The doors through which another party's bytes come in, each a function of bytes that ends well or refuses.

A target returns when the input was read or refused as documented; whatever else it raises is a finding. What was read
is also used as the project would use it: written again, merged, asked for its leaves.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from flavor.bus.append_only_file import check_folder
from flavor.bus.keys import RunKeys
from flavor.checkpoints import (
    Checkpoint,
    Format,
    Structure,
    TensorFile,
    check_metadata,
    detect,
    digest_and_check,
    from_safetensors,
    read,
    take_safetensors,
    to_safetensors,
    write,
)
from flavor.checkpoints.safetensors.shard_index import parse_index
from flavor.cook.metrics import binary_counts, multiclass_counts, regression_sums
from flavor.errors import (
    CheckpointError,
    DamagedRecord,
    InvalidInfo,
    InvalidRecord,
    InvalidSetting,
    StoreError,
)
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import RunRecord
from flavor.programs.relay_folder import Answer, Ask
from flavor.protocol import new_run_id
from flavor.records.info import MAX_BYTES, parse_info
from flavor.records.measured import MOST_BYTES as MOST_MEASURED_BYTES
from flavor.records.measured import Measured
from flavor.records.merging import MOST_REASONS, merge_infos, not_merged, summed
from flavor.records.model import GlobalModel
from flavor.records.names import count, is_name
from flavor.records.not_finite import NULL, WORDS, without_value
from flavor.records.objects import ObjectRef
from flavor.records.pulse import FIELDS, Doing, Pulse
from flavor.records.reported import MOST_BYTES
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.records.summary import RoundSummary
from flavor.records.update import from_hash
from flavor.records.verdict import Verdict
from flavor.store.digests import sha256_file
from flavor.store.open import open_store
from flavor.store.paths import accepted_path, checked_path, update_prefix
from flavor.view.progress import progress_of, words_of
from flavor.view.strip import row_of_summary
from flavor.view.timeline import spans
from tests.fuzz.folder_target import fuzz_evaluation
from tests.fuzz.page_target import fuzz_request
from tests.fuzz.proxy_target import fuzz_proxy_answer
from tests.fuzz.report_target import fuzz_image, fuzz_report
from tests.fuzz.token_target import fuzz_token
from tests.fuzz.wish_target import fuzz_wish
from tests.infos import put_info
from workers.inspection import Inspector, is_small
from workers.signatures import Signatures

MOST_TOLD = 20_000
"""Characters of a message: it may quote a name, not a file."""


def one_line(error: Exception, most: int = MOST_TOLD) -> None:
    """What is told of a refused input is a line of bounded length."""
    assert "\n" not in str(error), repr(str(error))[:300]
    assert len(str(error)) < most, len(str(error))


class Bench:
    """A folder in memory for files, and a store with one good update and one global model in it."""

    def __init__(self) -> None:
        shm = "/dev/shm"
        self.folder = Path(tempfile.mkdtemp(prefix="flavor-fuzz-", dir=shm if os.access(shm, os.W_OK) else None))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.input, self.output = self.folder / "input", self.folder / "output"
        self.store = open_store(str(self.folder / "store"), create=True)
        (self.folder / "outside").mkdir()
        (self.folder / "outside" / "secret").write_bytes(b"secret")
        self.model = self._put("runs/r/global/0001-model.safetensors", {"w": np.zeros((2, 3), np.float32)})
        self.update = self._put(f"{update_prefix('r', 2, 'a')}update-x.safetensors", {"w": np.ones((2, 3), np.float32)})
        self.info = put_info(self.store, update_prefix("r", 2, "a"), GOOD_INFO)
        self.config = {"rounds": 3, "store": self.store.url}
        self.run_id = new_run_id()
        Archive(self.store, "r").begin(RunRecord(run="r", run_id=self.run_id, rounds=3, config=self.config))

    def _put(self, path: str, tensors: Mapping[str, np.ndarray]) -> tuple[str, str, int]:
        with self.store.stage() as staged:
            write(staged, Checkpoint(dict(tensors)), Format.SAFETENSORS)
            digest, size = sha256_file(staged)
            self.store.put(ObjectRef(path, digest), staged)
        return path, digest, size

    def file(self, data: bytes) -> Path:
        self.input.write_bytes(data)
        return self.input


_bench: Bench | None = None


def bench() -> Bench:
    """This process's."""
    global _bench  # noqa: PLW0603
    if _bench is None:
        _bench = Bench()
    return _bench


def fuzz_info(data: bytes) -> None:
    """An edge's info.json, as it is read, judged, merged and written."""
    try:
        info = parse_info(data, where="info.json")
    except InvalidInfo as error:
        one_line(error, most=2 * len(data) + MOST_TOLD)
        return
    for word in without_value(info).values():
        assert word in (*WORDS, NULL)
    text = json.dumps(info, allow_nan=False).encode()
    if len(text) <= MAX_BYTES:  # what is written may be longer than what was read
        assert parse_info(text, where="again") == info
    for others in ([info], [info, GOOD_INFO], [GOOD_INFO, COUNTING_INFO, info]):
        merged = merge_infos([str(number) for number in range(len(others))], others)
        assert len(not_merged(merged)) <= MOST_REASONS
        for reason in not_merged(merged).values():
            one_line(InvalidInfo(reason))
        json.dumps(summed(merged), allow_nan=False)
        json.dumps(merged, allow_nan=False)


def fuzz_update(data: bytes) -> None:
    """The fields of an edge's update hash."""
    here = bench()
    good = {"path": here.update[0], "digest": here.update[1], "size": str(here.update[2]), "format": "safetensors"}
    good |= here.info
    names = [*good, "refused", "seal"]
    fields = dict(good)
    for part in data.split(b"\0"):
        if part:
            fields[names[part[0] % len(names)]] = part[1:].decode("utf-8", "replace")
    model = GlobalModel(ObjectRef(*here.model))
    view = RunView("r", RunState.RUNNING, 2, 3, here.config, "", model, 0, None, run_id=here.run_id)
    handed_in = from_hash(fields, base=model.model)
    is_small(handed_in)
    nobody_pinned = Signatures(None, {}, required=False)  # type: ignore[arg-type] - nothing is signed, so none is pinned
    verdict = Inspector(None, here.store, view, 2, nobody_pinned).judge("a", handed_in)  # type: ignore[arg-type] - there is a model
    assert not verdict.reason.startswith("unusable update"), verdict.reason
    assert len(verdict.reason) <= 2000, "it stands in Redis, in the log and on terminals"
    as_read = Verdict.from_json(verdict.to_json())
    assert verdict == replace(as_read, update=as_read.update and replace(as_read.update, base=model.model))
    if verdict.accepted:
        assert verdict.inspected.object.path == accepted_path(here.update[0])
        assert verdict.inspected.object.digest == here.update[1]


GOOD_INFO = {
    "metadata": {"epoch": 1, "datasetSize": 10, "importance": 1.0},
    "metrics": {
        "basic/confusion_tp": -1,
        "basic/confusion_fp": -1,
        "basic/confusion_fn": -1,
        "basic/confusion_tn": -1,
        "accuracy": 0.5,
    },
}
COUNTING_INFO = {
    "metadata": {"epoch": 1, "datasetSize": 3, "importance": 1.0},
    "metrics": {
        **GOOD_INFO["metrics"],
        **binary_counts([0, 1, 1], [0.1, 0.4, 0.9], bins=4),
        **multiclass_counts([0, 1], [1, 1], classes=2, name="m"),
        **regression_sums([1.0, 2.0], [1.5, 2.0]),
        "count/x": 3,
    },
}
"""With every kind of count."""


def fuzz_pulse(data: bytes) -> None:
    """What a client says that it does, reports and bears: read, written again, and shown."""
    text = data.decode("utf-8", "replace")
    fields = dict(zip(FIELDS, text.split("\0"), strict=False)) | {"reported": text, "load": text}
    for each in (fields, dict(zip(FIELDS, text.split("\0"), strict=False))):
        pulse = Pulse.from_hash(each)
        if pulse.reported is not None:
            assert len(pulse.reported.to_json()) <= MOST_BYTES
            assert words_of(pulse.reported).isprintable()
        progress = progress_of(pulse, None, fits=frozenset(Doing), round_=1, begun_ms=1)
        assert progress.described("training", 2).isprintable()
        Pulse.from_hash(pulse.to_hash())


def fuzz_relayed(data: bytes) -> None:
    """What a script asks of its edge by files, and what the edge answers."""
    for kind in (Ask, Answer):
        try:
            found = kind.parse(data)
        except InvalidRecord as error:
            one_line(error)
            continue
        found.write(bench().input)
        again = kind.read(bench().input)
        if isinstance(found, Ask):
            assert again == found
        else:
            assert type(again.error) is type(found.error)
            assert str(again.error) == str(found.error)


def fuzz_measured(data: bytes) -> None:
    """What an edge says that it has measured, and what an administrator may have written of it and of a round."""
    text = data.decode(errors="replace")
    values = text.split("\0")
    for each in ({"phases": text}, {"moved": text}, dict(zip(("phases", "moved"), values, strict=False))):
        for found in (Measured.from_hash(each), Measured.from_json(text)):
            kept = found.with_metrics({values[0]: 0.5, text: 1, **found.metrics})
            assert len(kept.to_json()) <= MOST_MEASURED_BYTES
            again = Measured.from_json(kept.judged_at(found.judged_ms))
            assert (again.phases, again.moved, again.judged_ms) == (kept.phases, kept.moved, kept.judged_ms)
            assert again.metrics.items() <= kept.metrics.items()
            assert Measured.from_hash(found.to_hash()) == replace(found, metrics={}, judged_ms=0)
            for span in spans(found, None, opened_ms=5, closed_ms=9, now_ms=7):
                assert 5 <= span.start_ms <= (span.end_ms or 9) <= 9
    try:
        summary = RoundSummary.from_json(text)
    except DamagedRecord:
        return
    again = RoundSummary.from_json(summary.closed_at(summary.closed_ms))
    assert again.round == summary.round
    row_of_summary(summary)


def fuzz_path(data: bytes) -> None:
    """An object's path from a hash's field."""
    here = bench()
    text = data.decode("utf-8", "surrogateescape")
    try:
        assert checked_path(text) == text
    except StoreError as error:
        one_line(error)
    else:
        root = here.folder / "store"
        assert (root / text).resolve().is_relative_to(root.resolve())
        assert "\0" not in text
    for look in (here.store.local, here.store.exists, here.store.seal, here.store.list, here.store.remove):
        if look == here.store.remove and not text.startswith("runs/x"):
            continue
        try:
            found = look(text)
        except StoreError as error:
            one_line(error)
        else:
            assert not isinstance(found, Path) or found.read_bytes() != b"secret"


def fuzz_channel(data: bytes) -> None:
    """The name of a channel on which anything may have been published."""
    text = data.decode("utf-8", "surrogateescape")
    for run in ("r", "a.b-c"):
        found = RunKeys(run).parse_client_channel(text)
        if found is not None:
            client, rest = found
            assert is_name(client)
            whole = f"{RunKeys(run).prefix}client:{client}"
            assert text in (f"{whole}:{rest}", whole)
    number = count(text)
    assert number is None or 0 <= number < 10**15


def fuzz_safetensors(data: bytes) -> None:
    """What crosses the wire, at the worker and at the edges that receive what came of it."""
    path = bench().file(data)
    _refused(lambda: TensorFile.open(path))
    _refused(lambda: digest_and_check(path))
    _refused(lambda: check_metadata(path))
    _refused(lambda: take_safetensors(path))
    for format_ in Format:
        _refused(lambda format_=format_: from_safetensors(path, bench().output, format_))


def fuzz_shard_index(data: bytes) -> None:
    """The index of a folder of shards, which a coordinator's operator may have from elsewhere."""
    try:
        index = parse_index(data, "x")
    except CheckpointError as error:
        one_line(error)
        return
    assert parse_index(index.to_json().encode(), "x").shard_of == index.shard_of
    for shard in index.shards:
        assert Path(bench().output.parent / shard).parent == bench().output.parent, "it lies beside the index"


def fuzz_structure(data: bytes) -> None:
    """The nesting that stands in the metadata of a safetensors file."""
    text = data.decode("utf-8", "surrogatepass") if _is_utf8(data) else ""
    try:
        structure = Structure.from_json(text, "x")
    except CheckpointError as error:
        one_line(error)
        return
    assert Structure.from_json(structure.to_json(), "x") == structure
    tensors = {leaf.name: np.zeros(1, np.float32) for leaf in structure.leaves()}
    for format_ in Format:
        _refused(lambda format_=format_: write(bench().output, Checkpoint(tensors, structure), format_))


def fuzz_checkpoint(data: bytes) -> None:
    """A trainer's or an aggregator's checkpoint, in whatever format it seems to be, and in each that it may be."""
    path = bench().file(data)
    try:
        formats = [detect(path)]
    except CheckpointError as error:
        one_line(error)
        formats = list(Format)
    for format_ in formats:
        _refused(lambda format_=format_: read(path, format_))
        _refused(lambda format_=format_: to_safetensors(path, bench().output, format_))


def _of(format_: Format) -> Callable[[bytes], None]:
    def fuzz(data: bytes) -> None:
        path = bench().file(data)
        _refused(lambda: to_safetensors(path, bench().output, format_))

    return fuzz


def _refused(act: Callable[[], object]) -> None:
    try:
        act()
    except (CheckpointError, StoreError) as error:
        one_line(error)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def fuzz_server_file(data: bytes) -> None:
    """What a result folder from somebody else holds for its server: a snapshot, commands, or one after the other."""
    home = bench().folder / "server"
    home.mkdir(exist_ok=True)
    (home / "dump.rdb").write_bytes(data)
    try:
        check_folder(home)
    except InvalidSetting as error:
        one_line(error)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "info": fuzz_info,
    "report": fuzz_report,
    "evaluation": fuzz_evaluation,
    "image": fuzz_image,
    "update": fuzz_update,
    "pulse": fuzz_pulse,
    "relayed": fuzz_relayed,
    "measured": fuzz_measured,
    "path": fuzz_path,
    "proxy_answer": fuzz_proxy_answer,
    "token": fuzz_token,
    "wish": fuzz_wish,
    "channel": fuzz_channel,
    "request": fuzz_request,
    "server_file": fuzz_server_file,
    "safetensors": fuzz_safetensors,
    "structure": fuzz_structure,
    "shard_index": fuzz_shard_index,
    "checkpoint": fuzz_checkpoint,
    "torch": _of(Format.TORCH),
    "pickle": _of(Format.PICKLE),
    "npz": _of(Format.NPZ),
}
