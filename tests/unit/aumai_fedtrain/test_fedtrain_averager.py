"""The average of updates against a plain loop, the hash against values computed elsewhere, credits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aumai_fedtrain import CreditTracker, GradientAverager, HashVerifier, LocalUpdate
from flavor.credits import Contribution, CreditBook


def of(*gradients: dict[str, object], samples: Sequence[int] | None = None) -> list[LocalUpdate]:
    return [
        LocalUpdate(
            node_id="abcdefgh"[i],
            round_id=1,
            gradients=vectors,
            loss=0.5,
            samples_used=samples[i] if samples else 10,
        )
        for i, vectors in enumerate(gradients)
    ]


def by_hand(gradients: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """What the guide says, without any library."""
    result = {}
    for name in sorted({name for vectors in gradients for name in vectors}):
        length = max(len(vectors.get(name, [])) for vectors in gradients)
        rows = [vectors.get(name) or [0.0] * length for vectors in gradients]
        result[name] = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return result


SMALL = st.floats(-1e6, 1e6)


@st.composite
def reports(draw: st.DrawFn) -> list[dict[str, list[float]]]:
    lengths = draw(st.dictionaries(st.sampled_from("abcxyz"), st.integers(0, 5), max_size=4))
    nodes = draw(st.integers(1, 6))
    return [
        {
            name: draw(st.lists(SMALL, min_size=length, max_size=length)) if draw(st.booleans()) else []
            for name, length in lengths.items()
            if draw(st.integers(0, 3))
        }
        for _ in range(nodes)
    ]


@given(reports())
def test_lists_are_averaged_as_by_hand(gradients: list[dict[str, list[float]]]) -> None:
    average, expected = GradientAverager.average(of(*gradients)), by_hand(gradients)
    assert list(average) == list(expected)  # sorted, and none is left out
    for name, values in expected.items():
        assert isinstance(average[name], list)
        assert average[name] == pytest.approx(values, rel=1e-12, abs=1e-9)


def test_the_guides_numbers() -> None:
    assert GradientAverager().average(of({"w": [0.1, 0.2]}, {"w": [0.2, 0.1]})) == {
        "w": [0.15000000000000002, 0.15000000000000002]
    }


def test_an_absent_or_empty_vector_counts_as_zeros_and_all_empty_is_empty() -> None:
    average = GradientAverager.average(of({"b": [3.0], "c": []}, {"a": [1.0, 2.0], "b": []}, {"a": []}))
    assert average == {"a": [1 / 3, 2 / 3], "b": [1.0], "c": []}


def test_nested_vectors_keep_their_shape_and_numbers_are_numbers() -> None:
    average = GradientAverager.average(of({"w": [[1, 2], [3, 4]], "s": 1.0}, {"w": [[3, 4], [5, 6]], "s": 2.0}))
    assert average == {"s": 1.5, "w": [[2.0, 3.0], [4.0, 5.0]]}
    assert GradientAverager.average(of({"w": [[2.0, 4.0]]}, {})) == {"w": [[1.0, 2.0]]}


def test_weights_are_samples_when_asked_for() -> None:
    updates = of({"w": [0.0]}, {"w": [4.0]}, samples=[300, 100])
    assert GradientAverager.average(updates) == {"w": [2.0]}
    assert GradientAverager.average(updates, weighted=True) == {"w": [1.0]}
    lacking = of({"w": [4.0]}, {}, samples=[300, 100])
    assert GradientAverager.average(lacking, weighted=True) == {"w": [3.0]}
    nobody = of({"w": [0.0]}, {"w": [4.0]}, samples=[0, 0])
    assert GradientAverager.average(nobody, weighted=True) == {"w": [2.0]}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_arrays_give_arrays_of_their_type(dtype: type) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(3, 5)).astype(dtype) for _ in range(4)]
    average = GradientAverager.average(of(*({"w": array} for array in arrays)))["w"]
    assert isinstance(average, np.ndarray)
    assert average.dtype == dtype
    expected = np.mean([array.astype(np.float64) for array in arrays], axis=0)
    tolerance = {2: 1e-2, 4: 1e-6, 8: 1e-14}[np.dtype(dtype).itemsize]
    np.testing.assert_allclose(average.astype(np.float64), expected, atol=tolerance)


def test_mixed_kinds_are_averaged_in_float64() -> None:
    average = GradientAverager.average(of({"w": np.float32([1, 2])}, {"w": [2.0, 3.0]}, {"w": np.float16([3, 4])}))
    assert average["w"].dtype == np.float64
    np.testing.assert_allclose(average["w"], [2.0, 3.0])


@pytest.mark.parametrize(
    ("second", "shapes"),
    [
        ([1.0, 2.0, 3.0], "'w' has 3 values, that of node 'a' has 2 values"),
        ([1.0], "'w' has 1 value, that of node 'a' has 2 values"),
        ([[1.0, 2.0]], r"'w' has shape (1, 2), that of node 'a' has 2 values"),
        (1.0, "'w' has a single number, that of node 'a' has 2 values"),
    ],
)
def test_different_lengths_are_an_error_that_names_node_and_key(second: object, shapes: str) -> None:
    with pytest.raises(ValueError, match="node 'b'") as caught:
        GradientAverager.average(of({"w": [1.0, 2.0]}, {"w": second}))
    assert shapes in str(caught.value)


def test_nobody_to_average_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^Cannot average an empty list of updates\.$"):
        GradientAverager.average([])


def test_an_average_of_finite_numbers_is_finite() -> None:
    found = GradientAverager.average(of({"w": [1.7e308]}, {"w": [1.7e308]}, {"w": [1.7e308]}))
    assert found == {"w": [pytest.approx(1.7e308)]}


@pytest.mark.parametrize(
    ("gradients", "digest"),
    [  # computed with sha256sum over the text
        (
            {"weight": [0.1, -0.2, 0.05, 0.03], "bias": [0.01]},
            "cabd707421c0c00ae3a90c8695123a7bba144536a829e8e5bf6665be35d54b51",
        ),
        (
            {"ä": [], "b": [[1.5, 2], [3, 4]], "a": [1, -0.0, 1e-7, 1e22, 0.1 + 0.2]},
            "1ea363c50547b2599d34e8b6e3849974e4e5178b11a38839f984b05d77b0ecb0",
        ),
    ],
)
def test_golden_hashes(gradients: dict[str, object], digest: str) -> None:
    update = of(gradients)[0]
    assert HashVerifier().compute_hash(update.gradients) == digest
    arrays = of({name: np.array(values, np.float64) for name, values in gradients.items()})[0]
    assert HashVerifier.compute_hash(arrays.gradients) == digest
    assert HashVerifier.verify(update, digest)
    assert HashVerifier.verify(update, f" {digest.upper()}\n")


def test_a_changed_number_or_name_changes_the_hash() -> None:
    update = of({"w": [0.1, 0.2]})[0]
    digest = HashVerifier.compute_hash(update.gradients)
    assert digest == hashlib.sha256(json.dumps({"w": [0.1, 0.2]}, separators=(",", ":")).encode()).hexdigest()
    for other in ({"w": [0.1, 0.20000000000000004]}, {"v": [0.1, 0.2]}, {"w": [0.2, 0.1]}, {"w": [0.1, 0.2], "x": []}):
        assert not HashVerifier.verify(of(other)[0], digest)
    for wrong in ("", "abc", digest[:-1], digest + "0", "ü" * 64):
        assert not HashVerifier.verify(update, wrong)


def test_credits_add_up() -> None:
    tracker = CreditTracker()
    tracker.record_contribution("b", 10, 1)
    tracker.record_contribution(node_id="a", samples=5, round_id=1)
    tracker.record_contribution("b", 7)
    assert tracker.round_credits(1) == {"a": 5, "b": 10}
    assert tracker.round_credits(2) == {}
    assert tracker.all_credits() == {"a": 5, "b": 17}
    assert list(tracker.all_credits()) == ["a", "b"]
    assert (tracker.get_credits("b"), tracker.get_credits("nobody")) == (17, 0)
    tracker.all_credits()["a"] = 0
    assert tracker.get_credits("a") == 5
    contributions = [Contribution(1, "b", 10), Contribution(1, "a", 5), Contribution(2, "b", 7)]
    assert CreditBook.of(contributions).totals() == tracker.all_credits()


@pytest.mark.parametrize("samples", [-1, 1.5, "3", True, None])
def test_credits_that_are_no_count_are_refused(samples: object) -> None:
    tracker = CreditTracker()
    with pytest.raises(ValueError, match="samples must"):
        tracker.record_contribution("a", samples, 1)  # type: ignore[arg-type]
    for round_id in (-1, 1.5, "1", True):
        with pytest.raises(ValueError, match="round_id must"):
            tracker.record_contribution("a", 1, round_id)  # type: ignore[arg-type]
    assert (tracker.all_credits(), tracker.round_credits(1)) == ({}, {})
