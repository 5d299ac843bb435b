"""The environment of a user's aggregator: what it needs to run, and nothing of the worker's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flavor.command import search_path

_KEPT = re.compile(
    r"PATH|HOME|USER|SHELL|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|LD_LIBRARY_PATH|R_\w+"
    r"|(PYTHON|CONDA|CUDA|NVIDIA|OMP|MKL|OPENBLAS|NUMEXPR|TORCH)_?\w*"
)


def user_environment(base: Mapping[str, str], passed: Sequence[str] = ()) -> dict[str, str]:
    """Of the variables in `base` those that a program needs to start, and those named in `passed`.

    An allow-list, so that no URL, token or password of the worker reaches code that it did not write.
    """
    kept = {name: value for name, value in base.items() if _KEPT.fullmatch(name) or name in passed}
    return {**kept, "PATH": search_path(base), "PYTHONUNBUFFERED": "1"}
