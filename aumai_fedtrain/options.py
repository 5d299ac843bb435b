"""Options that several commands of `aumai-fedtrain` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from aumai_fedtrain.session import HOME

Command = TypeVar("Command", bound=Callable[..., Any])


def home_option(function: Command) -> Command:
    """`--home`."""
    return click.option(
        "--home",
        envvar="AUMAI_FEDTRAIN_HOME",
        show_envvar=True,
        type=click.Path(file_okay=False, path_type=Path),
        default=HOME,
        show_default=True,
        help="Folder in which sessions are kept when no Redis is named.",
    )(function)


def json_option(function: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")(function)


def nodes_option(help_: str) -> Callable[[Command], Command]:
    """`--nodes`, with this help."""
    return click.option("--nodes", type=click.IntRange(1, 100_000), metavar="N", help=help_)


def config_option(required: bool, help_: str) -> Callable[[Command], Command]:
    """`--config`, with this help."""
    return click.option("--config", type=click.Path(path_type=Path), required=required, metavar="FILE", help=help_)
