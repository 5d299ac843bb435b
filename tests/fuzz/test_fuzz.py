"""Every door for another party's bytes, with damaged seeds and with made-up input: it refuses as documented, or reads.

Seconds, in CI. `make fuzz` looks for longer, guided by coverage, through the same doors.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import pytest
from corpus import seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import COUNTING_INFO, GOOD_INFO, TARGETS, bench

from flavor.checkpoints import read
from flavor.records.images import picture_of
from flavor.records.info import parse_info
from flavor.records.report_parser import parse_report

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
MOST_BYTES = 256 * 2**20
"""Of memory, for an input of a few kilobytes; one tensor may unfold to 64 MiB, and is copied as it is written."""

Edit = tuple[int, int, int, bytes]
EDITS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 2**20), st.integers(0, 300), st.binary(max_size=12)),
    min_size=1,
    max_size=6,
)


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """Overwrite, insert, cut out, repeat or cut off."""
    data = bytearray(content)
    for kind, place, length, new in edits:
        at = place % (len(data) + 1)
        if kind == 0:
            data[at : at + len(new)] = new
        elif kind == 1:
            data[at:at] = new
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * 3
        else:
            del data[at:]
    return bytes(data)


def bounded(target: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        TARGETS[target](data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES, peak


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_seeds(target: str) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)
    @given(st.sampled_from(seeds()[target]), EDITS)
    def check(content: bytes, edits: list[Edit]) -> None:
        bounded(target, edited(content, edits))

    check()


@pytest.mark.parametrize("target", TARGETS)
def test_noise(target: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=CHECKS)
    @given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x04", b"\x08\0\0\0\0\0\0\0{", b"\x00"]))
    def check(data: bytes, head: bytes) -> None:
        TARGETS[target](head + data)

    check()


def test_the_seeds_are_what_is_accepted() -> None:
    """Else the fuzzer only sees the first check of each parser."""
    for target in ("safetensors", "checkpoint", "torch", "pickle", "npz"):
        for content in seeds()[target]:
            assert read(bench().file(content)).tensors, (target, content[:40])
    for content in seeds()["info"][:3]:
        parse_info(content, where="seed")
    for content in seeds()["report"]:
        parse_report(content, where="seed", is_sealed=True)
    assert [picture_of(content) for content in seeds()["image"]] == [(".png", 2, 3), (".jpg", 2, 3)]
    assert len(seeds()["structure"]) >= 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("epoch", "datasetSize", "importance", "note"), JSON),
        **dict.fromkeys(GOOD_INFO["metrics"], st.floats() | st.integers() | JSON),
    },
)
COUNTS = {
    name: st.just(value)
    | st.lists(st.integers(-1, 9) | st.integers() | st.floats(-1e300, 1e300), min_size=len(value), max_size=len(value))
    | st.lists(st.integers(0, 9), max_size=5)
    for name, value in COUNTING_INFO["metrics"].items()
    if isinstance(value, list)
}


@settings(max_examples=200, deadline=None, suppress_health_check=CHECKS)
@given(st.fixed_dictionaries({}, optional={"metadata": PARTS | JSON, "metrics": PARTS | JSON, "other": JSON}) | JSON)
def test_made_up_infos(value: Any) -> None:
    TARGETS["info"](json.dumps(value).encode())


@settings(max_examples=300, deadline=None, suppress_health_check=CHECKS)
@given(st.fixed_dictionaries({}, optional={**COUNTS, "count/x": JSON, "pooled/auc": st.just(1.0)}))
def test_made_up_counts(metrics: dict[str, Any]) -> None:
    """Of the lengths that the pooled metrics need, and of others."""
    TARGETS["info"](json.dumps({**GOOD_INFO, "metrics": {**GOOD_INFO["metrics"], **metrics}}).encode())


TEXTS = st.sampled_from(["", "a", "b", "count", "pooled/auc", "x\n", "a (weighted)", "x" * 201])
NUMBERS = st.sampled_from([0, 1, -1.5, float("nan"), None, True, "1", 1e301, 10**400])
LABELS, VALUES = st.lists(TEXTS, max_size=3), st.lists(NUMBERS, max_size=3)
KINDS = {
    "tables": {
        "title": TEXTS,
        "labels": LABELS,
        "values": VALUES,
        "merge": st.sampled_from(["mean", "sum", "x", None]),
    },
    "heatmaps": {"title": TEXTS, "x-labels": LABELS, "y-labels": LABELS, "values": st.lists(VALUES, max_size=3)},
    "plots": {
        "title": TEXTS,
        "labels": LABELS,
        **dict.fromkeys(("x-values", "y-values"), st.lists(VALUES, max_size=3)),
    },
    "images": {
        "title": TEXTS,
        "filename": st.sampled_from(["a.png", "../a.png", "/a", "a//b", "a\\b", ".", "b/a.png"]),
        "digest": st.sampled_from(["0" * 64, "", 1]),
        "size_bytes": st.sampled_from([0, 2**20, -1, 2**70, True]),
        "extension": st.sampled_from([".png", ".jpg", ".svg"]),
    },
}
ENTRIES_OF = {
    kind: st.lists(st.fixed_dictionaries(fields) | JSON, max_size=3) | JSON
    for kind, fields in {**KINDS, "bars": {**KINDS["tables"], "y-axis": TEXTS}}.items()
}


@settings(max_examples=300, deadline=None, suppress_health_check=CHECKS)
@given(st.fixed_dictionaries({}, optional=ENTRIES_OF) | JSON, st.sampled_from([0, 5, -1, 2**64, 1.0, None]))
def test_made_up_reports(results: Any, size: Any) -> None:
    TARGETS["report"](json.dumps({"metadata": {"datasetSize": size}, "results": results}).encode())


PIECES = st.sampled_from(
    ["..", ".", "", "/", "runs", "r", "a", "\0", "\n", "~", "\\", "-x", "é", "a" * 200, "link", "%2e"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=CHECKS)
@given(st.lists(PIECES, max_size=6).map("/".join) | st.text(max_size=20))
def test_made_up_paths(text: str) -> None:
    TARGETS["path"](text.encode("utf-8", "surrogateescape"))


SIZES = st.integers(-1, 4) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 1.0, True, "1", None])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I64", "BOOL", "F8_E4M3", "X", 3, None]),
        "shape": st.lists(SIZES, max_size=4) | JSON,
        "data_offsets": st.lists(SIZES | st.integers(0, 64), min_size=2, max_size=2) | JSON,
    }
)


@settings(max_examples=200, deadline=None, suppress_health_check=CHECKS)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "flavor.scale/a", "__metadata__", "", "é"]), ENTRIES | JSON, max_size=4),
    st.binary(max_size=64),
    st.integers(-3, 3),
)
def test_made_up_headers(table: dict[str, Any], data: bytes, off_by: int) -> None:
    text = json.dumps(table).encode()
    TARGETS["safetensors"](struct.pack("<Q", max(0, len(text) + off_by)) + text + data)


NODES = st.recursive(
    st.builds(
        lambda name, kind: {"t": name, **({"as": kind} if kind else {})}, st.text(max_size=3), st.text(max_size=6)
    )
    | st.builds(lambda value: {"c": value}, JSON),
    lambda inner: (
        st.builds(lambda items: {"l": items}, st.lists(inner, max_size=3))
        | st.builds(lambda items: {"u": items}, st.lists(inner, max_size=3))
        | st.builds(lambda pairs: {"d": pairs}, st.lists(st.tuples(st.text(max_size=2) | JSON, inner), max_size=3))
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=CHECKS)
@given(st.fixed_dictionaries({}, optional={"root": NODES | JSON, "prefix": JSON}))
def test_made_up_structures(value: Any) -> None:
    TARGETS["structure"](json.dumps(value).encode())


FIELDS = st.dictionaries(
    st.integers(0, 6), st.binary(max_size=40).map(lambda text: text.replace(b"\0", b"")), min_size=1, max_size=4
)


@settings(max_examples=150, deadline=None, suppress_health_check=CHECKS)
@given(FIELDS)
def test_made_up_update_fields(fields: dict[int, bytes]) -> None:
    TARGETS["update"](b"\0".join(bytes([name]) + value for name, value in fields.items()))


def test_a_long_story_is_cut() -> None:
    info = {**GOOD_INFO, "metrics": {str(number): "x" for number in range(10_000)}}
    TARGETS["update"](b"\x04" + json.dumps(info).encode())
