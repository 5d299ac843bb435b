"""The environment of a training script: that of its edge, the run's checked settings, and its own variables.

`flavor-fl` and `check-fl` start a script with the same. The environment of an evaluator, a command that is run once for
each evaluation task, goes beside this file as `evaluator_environment.py`; `ChildProcess` runs it as any other program.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from flavor.programs.command import search_path

_ANCESTORS = {"LOGLEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
"""What training scripts of the framework whose protocol this is find in their environment, unless it says otherwise."""


THREADS = "FLAVOR_THREADS"
"""Number of threads for the script, by which `flavor run` shares the cores among the scripts of its sites."""
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
)
"""The variables that libraries read. Where one is set, none is changed: each library has an order of its own."""


class TrainerFiles(Protocol):
    """The folders and files that a script reads and writes; `flavor.edge.workspace.Workspace` names them."""

    @property
    def input(self) -> Path:
        """The folder of the site's data."""

    @property
    def output(self) -> Path:
        """The folder for the files that the script writes for its site."""

    @property
    def local_model(self) -> Path:
        """The file in which the script saves its model."""

    @property
    def global_model(self) -> Path:
        """The file that holds the global model."""

    @property
    def log(self) -> Path:
        """The folder for the script's logs."""


def trainer_environment(
    base: Mapping[str, str],
    files: TrainerFiles,
    *,
    rounds: int,
    run: str,
    client: str,
    edge: str = "",
    settings: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return what a script finds in its environment.

    `base` is the edge's environment with the address of the bus (`flavor.bus.address.to_environment`), `settings` are
    those of the run that this site takes, and `edge` is the token of the edge's lease.
    """
    return {
        **_ANCESTORS,
        **_threads(base, settings or {}),
        **{name: value for name, value in base.items() if name != THREADS},
        "FLAVOR": "true",
        **(settings or {}),
        "PATH": search_path(base),
        "PYTHONUNBUFFERED": "1",
        "INPUT_PATH": os.fspath(files.input),
        "OUTPUT_PATH": os.fspath(files.output),
        "LOCAL_MODEL_PATH": os.fspath(files.local_model),
        "GLOBAL_MODEL_PATH": os.fspath(files.global_model),
        "LOG_PATH": os.fspath(files.log),
        "TOTAL_ROUNDS": str(rounds),
        "FLAVOR_RUN": run,
        "FLAVOR_CLIENT": client,
        "FLAVOR_EDGE": edge,
    }


def _threads(base: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that limit the script's threads, as `THREADS` of the edge's environment asks.

    torch, MKL, OpenBLAS and numexpr read OMP_NUM_THREADS where their own variable is not set; Accelerate does not.
    """
    if THREADS not in base or any(base.get(name) or name in settings for name in THREAD_VARIABLES):
        return {}
    return dict.fromkeys(("OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), base[THREADS])
