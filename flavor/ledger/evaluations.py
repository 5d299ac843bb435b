"""The signed records of a run's evaluations, read from the store and checked against its rounds."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from flavor.errors import FlavorError, InvalidRecord, InvalidSetting, ObjectWithheld, OtherProtocol
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.chain import Chain
from flavor.ledger.evaluation import EvaluationManifest, JudgeRecord
from flavor.ledger.keys import fingerprint
from flavor.ledger.signers import signature_problems
from flavor.ledger.trust import Trust, trust_hint
from flavor.records.names import is_name
from flavor.records.objects import ObjectRef
from flavor.store.paths import evaluation_prefix, evaluations_folder, result_prefix

_MANIFEST = re.compile(r"([0-9]{4,9})-([0-9]{1,9})-manifest-[0-9a-f]{16}\.json")

_ALL = "if it is an aggregator's, name the keys of all aggregators"


@dataclass(frozen=True)
class EvaluationRecord:
    """The manifest of an evaluation, as it lies in the store."""

    ref: ObjectRef
    manifest: EvaluationManifest
    problems: tuple[str, ...] = ()
    """What is wrong with it."""
    stranger: str = ""
    """That neither a round nor `--trust` names the key of its signature; '' for the key of a known aggregator."""
    notices: tuple[str, ...] = ()
    """What is to be told of it, and is not wrong."""

    @property
    def is_believed(self) -> bool:
        """Whether a known aggregator has signed it, and nothing is wrong with it."""
        return not self.problems and not self.stranger

    @property
    def why_not(self) -> str:
        """Why it is not believed; '' for one that is."""
        return self.problems[0] if self.problems else self.stranger

    @property
    def name(self) -> tuple[int, int]:
        """The round and the number of the evaluation."""
        return self.manifest.round, self.manifest.evaluation

    @property
    def number(self) -> int:
        """The number of the evaluation among those of its round."""
        return self.manifest.evaluation


@dataclass(frozen=True)
class Signed:
    """What the rounds of a run say about who signs, and which models there are."""

    run_id: str = ""
    """'' where it is not known."""
    models: Mapping[int, str] = field(default_factory=dict)
    """SHA-256 of the global model of each round that is known."""
    clients: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The keys with which each client has signed its updates; none for a client that never did."""
    workers: Collection[str] = ()
    """The keys with which aggregators have signed the rounds that are known."""
    requires_signatures: bool = False
    trust: Trust = field(default_factory=Trust)

    @classmethod
    def of(cls, chain: Chain, trust: Trust) -> Self:
        """Take it from the rounds of a run. The keys of aggregators are those of rounds before the first problem.

        A manifest that was put in the place of another one shows in the round after it, which does not follow it.
        """
        manifests = chain.manifests
        clients: dict[str, set[str]] = {}
        for manifest in manifests:
            for each in manifest.contributors:
                clients.setdefault(each.client, set()).update((each.public_key,) if each.signature else ())
        required = any(manifest.config.get("require_signatures") for manifest in manifests)
        models = {manifest.round: manifest.global_model.digest for manifest in manifests}
        until = min((problem.round - 1 for problem in chain.problems), default=chain.closed + 1)
        workers = {manifest.public_key for manifest in manifests if manifest.round < until}
        run_id = chain.record.run_id if chain.record is not None else ""
        return cls(run_id, models, clients, workers, bool(required), trust)


def manifest_of(run: str, path: str) -> tuple[int, int] | None:
    """Return the round and the number of the evaluation whose manifest has this path; None for another object."""
    folder = evaluations_folder(run)
    found = _MANIFEST.fullmatch(path.removeprefix(folder)) if path.startswith(folder) else None
    return (int(found[1]), int(found[2])) if found else None


def newest_of(records: Iterable[EvaluationRecord]) -> dict[tuple[int, int], EvaluationRecord]:
    """Return the record of each evaluation, in the order in which they were closed.

    An aggregator that is killed after it has put a record into the store leaves one that Redis does not name: the
    attempt after it has the newer one. An attempt that has lost its lease looks whether it is the current one before it
    takes the time of its record: only one that stands still right after that look can leave a newer record.
    """
    found: dict[tuple[int, int], EvaluationRecord] = {}
    for record in sorted(records, key=lambda record: (record.manifest.closed_ms, record.ref.digest)):
        found.pop(record.name, None)
        found[record.name] = record
    return found


