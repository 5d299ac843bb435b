"""What `flavor.checkpoints` offers, and what its import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flavor.checkpoints as face


def test_every_name_is_there_and_is_the_one_that_type_checkers_see() -> None:
    tree = ast.parse(Path(face.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        name.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }  # fmt: skip
    assert seen == {name: f"flavor.checkpoints.{module}" for name, module in face._HOMES.items()}
    assert sorted(seen) == sorted(face.__all__)
    for name in face.__all__:
        assert getattr(face, name).__module__ == seen[name]


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        face.load  # noqa: B018


def test_the_package_and_the_formats_load_neither_numpy_nor_torch() -> None:
    code = (
        "import sys, flavor.checkpoints.format; print([m for m in ('numpy', 'torch', 'ml_dtypes') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
