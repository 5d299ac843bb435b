"""`flavor info`: client information for training scripts that are not Python."""

from __future__ import annotations

import json
from typing import IO

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.program import one_line_errors
from flavor.cook import utils
from flavor.errors import InvalidInfo


@click.group()
def info() -> None:
    """Save client information, in training scripts of any language."""


@info.command("save", cls=GroupedCommand, example="flavor info save info.json")
@click.argument("file", type=click.File("r"))
@one_line_errors
def info_save(file: IO[str]) -> None:
    """Check the client information in the JSON file FILE (- for stdin), and save it beside $LOCAL_MODEL_PATH."""
    try:
        value = json.load(file)
    except ValueError as error:
        raise InvalidInfo(f"{file.name}: not complete JSON: {error}") from None
    utils.SaveInfoJson(value)
