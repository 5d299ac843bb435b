"""Reads a `result.json`, which comes from another party: strictly, and naming the field that is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flavor.errors import InvalidReport
from flavor.records.counts import LARGEST
from flavor.records.evaluation_report import (
    MAX_BYTES,
    MOST_IMAGE_BYTES,
    MOST_IMAGES,
    MOST_IMAGES_BYTES,
    MOST_OF_A_KIND,
    RESERVED,
    Heatmap,
    Image,
    Merge,
    Plot,
    Report,
    Table,
    metric_of,
)
from flavor.records.info import LONGEST_NAME, MOST_EXAMPLES, has_unseen
from flavor.records.merging import WEIGHTED
from flavor.records.not_finite import word_of
from flavor.records.objects import is_digest

_FILE = re.compile(r"[^\x00-\x1f\\/]+(/[^\x00-\x1f\\/]+)*")
_SHOWN = 40


def parse_report(data: bytes, *, where: str, is_sealed: bool = False) -> Report:
    """Read a result.json. Raises `InvalidReport`, which names the field that is wrong.

    `is_sealed` for one that an edge has handed in, in which each image has its digest, size and extension.
    """
    if len(data) > MAX_BYTES:
        raise InvalidReport(f"{where}: larger than {MAX_BYTES} bytes")
    try:
        value = json.loads(data.decode())  # with NaN and Infinity, which Python's own json.dump writes
    except UnicodeDecodeError:
        raise InvalidReport(f"{where}: not a JSON file in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InvalidReport(f"{where}: not complete JSON ({str(error)[:200]})") from None
    try:
        return _report(_Field(value, ""), is_sealed)
    except _Wrong as wrong:
        raise InvalidReport(f"{where}: {wrong}") from None


class _Wrong(Exception):
    """What is wrong with a field, with its name."""


@dataclass(frozen=True)
class _Field:
    """A value in result.json, with its place."""

    value: Any
    where: str

    def wrong(self, what: str) -> _Wrong:
        return _Wrong(f"{self.where or 'it'} {what}")

    def part(self, name: str, *, optional: bool = False) -> _Field:
        """Return the value of this name in an object."""
        if not isinstance(self.value, Mapping):
            raise self.wrong(f"must be an object, not {_shown(self.value)}")
        inner = f"{self.where}.{name}" if self.where else name
        if name not in self.value and not optional:
            raise _Wrong(f"{inner} is missing")
        return _Field(self.value.get(name), inner)

    def items(self, most: int | None = None) -> list[_Field]:
        if not isinstance(self.value, list):
            raise self.wrong(f"must be a list, not {_shown(self.value)}")
        if most is not None and len(self.value) > most:
            raise self.wrong(f"has {len(self.value)} entries, and {most} at most are taken")
        return [_Field(each, f"{self.where}[{number}]") for number, each in enumerate(self.value)]

    def text(self, *, longest: int = LONGEST_NAME) -> str:
        """Return a text that can be seen, of bounded length."""
        if not isinstance(self.value, str):
            raise self.wrong(f"must be a text, not {_shown(self.value)}")
        if len(self.value) > longest:
            raise self.wrong(f"has {len(self.value)} characters, and {longest} at most are taken")
        if has_unseen(self.value):
            raise self.wrong("has characters that cannot be seen, as control characters: leave them out")
        return self.value

    def number(self) -> float | None:
        """Return a finite number; None for null, NaN and infinities, which `_not_finite` tells apart in tables."""
        value = self.value
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(f"must be a number, or null for a missing one, not {_shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if abs(value) > LARGEST:
            raise self.wrong(f"is too large: numbers of {LARGEST:g} at most are taken")
        return value

    def count(self) -> int:
        if type(self.value) is not int:
            raise self.wrong(f"must be an int, not {_shown(self.value)}")
        if not 0 <= self.value <= MOST_EXAMPLES:
            raise self.wrong(f"must be 0 or more, and {MOST_EXAMPLES} at most")
        return int(self.value)


def _report(given: _Field, is_sealed: bool) -> Report:
    if isinstance(given.value, Mapping) and not {"metadata", "results"}.intersection(given.value):
        raise _Wrong("metadata and results are missing: the lists of tables, plots and so on stand in results")
    size, results = given.part("metadata").part("datasetSize").count(), given.part("results")
    kinds: dict[str, Sequence[_Field]] = {}
    for kind in ("tables", "bars", "heatmaps", "plots", "images"):
        found = results.part(kind, optional=True)
        most = MOST_IMAGES if kind == "images" else MOST_OF_A_KIND
        kinds[kind] = found.items(most) if found.value is not None else ()
        _check_titles(kinds[kind])
    report = Report(
        dataset_size=size,
        tables=tuple(_table(each) for each in kinds["tables"]),
        bars=tuple(_table(each, axis=True) for each in kinds["bars"]),
        heatmaps=tuple(_heatmap(each) for each in kinds["heatmaps"]),
        plots=tuple(_plot(each) for each in kinds["plots"]),
        images=tuple(_image(each, is_sealed) for each in kinds["images"]),
        not_finite=_not_finite(kinds["tables"]),
    )
    _check_metrics(kinds["tables"], report.tables)
    if (total := sum(image.size_bytes for image in report.images)) > MOST_IMAGES_BYTES:
        raise results.part("images").wrong(f"have {total} bytes, and {MOST_IMAGES_BYTES} at most are taken")
    return report


def _check_titles(entries: Sequence[_Field]) -> None:
    """Entries of one kind are told apart by their titles, also those of several sites."""
    seen: dict[str, str] = {}
    for each in entries:
        title = each.part("title")
        if (text := title.text()) in seen:
            raise title.wrong(f"is also that of {seen[text]}: give each entry a title of its own")
        seen[text] = each.where


def _check_metrics(entries: Sequence[_Field], tables: Sequence[Table]) -> None:
    seen: dict[str, str] = {}
    for each, table in zip(entries, tables, strict=True):
        for number, label in enumerate(table.labels):
            name, where = metric_of(table.title, label), f"{each.where}.labels[{number}]"
            if not name.strip(" /"):
                raise _Wrong(f"{where} makes a metric without a name: give the table a title, or the value a label")
            if name in seen:
                raise _Wrong(f"{where} makes the metric {name[:_SHOWN]!r}, as {seen[name]} does: use another label")
            if name.split("/", maxsplit=1)[0] in RESERVED:
                raise _Wrong(
                    f"{where} makes the metric {name[:_SHOWN]!r}, and names that begin with "
                    f"{name.split('/', maxsplit=1)[0]!r} have a meaning of their own: use another title"
                )
            if name.endswith(WEIGHTED):
                raise _Wrong(f"{where} ends with {WEIGHTED!r}, which names means over the sites: use another label")
            if len(name) > LONGEST_NAME:
                raise _Wrong(
                    f"{where} makes a metric's name of {len(name)} characters, with the title before it, and "
                    f"{LONGEST_NAME} at most are taken"
                )
            seen[name] = where


def _table(each: _Field, *, axis: bool = False) -> Table:
    labels, values = _texts(each.part("labels")), _numbers(each.part("values"))
    if len(labels) != len(values):
        raise each.wrong(f"has {len(labels)} labels and {len(values)} values: one value for each label")
    return Table(
        each.part("title").text(), labels, values, _axis(each, "y-axis") if axis else "", _merge(each, Merge.MEAN)
    )


def _not_finite(tables: Sequence[_Field]) -> dict[str, str]:
    """Return which metrics of tables that have been read are infinite or NaN, with the name of the value."""
    cells = (
        (metric_of(each.value["title"], label), value)
        for each in tables
        for label, value in zip(each.value["labels"], each.value["values"], strict=True)
    )
    return {name: word for name, value in cells if (word := word_of(value)) is not None}


def _heatmap(each: _Field) -> Heatmap:
    across, down, rows = _texts(each.part("x-labels")), _texts(each.part("y-labels")), _matrix(each.part("values"))
    if len(rows) != len(down) or any(len(row) != len(across) for row in rows):
        raise each.part("values").wrong(
            f"must have {len(down)} rows of {len(across)} numbers, one for each of y-labels and of x-labels"
        )
    axes = _axis(each, "x-axis"), _axis(each, "y-axis")
    return Heatmap(each.part("title").text(), across, down, rows, *axes, _merge(each, Merge.NONE))


def _plot(each: _Field) -> Plot:
    labels, across, up = _texts(each.part("labels")), _matrix(each.part("x-values")), _matrix(each.part("y-values"))
    if not len(labels) == len(across) == len(up):
        raise each.wrong(
            f"has {len(labels)} labels, {len(across)} lines of x-values and {len(up)} of y-values: one for each label"
        )
    for number, (x, y) in enumerate(zip(across, up, strict=True)):
        if len(x) != len(y):
            raise each.wrong(f"has {len(x)} x-values and {len(y)} y-values in line {number}: as many of each")
    return Plot(each.part("title").text(), labels, across, up, _axis(each, "x-axis"), _axis(each, "y-axis"))


def _image(each: _Field, is_sealed: bool) -> Image:
    title, filename = each.part("title").text(), each.part("filename")
    name = filename.text()
    if not _FILE.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
        raise filename.wrong("must be the name of a file within $OUTPUT_PATH, as 'roc.png' or 'plots/roc.png'")
    if not is_sealed:
        return Image(title, name)
    digest, extension = each.part("digest"), each.part("extension")
    if not is_digest(digest.text()):
        raise digest.wrong("is no SHA-256 in hex")
    if extension.text() not in (".png", ".jpg"):
        raise extension.wrong("must be '.png' or '.jpg'")
    size = each.part("size_bytes")
    if size.count() > MOST_IMAGE_BYTES:
        raise size.wrong(f"is more than {MOST_IMAGE_BYTES}")
    return Image(title, name, digest.text(), size.count(), extension.text())


def _texts(given: _Field) -> tuple[str, ...]:
    return tuple(each.text() for each in given.items())


def _numbers(given: _Field) -> tuple[float | None, ...]:
    return tuple(each.number() for each in given.items())


def _matrix(given: _Field) -> tuple[tuple[float | None, ...], ...]:
    return tuple(_numbers(each) for each in given.items())


def _axis(each: _Field, name: str) -> str:
    found = each.part(name, optional=True)
    return found.text() if found.value is not None else ""


def _merge(each: _Field, default: Merge) -> Merge:
    found = each.part("merge", optional=True)
    if found.value is None:
        return default
    if found.value not in tuple(Merge):
        raise found.wrong(f"must be one of {', '.join(Merge)}, not {_shown(found.value)}")
    return Merge(found.value)


def _shown(value: object) -> str:
    return (
        f"{str(value)[:_SHOWN]!a} ({type(value).__name__})"
        if not isinstance(value, list | dict)
        else type(value).__name__
    )
