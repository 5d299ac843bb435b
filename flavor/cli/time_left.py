"""`flavor time-left`: the seconds to the deadline of the round, for training scripts that are not Python."""

from __future__ import annotations

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.program import one_line_errors


@click.command("time-left", cls=GroupedCommand, example="left=$(flavor time-left)")
@one_line_errors
def time_left() -> None:
    """Print the seconds to the deadline of the round.

    For training scripts of any language. The time is that of the Redis server's clock. Prints 0.0 once the deadline has
    passed, and an empty line where the round has no deadline for the script, as in an asynchronous run.
    """
    from flavor.cook import utils

    left_s = utils.TimeLeft()
    click.echo("" if left_s is None else f"{left_s:.1f}")
