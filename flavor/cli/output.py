"""Prints the output of commands: tables on stdout, lines about progress on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click

from flavor.printable import printable
from flavor.say import say
from flavor.stamp import stamp


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout, a line for each row.

    Cells can hold what others wrote: they are made printable. No cell is cut to fit a width: the last column may be
    long, and the terminal wraps its line.
    """
    from rich.cells import cell_len

    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *lines, strict=True)]
    for number, line in enumerate([list(columns), *lines]):
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
        click.secho("  ".join(padded).rstrip(), bold=True if number == 0 else None)


def teller(prefix: str) -> Callable[[str], None]:
    """Return a function that prints a line on stderr after `prefix`, with the time in a program that runs for long."""

    def tell(line: str) -> None:
        say(f"{stamp()}{prefix}{printable(line)}")

    return tell
