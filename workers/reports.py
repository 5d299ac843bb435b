"""Inspect the report that belongs to a site's result: its result.json and the images that this names.

The site's information, which the site has signed, names the report by its digest, and the report names the images by
theirs.
"""

from __future__ import annotations

from flavor.errors import InvalidReport
from flavor.records.evaluated_info import contradiction, report_digest
from flavor.records.evaluation_report import MAX_BYTES, MOST_IMAGE_BYTES, Image, Report
from flavor.records.images import picture_of
from flavor.records.info import Info
from flavor.records.objects import ObjectRef
from flavor.records.report_parser import parse_report
from flavor.store.paths import handed_image, handed_report, taken_image, taken_report
from flavor.store.protocol import ObjectStore


def take_report(store: ObjectStore, info: Info, *, run: str, round_: int, number: int, client: str) -> Report | None:
    """Take the report that the information names out of its site's reach, and return it; None where it names none.

    Raises `InvalidReport`, which names the field that is wrong, and what the store raises.
    """
    digest = report_digest(info)
    if digest is None:
        return None
    place = (run, round_, number, client)
    handed_in, target = handed_report(*place, digest), taken_report(*place, digest)
    ref = ObjectRef(store.take(handed_in, target, most=MAX_BYTES), digest)
    report = parse_report(store.read(ref, most=MAX_BYTES), where="result.json", is_sealed=True)
    contradiction(info, report)
    if missing := [name for name in report.metrics if name not in info["metrics"]]:
        raise InvalidReport(f"result.json: info.json lacks {missing[0][:60]!r} of its tables")
    for at, image in enumerate(report.images):
        _take_image(store, image, f"result.json: results.images[{at}]", place)
    return report


def _take_image(store: ObjectStore, image: Image, where: str, place: tuple[str, int, int, str]) -> None:
    handed_in = handed_image(*place, image.digest, image.extension)
    target = taken_image(*place, image.digest, image.extension)
    ref = ObjectRef(store.take(handed_in, target, most=MOST_IMAGE_BYTES), image.digest)
    data = store.read(ref, most=MOST_IMAGE_BYTES)
    try:
        found = picture_of(data)
    except ValueError as error:
        raise InvalidReport(f"{where} {error}") from None
    if (found.extension, len(data)) != (image.extension, image.size_bytes):
        raise InvalidReport(f"{where} is {found.extension} of {len(data)} bytes, and is said to be another")
