"""What an edge was promised, noted outside of Redis: a checker holds it against what became of it.

`FLAVOR_JOURNAL=FILE` makes an edge append a line `ROUND CLIENT` to FILE whenever Redis has taken an update from it.
Edges may share the file.
"""

from __future__ import annotations

from pathlib import Path


def note_handed_in(journal: Path | None, round_: int, client: str) -> None:
    """Note that Redis has acknowledged this client's update, if there is a journal."""
    if journal is not None:
        with journal.open("a") as file:
            file.write(f"{round_} {client}\n")
