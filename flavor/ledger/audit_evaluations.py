"""What `flavor verify` checks of evaluations: their signed records, and the objects that these name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flavor.ledger.archive import Archive
from flavor.ledger.chain import Chain, Problem
from flavor.ledger.evaluation_reports import report_objects
from flavor.ledger.evaluation_signers import compared
from flavor.ledger.evaluations import (
    EvaluationRecord,
    Signed,
    manifest_of,
    merged_problem,
    newest_of,
    read_records,
)
from flavor.ledger.trust import Trust
from flavor.records.objects import ObjectRef
from flavor.store.paths import clients_folder, evaluation_prefix, evaluations_folder, round_of

_RESULT = re.compile(r"([^/]+)/([0-9]{4,9})-result-([0-9]{1,9})-(report-|image-)?([0-9a-f]{16}\.(?:json|png|jpg))")


@dataclass
class EvaluationAudit:
    """The evaluations of one run, and what is wrong with their records."""

    records: list[EvaluationRecord] = field(default_factory=list)
    """Each evaluation once, in the order in which they were closed: also those that are not believed."""
    objects: list[tuple[int, ObjectRef, str]] = field(default_factory=list)
    """Round, object and what it is, of each object that a record names, and of the records themselves."""
    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)


def audit_evaluations(archive: Archive, chain: Chain, trust: Trust) -> EvaluationAudit:
    """Check the records of evaluations against the rounds of the chain. Raises `StoreError` for a failing store."""
    found = EvaluationAudit()
    signed = Signed.of(chain, trust)
    read: list[EvaluationRecord] = []
    for path, record in read_records(archive, chain.listing.paths, signed):
        if isinstance(record, str):
            name = manifest_of(chain.run, path)
            found.problems.append(Problem(name[0] if name else 0, path, record))
        else:
            read.append(record)
    read = compared(read, signed)
    for record in read:
        _check(archive, record, chain, found)
    believed = newest_of(record for record in read if record.is_believed)
    others = newest_of(record for record in read if not record.is_believed and record.name not in believed)
    found.records = sorted([*believed.values(), *others.values()], key=lambda record: record.manifest.closed_ms)
    kept = {record.ref.path for record in found.records}
    found.notices += [
        Problem(record.manifest.round, record.ref.path, "a newer record of this evaluation takes its place")
        for record in read
        if not record.problems and record.ref.path not in kept and not _is_repeated(record, believed)
    ]
    return found


def _is_repeated(record: EvaluationRecord, believed: Mapping[Any, EvaluationRecord]) -> bool:
    """Return whether a believed record is of an attempt that was repeated: a newer one says the same of the model."""
    newer = believed.get(record.name)
    if newer is None or not record.is_believed:
        return False
    old, new = record.manifest, newer.manifest
    results = [{each.client: each.info_digest for each in manifest.judges} for manifest in (old, new)]
    return (old.model_digest, old.judged, results[0]) == (new.model_digest, new.judged, results[1])


def _check(archive: Archive, record: EvaluationRecord, chain: Chain, found: EvaluationAudit) -> None:
    """Add to `found` what is known of a record, and the objects that it names if nothing is wrong with it."""
    manifest, path, round_ = record.manifest, record.ref.path, record.manifest.round
    found.problems += [Problem(round_, path, what) for what in record.problems]
    if record.problems:
        return
    number = f" of evaluation {manifest.evaluation}" if manifest.evaluation else " of the evaluation"
    found.objects.append((round_, record.ref, f"the record{number}"))
    merged = ObjectRef(manifest.merged_path, manifest.merged_digest)
    found.objects.append((round_, merged, f"the merged information{number}"))
    for judge in manifest.judges:
        info = ObjectRef(judge.info_path, judge.info_digest)
        found.objects.append((round_, info, f"the result{number} of {judge.client}"))
        found.objects += [(round_, ref, f"{what}{number}") for ref, what in report_objects(archive, manifest, judge)]
    if what := merged_problem(archive, manifest):
        found.problems.append(Problem(round_, merged.path, what))
    if round_ > chain.closed:
        found.notices.append(Problem(round_, path, "it is of a round that has no manifest yet"))
    if record.stranger and chain.manifests:
        what = f"{record.stranger}: `flavor recover` and `flavor results` do not believe it"
        found.notices.append(Problem(round_, path, what))
    found.notices += [Problem(round_, path, what) for what in record.notices]


def taken_paths(run: str, of_clients: frozenset[str], named: set[str]) -> Iterator[str]:
    """Yield the objects in clients' folders that an aggregator has taken a copy of, which a record names."""
    for path in of_clients:
        if found := _RESULT.fullmatch(path.removeprefix(clients_folder(run))):
            client, round_, number, kind, digest = found.groups()
            prefix = evaluation_prefix(run, int(round_), int(number))
            if f"{prefix}{kind or 'result-'}{client}-{digest}" in named:
                yield path


def left_over(run: str, unnamed: list[str]) -> list[Problem]:
    """Return notices about objects of evaluations that no record names: of one without a result, or that goes on."""
    folder = evaluations_folder(run)
    return [
        Problem(round_of(path), path, "no record of an evaluation names it: one without a result, or one that goes on")
        for path in unnamed
        if path.startswith(folder)
    ]
