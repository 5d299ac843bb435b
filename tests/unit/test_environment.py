"""What a user's aggregator sees of the worker's environment."""

from __future__ import annotations

import os
import sys

import pytest

from workers.environment import user_environment

KEPT = [
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONHASHSEED", "VIRTUAL_ENV", "CONDA_PREFIX",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
]  # fmt: skip
DROPPED = [
    "FLAVOR_REDIS_URL", "FLAVOR_STORE", "AWS_SECRET_ACCESS_KEY", "REDISCLI_AUTH", "LD_PRELOAD", "HOMEPAGE", "MY_PATH",
    "XLANG", "LC_", "home", "INPUT_PATH",
]  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_a_program_needs_is_kept(name: str) -> None:
    assert user_environment({name: "x", "PATH": "/bin"})[name] == "x"


@pytest.mark.parametrize("name", DROPPED)
def test_everything_else_is_dropped_unless_it_is_named(name: str) -> None:
    assert name not in user_environment({name: "x"})
    assert user_environment({name: "x"}, ["OTHER", name])[name] == "x"


def test_a_name_that_is_not_set_is_not_made_up() -> None:
    assert "ABSENT" not in user_environment({}, ["ABSENT"])


def test_path_and_buffering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/venv")
    found = user_environment({"PATH": "/bin", "PYTHONUNBUFFERED": ""}, ["PATH"])
    assert found == {"PATH": os.pathsep.join(["/venv/bin", "/bin"]), "PYTHONUNBUFFERED": "1"}
    assert user_environment({"PATH": "/bin", "VIRTUAL_ENV": "/venv"})["PATH"] == "/bin"