def read_records(
    archive: Archive, paths: Collection[str], signed: Signed
) -> Iterator[tuple[str, EvaluationRecord | str]]:
    """Yield each path that is named as a manifest of an evaluation, with its record, or why it cannot be read."""
    for path in sorted(paths):
        name = manifest_of(archive.run, path)
        if name is None:
            continue
        try:
            data = archive.read(path)
            if data is None:
                yield path, "missing: it was listed, and cannot be read"
                continue
            manifest = EvaluationManifest.parse(data, path)
        except (InvalidRecord, ObjectWithheld, OtherProtocol) as error:
            yield path, str(error).removeprefix("object ").removeprefix(f"{path}: ")
            continue
        ref = ObjectRef(path, sha256(data))
        wrong, stranger = list(_wrong(archive.run, ref, name, manifest, signed)), _stranger(manifest, signed)
        if stranger and signed.trust.workers:
            wrong.append(stranger)
        yield path, EvaluationRecord(ref, manifest, tuple(wrong), stranger)


def _wrong(
    run: str, ref: ObjectRef, name: tuple[int, int], manifest: EvaluationManifest, signed: Signed
) -> Iterator[str]:
    """Yield what is wrong with a manifest, without the bytes of the objects that it names."""
    if (manifest.run, manifest.round, manifest.evaluation) != (run, *name):
        yield f"it is of evaluation {manifest.evaluation} of round {manifest.round} of run {manifest.run!r}"
        return
    if signed.run_id and manifest.run_id != signed.run_id:
        yield f"it is of another run of this name: its run_id is {manifest.run_id[:12]}…, not {signed.run_id[:12]}…"
        return
    if not ref.path.endswith(f"-{ref.digest[:16]}.json"):
        yield f"it was changed: its SHA-256 is {ref.digest[:16]}…"
    yield from signature_problems(manifest)
    model = signed.models.get(manifest.round)
    if model is not None and model != manifest.model_digest:
        yield f"it is of the model {manifest.model_digest[:12]}…, and that of round {manifest.round} is {model[:12]}…"
    prefix, judges = evaluation_prefix(run, *name), [judge.client for judge in manifest.judges]
    allowed = {manifest.merged_path: [prefix]} if manifest.merged_path else {}
    for judge in manifest.judges:  # a bucket leaves a result where its site has put it
        own = [result_prefix(run, *name, judge.client)] if is_name(judge.client) else []
        allowed[judge.info_path] = [prefix, *own]
    for path, starts in allowed.items():
        if not path.startswith(tuple(starts)):
            yield f"{path!r} is not an object of this evaluation"
    if len(set(judges)) < len(judges) or set(judges) & manifest.missing.keys():
        yield "a site is in it twice"
    if strange := sorted({*judges, *manifest.missing} - set(manifest.expected)):
        yield f"{', '.join(strange)[:200]} took part without having been asked"
    for judge in manifest.judges:
        yield from (f"{judge.client}: {what}" for what in _of_site(manifest, judge, signed))


def _stranger(manifest: EvaluationManifest, signed: Signed) -> str:
    """Return that the key of a record is of no known aggregator, with what to do if it is; '' for a known one.

    A site that writes to the store may sign a record as well.
    """
    key, trusted = manifest.public_key, signed.trust.workers
    if key in trusted or key in signed.workers:
        return ""
    by = "--trust does not name" if trusted else "has signed no round"
    hint = trust_hint(*((None, each) for each in sorted({*trusted, *signed.workers})), (None, key), when=_ALL)
    return f"it is signed with key {fingerprint(key)}, which {by}{f' ({hint})' if hint else ''}"


def _of_site(manifest: EvaluationManifest, judge: JudgeRecord, signed: Signed) -> Iterator[str]:
    if not is_name(judge.client):
        yield "that is not a client's name"
        return
    trusted, known = signed.trust.clients.get(judge.client, frozenset()), signed.clients.get(judge.client, ())
    if not judge.signature:
        if trusted or known or signed.requires_signatures:
            yield "its result is not signed, and its updates are, or have to be"
        return
    try:
        if not manifest.statement(judge).is_signed(judge.public_key, judge.signature):
            yield f"the signature on its result is not that of its key {fingerprint(judge.public_key)}"
    except InvalidSetting as error:
        yield str(error)
    if trusted and judge.public_key not in trusted:
        yield f"its result is signed with key {fingerprint(judge.public_key)}, which --trust does not name for it"


def merged_problem(archive: Archive, manifest: EvaluationManifest) -> str:
    """Return how the merged information of an evaluation contradicts its manifest; '' where it does not, or is gone."""
    try:
        metadata = json.loads(archive.read(manifest.merged_path) or b"{}").get("metadata")
    except (FlavorError, ValueError, AttributeError, RecursionError):
        return ""  # it was changed, which its digest shows
    if not isinstance(metadata, dict):
        return ""
    said = metadata.get("clients"), metadata.get("datasetSize")
    if manifest.central is not None:
        is_same = said == ([], [manifest.central])
        return "" if is_same else "its number of examples is not that of the manifest"
    recorded = [judge.client for judge in manifest.judges], [judge.num_examples for judge in manifest.judges]
    return "" if said == recorded else "its clients and their datasetSize are not those of the manifest"
