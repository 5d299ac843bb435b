"""An object's reference, and the fields of a hash that stand for it."""

from __future__ import annotations

import pytest

from flavor.records.objects import ObjectRef


@pytest.mark.parametrize(
    ("ref", "fields"),
    [
        (
            ObjectRef("runs/a/r1/global", "d" * 64, 12, "1:12:99"),
            {
                "global_path": "runs/a/r1/global",
                "global_digest": "d" * 64,
                "global_size": "12",
                "global_seal": "1:12:99",
            },
        ),
        (ObjectRef("runs/a/r1/info", "e" * 64), {"global_path": "runs/a/r1/info", "global_digest": "e" * 64}),
    ],
)
def test_stands_in_a_hash_under_the_prefix_of_its_record(ref: ObjectRef, fields: dict[str, str]) -> None:
    assert ref.to_hash("global_") == fields
    assert ObjectRef.from_hash(fields, "global_") == ref


def test_has_the_plain_names_without_a_prefix() -> None:
    assert ObjectRef("a", "b", 0).to_hash() == {"path": "a", "digest": "b", "size": "0"}
    assert ObjectRef.from_hash({"path": "a", "digest": "b", "size": "0"}) == ObjectRef("a", "b", 0)


@pytest.mark.parametrize("fields", [{}, {"path": ""}, {"digest": "d"}])
def test_there_is_none_without_a_path(fields: dict[str, str]) -> None:
    assert ObjectRef.from_hash(fields) is None


def test_what_is_left_empty_is_not_known() -> None:
    assert ObjectRef.from_hash({"path": "a", "size": "", "seal": ""}) == ObjectRef("a", "", None, "")


@pytest.mark.parametrize("size", ["many", "-1", "1e3", "9" * 40])
def test_a_size_that_is_no_number_is_an_error(size: str) -> None:
    with pytest.raises(ValueError, match="no number of bytes"):
        ObjectRef.from_hash({"path": "a", "digest": "b", "size": size})


def test_takes_another_mark() -> None:
    assert ObjectRef("a", "b", 3).sealed("1:3:4") == ObjectRef("a", "b", 3, "1:3:4")
