"""Which calls of an algorithm's helper a script has made, in hidden files beside `$LOCAL_MODEL_PATH`, for `check-fl`.

Each call has an empty file of its own, so that every process of a script may note calls. Only a script that `check-fl`
has started writes them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PREFIX = ".flavor-call-"
_MOST = 64
"""More files than a script that uses flavor's functions can leave."""


def note_call(helper: str, call: str) -> None:
    """Note that this script has called `call` of `helper`. Does nothing outside of `check-fl`; raises no error."""
    local = os.environ.get("LOCAL_MODEL_PATH")
    if not local or os.environ.get("CHECK_FL") != "true":
        return
    path = Path(local).with_name(f"{_PREFIX}{helper}-{call}")
    with contextlib.suppress(OSError):
        if not path.exists():  # the file of each step is the same one
            path.touch()


def take_calls(local_model: Path) -> set[tuple[str, str]]:
    """Return what was noted since the last time, as pairs of helper and call, and remove the notes."""
    found = set()
    for path in sorted(local_model.parent.glob(f"{_PREFIX}*"))[:_MOST]:
        helper, _, call = path.name.removeprefix(_PREFIX).partition("-")
        found.add((helper, call))
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return found
