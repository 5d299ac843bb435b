"""Prints the output of commands: tables on stdout, lines about progress on stderr."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import click

from flavor.printable import printable
from flavor.say import say
from flavor.stamp import stamp

if TYPE_CHECKING:
    from rich.text import Text

_NARROWEST = 40
"""A terminal that says that it is narrower, as some say 0, gets lines of this many columns."""
_INDENT = "    "


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout, a line for each row.

    Cells and names of columns can hold what others wrote: they are made printable. No cell is cut to fit a width: the
    last column may be long, and the terminal wraps its line.
    """
    from rich.cells import cell_len

    lines = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
        click.secho("  ".join(padded).rstrip(), bold=True if number == 0 else None)


def print_line(line: str, *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr with `err`. It can hold what others wrote: it is made printable."""
    click.echo(printable(line), err=err)


def is_coloured(chosen: bool | None = None) -> bool:
    """Whether stdout gets colours: as `chosen` by an option, else on a terminal, unless NO_COLOR is set.

    NO_COLOR: https://no-color.org. Escape sequences in files and pipes would be read by programs.
    """
    if chosen is not None:
        return chosen
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def folded(line: str) -> str:
    """Break a line between words at the width of the terminal, and indent what follows; a pipe gets it as it is."""
    if not sys.stdout.isatty():
        return line
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    return textwrap.fill(
        line, width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False, expand_tabs=False
    )


def cell(*lines: str) -> Text:
    """Make a cell of a Rich table, in which no text of others is markup, an emoji's name or a control character."""
    from rich.text import Text

    return Text("\n".join(map(printable, lines)))


def teller(prefix: str) -> Callable[[str], None]:
    """Return a function that prints a line on stderr after `prefix`, with the time in a program that runs for long."""

    def tell(line: str) -> None:
        say(f"{stamp()}{prefix}{printable(line)}")

    return tell
