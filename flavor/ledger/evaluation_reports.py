"""The reports that the results of an evaluation name: result.json and its images, by the digests that a site signed."""

from __future__ import annotations

from collections.abc import Iterator

from flavor.errors import InvalidInfo, InvalidRecord
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.evaluation import EvaluationManifest, JudgeRecord
from flavor.records.evaluated_info import report_digest
from flavor.records.info import parse_info
from flavor.records.objects import ObjectRef
from flavor.records.report_parser import parse_report
from flavor.store.paths import evaluation_prefix, handed_image, handed_report, taken_image, taken_report


def report_objects(
    archive: Archive, manifest: EvaluationManifest, judge: JudgeRecord
) -> Iterator[tuple[ObjectRef, str]]:
    """Yield the report of this site and its images, with what each is, as far as the bytes that name them are there.

    Bytes that are not those that were signed name nothing. Raises `StoreError` for a failing store.
    """
    place = (archive.run, manifest.round, manifest.evaluation, judge.client)
    # a bucket leaves objects where their site has put them
    is_taken = judge.info_path.startswith(evaluation_prefix(*place[:3]))
    try:
        info = archive.read(judge.info_path)
        if info is None or sha256(info) != judge.info_digest:
            return
        digest = report_digest(parse_info(info, where=judge.info_path))
        if digest is None:
            return
        path = (taken_report if is_taken else handed_report)(*place, digest)
        yield ObjectRef(path, digest), f"the report of {judge.client}"
        data = archive.read(path)
        if data is None or sha256(data) != digest:
            return
        report = parse_report(data, where=path, is_sealed=True)
    except (InvalidInfo, InvalidRecord):  # no aggregator has taken that
        return
    for image in report.images:
        path = (taken_image if is_taken else handed_image)(*place, image.digest, image.extension)
        yield ObjectRef(path, image.digest), f"an image of {judge.client}"
