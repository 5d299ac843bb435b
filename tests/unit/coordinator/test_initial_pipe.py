"""Pre-trained weights, or a model to judge, that are a pipe are refused at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flavor.checkpoints.kinds import kind_named
from flavor.coordinator.initial_model import store_initial
from flavor.errors import InvalidSetting
from flavor.store.local import LocalStore


def test_a_pipe_is_refused_in_a_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidSetting, match=r"--model .*pipe: it is no file: a pipe or a device cannot be read twice"):
        store_initial(LocalStore(tmp_path), "r", tmp_path / "pipe", kind_named("tensors"), what="--model")
