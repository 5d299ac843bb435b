"""What an edge was promised, noted outside of Redis: a checker holds it against what became of it.

`FLAVOR_JOURNAL=FILE` makes an edge append a line `ROUND CLIENT` to FILE whenever Redis has taken an update from it.
Edges may share the file. Without it that costs one look into the environment.
"""

from __future__ import annotations

import os


def note_handed_in(round_: int, client: str) -> None:
    """Note that Redis has acknowledged this client's update, if the environment says where."""
    if path := os.environ.get("FLAVOR_JOURNAL"):
        with open(path, "a") as journal:
            journal.write(f"{round_} {client}\n")
