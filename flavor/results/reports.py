"""Reads what the sites of an evaluation have reported beside their metrics: tables, bars, heatmaps, plots, images.

A site's information names its report by a digest, and the report names its images. Where the information is that of a
signed record, so is the report. See `flavor.records.evaluation_report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flavor.errors import DigestMismatch, InvalidInfo, ObjectMissing
from flavor.records.evaluated_info import report_digest
from flavor.records.evaluation_report import MAX_BYTES, MOST_IMAGE_BYTES, Image, Report
from flavor.records.info import Info
from flavor.records.merged_report import merge_reports
from flavor.records.objects import ObjectRef
from flavor.records.report_parser import parse_report
from flavor.store.paths import handed_image, handed_report, taken_image, taken_report
from flavor.store.protocol import ObjectStore


@dataclass(frozen=True)
class Reports:
    """The reports of one evaluation."""

    sites: Mapping[str, Report] = field(default_factory=dict)
    """By site, sorted; only of sites that have written one and whose bytes are in the store."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Sites whose report cannot be read, and why."""

    def __bool__(self) -> bool:
        """Whether any site has written a report, also one that cannot be read."""
        return bool(self.sites or self.missing)

    @property
    def merged(self) -> dict[str, Any]:
        """The merged entries as plain values; see `merge_reports`."""
        return merge_reports(self.sites)

    def to_plain(self) -> dict[str, Any]:
        """Return all as JSON's own values: `sites`, each as its result.json, `merged`, and `missing`, with reasons."""
        sites = {site: each.to_plain() for site, each in self.sites.items()}
        return {"sites": sites, "merged": self.merged, "missing": dict(self.missing)}


def reports_in(store: ObjectStore, infos: Mapping[str, Info], *, run: str, round_: int, number: int) -> Reports:
    """Return the reports that these sites' information names, in evaluation `number` of the model of `round_`.

    The bytes of each are those that the information names. Raises `StoreError` for a store that is away; a report that
    is not in the store, or is wrong, is told in `missing`.
    """
    found, missing = {}, {}
    for site, info in sorted(infos.items()):
        try:
            report = report_in(store, info, run=run, round_=round_, number=number, site=site)
        except (ObjectMissing, DigestMismatch, InvalidInfo) as error:
            missing[site] = str(error)
        else:
            if report is not None:
                found[site] = report
    return Reports(found, missing)


def report_in(store: ObjectStore, info: Info, *, run: str, round_: int, number: int, site: str) -> Report | None:
    """Return the report that a site's information names; None where it names none.

    Raises `StoreError`, and `InvalidInfo` for a report that is wrong.
    """
    digest = report_digest(info)
    if digest is None:
        return None
    place = (run, round_, number, site, digest)
    data = _read(store, (taken_report(*place), handed_report(*place)), digest, MAX_BYTES)
    return parse_report(data, where=f"result.json of {site}", is_sealed=True)


def image_in(store: ObjectStore, image: Image, *, run: str, round_: int, number: int, site: str) -> bytes:
    """Return the bytes of an image that a site's report names. Raises `StoreError`."""
    place = (run, round_, number, site, image.digest, image.extension)
    return _read(store, (taken_image(*place), handed_image(*place)), image.digest, MOST_IMAGE_BYTES)


def _read(store: ObjectStore, paths: tuple[str, str], digest: str, most: int) -> bytes:
    """Read an object that a worker has taken: a folder has moved it, and in a bucket it lies where its site put it."""
    taken, handed_in = paths
    try:
        return store.read(ObjectRef(taken, digest), most=most)
    except ObjectMissing:
        return store.read(ObjectRef(handed_in, digest), most=most)
