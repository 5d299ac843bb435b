"""Which control variates of SCAFFOLD a site does not share, in a hidden file beside `$GLOBAL_MODEL_PATH`.

The edge of a run that shares a part of the model writes it with each global model, for `flavor.cook`. The names are
those in the script's own file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection
from pathlib import Path

from flavor.atomic import write_json

_NAME = ".flavor-own-variates.json"


def write_own_variates(global_model: Path, names: Collection[str]) -> None:
    """Write these names, or remove the file where there are none. Raises `OSError`."""
    path = global_model.with_name(_NAME)
    if names:
        write_json(path, list(names))
    else:
        path.unlink(missing_ok=True)


def read_own_variates() -> list[str]:
    """Return the names for the script that calls this; none where no edge has written any."""
    if given := os.environ.get("GLOBAL_MODEL_PATH"):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(Path(given).with_name(_NAME).read_text(encoding="utf-8"))
            if isinstance(found, list):
                return [name for name in found if isinstance(name, str)]
    return []
