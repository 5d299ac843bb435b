"""The environment of a user's aggregator: what a program needs to run, and nothing of the worker's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flavor.command import search_path

_KEPT = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|LD_LIBRARY_PATH|R_\w+"
    r"|(PYTHON|CONDA|CUDA)\w*"
    r"|(OMP|MKL|OPENBLAS|NUMEXPR)_\w+"
)


def user_environment(base: Mapping[str, str], passed: Sequence[str] = ()) -> dict[str, str]:
    """Of the variables in `base` those that a program needs to run, and those named in `passed` if they are set.

    An allow-list: URLs, tokens and passwords of the worker do not reach code that it did not write. `PATH` is that of
    `search_path`, and `PYTHONUNBUFFERED` is 1, so that the last lines of a program that is stopped are known.
    """
    kept = {name: value for name, value in base.items() if name in passed or _KEPT.fullmatch(name)}
    return {**kept, "PATH": search_path(base), "PYTHONUNBUFFERED": "1"}
