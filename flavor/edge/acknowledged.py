"""Notes in a file which updates Redis has acknowledged, so that a checker can compare them with what became of the run.

With `FLAVOR_JOURNAL=FILE` an edge appends a line `ROUND CLIENT` to FILE whenever Redis has acknowledged an update.
Several edges may share the file.
"""

from __future__ import annotations

from pathlib import Path


def note_handed_in(journal: Path | None, round_: int, client: str) -> None:
    """Append the line of this client's update to the journal, if there is one."""
    if journal is not None:
        with journal.open("a") as file:
            file.write(f"{round_} {client}\n")
