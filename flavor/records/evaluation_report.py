"""What an evaluator can report beside its metrics, in `result.json`: tables, bars, heatmaps, plots and images.

The contract is that of federated validation in the framework from which training scripts come: `metadata.datasetSize`,
and `results` with lists of these kinds. One site writes it, and all who look at the run read it:
`flavor.records.report_parser` is strict. `flavor.records.merged_report` makes one of those of several sites.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flavor.errors import InvalidReport
from flavor.records.counts import COMPUTED, PREFIX

FILE_NAME = "result.json"
MAX_BYTES = 2**20
"""A result.json beyond this is refused unread."""
MOST_OF_A_KIND = 64
"""Entries of one kind."""
MOST_IMAGE_BYTES = 2 * 2**20
"""Of one image."""
MOST_IMAGES = 16
MOST_IMAGES_BYTES = 8 * 2**20
"""Of all images of one result.json."""
DIGEST_NAME = "reportDigest"
"""The entry of an info's metadata that has the SHA-256 of the site's report, so that the site's signature covers it."""
RESERVED = tuple(sorted(prefix.rstrip("/") for prefix in ("basic/", PREFIX, *COMPUTED)))
"""The first parts of metrics' names that have a meaning of their own, and so are no titles of tables."""


class Merge(StrEnum):
    """How the entries of several sites with the same title and labels become one."""

    MEAN = "mean"
    """The plain mean over the sites, of each value."""
    SUM = "sum"
    NONE = "none"
    """Each site's entry is shown by itself."""


@dataclass(frozen=True)
class Table:
    """Values by label; as `bars`, drawn as bars with the axis `y_axis`."""

    title: str
    labels: tuple[str, ...]
    values: tuple[float | None, ...]
    """None where a value is missing at this site, infinite or NaN."""
    y_axis: str = ""
    merge: Merge = Merge.MEAN


@dataclass(frozen=True)
class Heatmap:
    """A matrix with a row for each of `y_labels`, and a column for each of `x_labels`."""

    title: str
    x_labels: tuple[str, ...]
    y_labels: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    x_axis: str = ""
    y_axis: str = ""
    merge: Merge = Merge.NONE


@dataclass(frozen=True)
class Plot:
    """A line for each label: its points are `x_values` and `y_values` of the same place."""

    title: str
    labels: tuple[str, ...]
    x_values: tuple[tuple[float | None, ...], ...]
    y_values: tuple[tuple[float | None, ...], ...]
    x_axis: str = ""
    y_axis: str = ""


@dataclass(frozen=True)
class Image:
    """A PNG or JPEG image of the site's own."""

    title: str
    filename: str
    """Its path within `$OUTPUT_PATH`, as the evaluator names it."""
    digest: str = ""
    """SHA-256 of the file; '' in what an evaluator writes."""
    size_bytes: int = 0
    extension: str = ""
    """`.png` or `.jpg`, by its content."""


@dataclass(frozen=True)
class Report:
    """One site's result.json."""

    dataset_size: int
    tables: tuple[Table, ...] = ()
    bars: tuple[Table, ...] = ()
    heatmaps: tuple[Heatmap, ...] = ()
    plots: tuple[Plot, ...] = ()
    images: tuple[Image, ...] = ()
    not_finite: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Which of the metrics are infinite or NaN, with the name of the value (`flavor.records.not_finite`).

    `to_plain` has `null` for them: the information beside the report says which values these were.
    """

    @property
    def metrics(self) -> dict[str, float | None]:
        """The values of the tables as metrics: `TITLE/LABEL`, or `LABEL` in a table without a title."""
        return {
            metric_of(table.title, label): value
            for table in self.tables
            for label, value in zip(table.labels, table.values, strict=True)
        }

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON's own values, with the names of result.json."""
        entries = {
            "tables": [_plain_table(each) for each in self.tables],
            "bars": [{**_plain_table(each), "y-axis": each.y_axis} for each in self.bars],
            "heatmaps": [
                {
                    "title": each.title,
                    "x-labels": list(each.x_labels),
                    "y-labels": list(each.y_labels),
                    "values": [list(row) for row in each.values],
                    "x-axis": each.x_axis,
                    "y-axis": each.y_axis,
                    "merge": each.merge.value,
                }
                for each in self.heatmaps
            ],
            "plots": [
                {
                    "title": each.title,
                    "labels": list(each.labels),
                    "x-values": [list(line) for line in each.x_values],
                    "y-values": [list(line) for line in each.y_values],
                    "x-axis": each.x_axis,
                    "y-axis": each.y_axis,
                }
                for each in self.plots
            ],
            "images": [
                {
                    "title": each.title,
                    "filename": each.filename,
                    "digest": each.digest,
                    "size_bytes": each.size_bytes,
                    "extension": each.extension,
                }
                for each in self.images
            ],
        }
        return {"metadata": {"datasetSize": self.dataset_size}, "results": entries}

    def to_bytes(self) -> bytes:
        """Return it as an edge hands it in. Raises `InvalidReport` where that is too large."""
        data = json.dumps(self.to_plain(), separators=(",", ":"), allow_nan=False).encode()
        if len(data) > MAX_BYTES:
            what = f"{len(data)} bytes, and {MAX_BYTES} at most are taken"
            raise InvalidReport(f"{FILE_NAME}: {what}: report fewer values")
        return data


def metric_of(title: str, label: str) -> str:
    """Return the name of the metric that a value of a table becomes."""
    return f"{title}/{label}" if title else label


def _plain_table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "labels": list(table.labels),
        "values": list(table.values),
        "merge": table.merge.value,
    }
