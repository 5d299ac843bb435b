"""Options of the programs that start a user's script, or check one: its commands, and how long a step may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def trainer_options(function: Command) -> Command:
    """Add `-m` and `-p` of a training script."""
    add = _commands("Training command, e.g. 'python main.py'.", "Command to run once before the training command.")
    return add(function)


def evaluator_options(main: str) -> Callable[[Command], Command]:
    """Add `-m` and `-p` of an evaluator; `main` is the help of `-m`."""
    return _commands(main, "Command to run once, before the first evaluation.")


def _commands(main: str, preprocess: str) -> Callable[[Command], Command]:
    first = click.option("-m", "--main", "main_command", required=True, metavar="CMD", help=main)
    second = click.option("-p", "--preprocess", "preprocess_command", metavar="CMD", help=preprocess)
    return lambda function: first(second(function))


def step_timeout_option(step: str) -> Callable[[Command], Command]:
    """Add `--timeout-s` of a check; `step` is the end of its help: what has to end within that time."""
    return click.option(
        "--timeout-s",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        help=f"Maximum duration of {step}",
    )
