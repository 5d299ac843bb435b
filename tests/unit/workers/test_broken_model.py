"""Which global models are themselves to blame for updates that are not finite, and which are no more than unusual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from flavor.checkpoints import TensorFile, TensorFileWriter, TensorSpec
from flavor.errors import BrokenModel
from flavor.policy.advice import gist
from workers.broken_model import raise_if_far

MASK = np.triu(np.ones((3, 3)), 1)


def judged(folder: Path, array: np.ndarray[Any, Any]) -> str:
    """Return why a model with this tensor may be to blame for NaN in another one; '' where it may not."""
    tensors = {"a": np.ones(2, np.float32), "n": np.full(2, 2**40), "w": array}
    specs = [TensorSpec(name, each.dtype, each.shape) for name, each in tensors.items()]
    with TensorFileWriter(folder / "model", specs) as writer:
        for spec in writer.specs:
            writer.write(spec.name, tensors[spec.name])
    try:
        raise_if_far(TensorFile.open(folder / "model"), "NaN or infinite values", "a")
    except BrokenModel as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("value", "dtype", "is_far"),
    [
        (1.8e19, np.float32, True),
        (-1e15, np.float32, True),
        (2.0**32, ml_dtypes.bfloat16, True),
        (2.0**31, ml_dtypes.bfloat16, False),
        (2.0**31, np.float32, False),
        (1e60, np.float64, False),
        (1e80, np.float64, True),
        (60000, np.float16, True),
        (30000, np.float16, False),
        (448, ml_dtypes.float8_e4m3fn, False),
    ],
)
def test_values_whose_fourth_powers_have_no_room_are_seldom_trained(
    tmp_path: Path, value: float, dtype: Any, is_far: bool
) -> None:
    """The last of many elements counts as the first."""
    array = np.full(200_000, 0.5).astype(dtype)
    array[-1] = value
    said = judged(tmp_path, array)
    assert bool(said) is is_far
    if is_far:
        assert "to blame for NaN or infinite values in tensor 'a' of this one" in said
        assert "in tensor 'w': an update of an earlier round may be to blame" in gist(said), "that ends in a failed run"
        assert "--max-update-norm" in said


@pytest.mark.parametrize("masking", [-np.inf, np.finfo(np.float32).min])
def test_a_mask_is_meant_to_have_such_values(tmp_path: Path, masking: float) -> None:
    mask = np.where(MASK > 0, np.float32(masking), np.float32(0)).astype(np.float32)
    assert judged(tmp_path, mask) == ""
    mask[0, 1] = 1e18
    assert judged(tmp_path, mask)
