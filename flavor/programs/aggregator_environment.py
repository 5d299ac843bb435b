"""The environment of a user's aggregator: the worker's without the worker's secrets, and variables of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flavor.programs.command import search_path

_NEEDED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|LD_LIBRARY_PATH|R_\w+"
    r"|(PYTHON|CONDA|CUDA)\w*"
    r"|(OMP|MKL|OPENBLAS|NUMEXPR)_\w+"
)
_OF_THE_WORKER = re.compile(
    r"(FLAVOR|REDIS|REDISCLI|VALKEY|VALKEYCLI|RQ)(_\w+)?"
    r"|(AWS|AZURE|GOOGLE|GCS|GCP|GCLOUD|CLOUDSDK|S3|MINIO|OBJECT_STORE|VAULT)_\w+"
    r"|(KUBE|KUBERNETES|DOCKER)\w*|SSH_\w+|GPG_AGENT_INFO|NETRC|PGPASSFILE"
    r"|\w*(TOKEN(?!IZER|S\Z)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|DATABASE_URL)\w*"
    r"|\w+_(AUTH|PWD|KEY|DSN)",
    re.IGNORECASE,
)
_WITH_PASSWORD = re.compile(r"\w+://[^/\s@]*:[^/\s@]+@")
PLACES = ("INPUT_PATH", "OUTPUT_PATH", "LOG_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH")
"""Variables with folders and files, of which each of this project's programs gets its own."""


def aggregator_environment(
    base: Mapping[str, str],
    passed: Sequence[str] = (),
    *,
    only: bool = False,
    run: str,
    rounds: int,
    output: Path,
    logs: Path,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return an aggregator's environment: what `inherited` keeps of `base`, and the aggregator's own variables.

    `extra` holds the variables that depend on how it is started. `flavor-agg` and `check-agg` use this environment.
    """
    return {
        **inherited(base, passed, only=only),
        "OUTPUT_PATH": os.fspath(output),
        "LOG_PATH": os.fspath(logs),
        "TOTAL_ROUNDS": str(rounds),
        "FLAVOR_ROLE": "aggregator",
        "FLAVOR_RUN": run,
        **(extra or {}),
    }


def inherited(base: Mapping[str, str], passed: Sequence[str] = (), *, only: bool = False) -> dict[str, str]:
    """Return the variables of `base` except those in `withheld`; with `only`, just those that every program needs.

    `passed` names variables that are kept in any case, if they are set. `PATH` is that of `search_path`, and
    `PYTHONUNBUFFERED` is 1, so that the last lines of a program that is stopped are known.
    """
    hidden = {*withheld(base), *PLACES}
    kept = {
        name: value
        for name, value in base.items()
        if name in passed or (_NEEDED.fullmatch(name) if only else name not in hidden)
    }
    return {**kept, "PATH": search_path(base), "PYTHONUNBUFFERED": "1"}


def withheld(base: Mapping[str, str]) -> list[str]:
    """Name the variables of `base` that hold the worker's addresses, keys or credentials, by their name or value."""
    return [name for name, value in base.items() if _OF_THE_WORKER.fullmatch(name) or _WITH_PASSWORD.search(value)]
