"""Integers that are no quantities are told by their names and types; counters are not taken for such."""

from __future__ import annotations

import numpy as np

from aggregators.quantities import is_counter, matching, suspicious_integers, training_state
from flavor.checkpoints import TensorSpec


def spec(name: str, dtype: type = np.int64, shape: tuple[int, ...] = (4,)) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


def test_bytes_states_and_labels_are_named_with_the_reason() -> None:
    odd = [
        spec("layers.0._extra_state", np.uint8),
        spec("image", np.uint8),
        spec("torch_rng_state", np.uint8),
        spec("head/labels"),
        spec("classes_"),
    ]
    found = suspicious_integers(odd)
    assert list(found) == ["layers.0._extra_state", "image", "torch_rng_state", "head/labels", "classes_"]
    assert found["image"] == "it is made of bytes (uint8)"
    assert found["head/labels"] == "it is called 'labels'"


def test_quantities_are_not() -> None:
    fine = [spec("bn.num_batches_tracked", shape=()), spec("position_ids"), spec("w", np.float32), spec("steps")]
    fine += [spec("strange.label", np.float32), spec("labels_weight", np.bool_)]
    assert suspicious_integers(fine) == {}
    assert [is_counter(each) for each in fine[:2]] == [True, False]


def test_the_state_of_an_optimizer_is_told_from_weights() -> None:
    odd = ["optimizer/param_groups/0/lr", "opt/exp_avg", "a.momentum_buffer", "scheduler/last_epoch"]
    scalars = ["opt/lr", "learning_rate", "0/step"]
    specs = [spec(name) for name in odd] + [spec(name, np.float64, ()) for name in scalars]
    assert [training_state([each]) for each in specs] == [[name] for name in (*odd, *scalars)]
    fine = [
        spec("lr", np.float32),
        spec("step", np.int64, ()),
        spec("layers.step.weight"),
        spec("temperature", "f4", ()),
    ]
    assert training_state(fine) == []


def test_patterns() -> None:
    assert matching(["a.labels", "b.labels", "w"], ["*.labels"]) == ["a.labels", "b.labels"]
    assert matching(["w"], ["W"]) == []
