"""A place in which the commands of a page run as they are written: our programs on the path, nobody's settings."""

from __future__ import annotations

import os
from pathlib import Path

from warm import STARTER, Starter

import flavor
from tests.warmshim import shim

PROGRAMS = {
    "flavor": "flavor.cli.main",
    "flavor-fl": "flavor.cli.flavor_fl",
    "flavor-fv": "flavor.cli.flavor_fv",
    "flavor-agg": "flavor.cli.flavor_agg",
    "check-fl": "flavor.cli.check_fl",
    "check-fv": "flavor.cli.check_fv",
    "check-agg": "flavor.cli.check_agg",
    "aumai-fedtrain": "aumai_fedtrain.cli",
}
_FOLDERS = ("INPUT_PATH", "OUTPUT_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH", "LOG_PATH")


def prepared(folder: Path, starter: Starter | None = STARTER) -> dict[str, str]:
    """Make `folder` such a place, and its user's home; returns the environment. Without a starter all start cold."""
    forked_at = starter.shims if starter is not None else None
    programs = folder / "bin"
    programs.mkdir()
    for name, module in PROGRAMS.items():
        (programs / name).write_text(shim(forked_at, "-P", "-m", module))
        (programs / name).chmod(0o755)
    (programs / "python").write_text(shim(forked_at))
    (programs / "python").chmod(0o755)
    return environment_of(folder)


def on_path(folder: Path) -> dict[str, str]:
    """What has the scripts of a program find flavor's programs in `folder`: there they are forked."""
    folder.mkdir()
    made = prepared(folder)
    return {name: made[name] for name in ("PATH", "VIRTUAL_ENV")}


def environment_of(folder: Path) -> dict[str, str]:
    """That of a place that was made."""
    programs = folder / "bin"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("FLAVOR_") and name not in _FOLDERS
    }
    return environment | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(flavor.__file__).parents[1]),  # what this process has imported
        "VIRTUAL_ENV": str(folder),  # so that edges leave PATH as it is
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "OMP_NUM_THREADS": "1",
    }
