"""What commands print: tables on stdout, lines about what they do on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click

from flavor.printable import printable
from flavor.say import say
from flavor.stamp import stamp


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, of what others wrote as well: each cell whole, and one line.

    No word is cut to fit a width: the last column may be long, and a terminal breaks its line.
    """
    from rich.cells import cell_len

    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *lines, strict=True)]
    for number, line in enumerate([list(columns), *lines]):
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
        click.secho("  ".join(padded).rstrip(), bold=True if number == 0 else None)


def teller(prefix: str) -> Callable[[str], None]:
    """A function that says a line to the user, with the time in a program that runs for long."""

    def tell(line: str) -> None:
        say(f"{stamp()}{prefix}{printable(line)}")

    return tell
