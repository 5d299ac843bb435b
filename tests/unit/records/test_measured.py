"""What is measured of a client in a round: an edge writes it, and a reader takes nothing of it that is no measure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flavor.records.info import CONFUSION
from flavor.records.measured import (
    LONGEST_NAME,
    MOST_BYTES,
    MOST_METRICS,
    MOST_PHASES,
    Measured,
    PhaseStart,
)
from flavor.records.moved import Moved
from flavor.records.pulse import Doing
from flavor.records.update import FIELDS, Refused, Update, from_hash

STARTS = (PhaseStart(Doing.DOWNLOADING, 1000), PhaseStart(Doing.TRAINING, 1500), PhaseStart(Doing.UPLOADED, 1500))
MEASURED = Measured(STARTS, Moved(4096, 8192))


def test_an_edge_writes_it_beside_its_update_and_beside_a_refusal() -> None:
    fields = MEASURED.to_hash()
    assert fields == {"phases": '[["downloading",1000],["training",1500],["uploaded",1500]]', "moved": "[4096,8192]"}
    assert set(fields) <= set(FIELDS)
    assert Measured.from_hash(fields) == MEASURED
    assert Measured().to_hash() == {}
    for handed_in in (from_hash({"path": "p"}), Refused("NaN")):
        assert not {"phases", "moved"} & set(handed_in.to_hash())
        again = from_hash({**handed_in.to_hash(), **fields})
        assert type(again) is type(handed_in)
        assert again.measured == MEASURED
        assert again.to_hash() == {**handed_in.to_hash(), **fields}
    assert isinstance(from_hash({"path": "p"}), Update)


@pytest.mark.parametrize(
    ("phases", "read"),
    [
        ('[["dancing", 5], ["training", 7]]', [("training", 7)]),
        ('[["training", 7], ["uploading", 3], ["uploaded", 9]]', [("training", 7), ("uploaded", 9)]),
        *((f'[["training", {value}]]', []) for value in ("-1", "1.5", "true", '"7"', "null", "NaN", "9" * 30, "0")),
        ('[["training"], "training", {"training": 1}, 5, null, ["training", 1, 2], [[], 1]]', []),
        *((text, []) for text in ("", "{}", "5", "not JSON", "[" * 900, json.dumps([["training", 7]] * 500))),
    ],
)
def test_a_phase_that_is_none_is_left_out(phases: str, read: list[tuple[str, int]]) -> None:
    assert [tuple(start) for start in Measured.from_hash({"phases": phases}).phases] == read


@pytest.mark.parametrize("moved", ["", "[1]", "[1,2,3]", "{}", "[-1,-2]", "[1e3,true]", '["1","2"]', "[" * 900])
def test_bytes_that_are_none_are_zero(moved: str) -> None:
    assert Measured.from_hash({"moved": moved}).moved == Moved()


def test_many_phases_are_the_last_ones() -> None:
    starts = [PhaseStart(Doing.TRAINING, number) for number in range(1, 100)]
    written = Measured(starts).to_hash()
    assert Measured.from_hash(written).phases == tuple(starts[-MOST_PHASES:])


def test_the_first_finite_metrics_are_kept_and_the_confusion_matrix_where_there_is_room() -> None:
    given: dict[str, Any] = {**dict.fromkeys(CONFUSION, -1), "loss": 0.1 + 0.2, "none": None, "nan": float("nan")}
    given |= {"inf": float("inf"), "list": [1], "yes": True, "n" * (LONGEST_NAME + 1): 1.0, "count": 7}
    kept = MEASURED.with_metrics(given, last=CONFUSION)
    assert list(kept.metrics.items()) == [("loss", 0.1 + 0.2), ("count", 7), *((name, -1) for name in CONFUSION)]
    many = {**dict.fromkeys(CONFUSION, -1), **{f"m{number}": 1.0 for number in range(MOST_METRICS + 5)}}
    assert list(Measured().with_metrics(many, last=CONFUSION).metrics) == [f"m{i}" for i in range(MOST_METRICS)]


def test_it_is_written_with_the_time_of_the_verdict_and_read_to_the_last_digit() -> None:
    kept = MEASURED.with_metrics({"loss": 0.1 + 0.2, "tiny": 5e-324, "most": -1e300, "übrig": 2**53 + 1})
    again = Measured.from_json(kept.judged_at(1_700_000_000_123))
    assert again.judged_ms == 1_700_000_000_123
    assert (again.phases, again.moved, dict(again.metrics)) == (kept.phases, kept.moved, dict(kept.metrics))


def test_what_names_cost_is_bounded() -> None:
    names = {f"{number:02}{chr(0x1F600) * (LONGEST_NAME - 2)}": 1e-300 for number in range(MOST_METRICS)}
    text = MEASURED.with_metrics(names).judged_at(2**53)
    assert len(text) <= MOST_BYTES + 40
    read = Measured.from_json(text)
    assert read.phases == STARTS
    assert 0 < len(read.metrics) < MOST_METRICS


@pytest.mark.parametrize("text", ["", "[]", "5", "null", "{", "[" * 5000, '{"metrics": 5, "phases": 5, "moved": 5}'])
def test_a_record_that_is_none_is_an_empty_one(text: str) -> None:
    assert Measured.from_json(text) == Measured()


def test_a_record_with_a_wrong_part_is_read_without_that_part() -> None:
    text = '{"judged_ms": -5, "phases": [["training", 3]], "moved": [1, 2], "metrics": {"a": NaN, "b": 1e999, "c": 1}}'
    read = Measured.from_json(text)
    assert (read.judged_ms, read.moved, dict(read.metrics)) == (0, Moved(1, 2), {"c": 1})
    assert Measured.from_json(f'{{"metrics": {{"a": {"9" * 2000}}}}}') == Measured()


def test_counts_of_a_site_are_kept_where_there_is_room() -> None:
    many = {**{f"count/{number}": number for number in range(MOST_METRICS + 5)}, "loss": 0.5}
    kept = Measured().with_metrics(many)
    assert list(kept.metrics)[:2] == ["loss", "count/0"]
    assert (len(kept.metrics), kept.left_out) == (MOST_METRICS, 6)
