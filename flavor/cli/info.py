"""`flavor info`: client information for training scripts that are not Python."""

from __future__ import annotations

import json
from typing import IO

import click

from flavor.cli.help import ExampleGroup, GroupedCommand
from flavor.cli.program import one_line_errors
from flavor.errors import InvalidInfo


@click.group(cls=ExampleGroup, example="flavor info save info.json")
def info() -> None:
    """Save client information, in training scripts of any language."""


@info.command("save", cls=GroupedCommand, example="flavor info save info.json")
@click.argument("file", type=click.File("r"))
@one_line_errors
def info_save(file: IO[str]) -> None:
    """Save client information beside $LOCAL_MODEL_PATH.

    Checks the client information in the JSON file FILE (- for stdin) before it is saved.
    """
    from flavor.cook import utils

    try:
        value = json.load(file)
    except (ValueError, RecursionError) as error:
        raise InvalidInfo(f"{file.name}: not complete JSON: {error}") from None
    utils.SaveInfoJson(value)
