"""The release before this one, built from this repository's history: what the tests of two releases start."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMIT = "5b1d96f9c8a01cb5a20d0a513c1afd06c3f43674"
"""The commit of that release."""
NUMBER = "0.1.0"
_ROOT = Path(__file__).parents[2]
_WHEEL = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@dataclass(frozen=True)
class Release:
    """A release of flavor, and the environment in which its programs start."""

    number: str
    env: dict[str, str]


def build(folder: Path) -> Release:
    """Build the wheel of the release before this one, and unpack it. Skips the test where the history is not there.

    Without hatchling, which builds the wheel, the packages are used as the commit has them.
    """
    look = ["git", "-C", _ROOT, "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    if shutil.which("git") is None or subprocess.run(look, capture_output=True, check=False).returncode:
        pytest.skip(f"release {NUMBER} is not in the history here: git fetch --unshallow, or clone the repository")
    source, wheels, site = (folder / name for name in ("source", "wheels", "site"))
    parts = ["flavor", "workers", "aggregators", "aumai_fedtrain", "pyproject.toml", "README.md", "LICENSE"]
    with (folder / "source.tar").open("wb") as archive:
        subprocess.run(["git", "-C", _ROOT, "archive", COMMIT, *parts], stdout=archive, check=True)
    with tarfile.open(folder / "source.tar") as archived:
        archived.extractall(source, filter="data")
    if importlib.util.find_spec("hatchling") is not None:
        wheels.mkdir()
        subprocess.run([sys.executable, "-c", _WHEEL, wheels], cwd=source, check=True, capture_output=True)
        (wheel,) = wheels.iterdir()
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site)
    else:
        site = source
    return Release(NUMBER, {"PYTHONPATH": str(site), "FLAVOR_TEST_COLD": "1"})
