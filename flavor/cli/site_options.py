"""The options of a program that takes part in a run at a site: who it is, where its files lie, what it accepts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flavor.bus.variables import JOIN_VARIABLE
from flavor.checkpoints.format import SITE_FORMATS
from flavor.cli.options import redis_option, store_option
from flavor.errors import InvalidSetting

Command = Callable[..., Any]

allow_cross_option = click.option(
    "--allow-cross",
    is_flag=True,
    envvar="FLAVOR_ALLOW_CROSS",
    show_envvar=True,
    help="Let other sites that allow the same judge what this site has trained, and judge theirs: its updates are sent "
    "to them (`flavor evaluate --cross`), and models that lack one update (`flavor contributions --by-sites`), which "
    "say what that update is.",
)

no_outside_models_option = click.option(
    "--no-outside-models",
    is_flag=True,
    envvar="FLAVOR_NO_OUTSIDE_MODELS",
    show_envvar=True,
    help="Judge only global models of the run's rounds, and decline others (`flavor evaluate --model`): a model can be "
    "made so that its metrics tell this site's data.",
)


def check_together(*, allow_cross: bool, no_outside_models: bool) -> None:
    """Raise `InvalidSetting` where a site is to judge models that no round has made, and to decline them."""
    if allow_cross and no_outside_models:
        raise InvalidSetting(
            "--allow-cross and --no-outside-models exclude each other: what other sites have trained is no global "
            "model of a round"
        )


def site_options(program: str, script: str, *, formats: str) -> Callable[[Command], Command]:
    """Add these options to a program that runs this kind of script at a site; `formats` is the help of `--format`."""
    options = (
        click.option(
            "--join",
            envvar=JOIN_VARIABLE,
            show_envvar=True,
            metavar="TOKEN",
            help="@FILE with the token that `flavor enroll` has printed, or the token itself, which other users of the "
            f"machine can read in the process list while {program} starts. The token names the run, the client and "
            "Redis.",
        ),
        click.option(
            "--run",
            envvar="FLAVOR_RUN",
            show_envvar=True,
            metavar="RUN",
            help="Name of the run.  [required without --join]",
        ),
        click.option(
            "--client",
            envvar="FLAVOR_CLIENT",
            show_envvar=True,
            metavar="NAME",
            help="Name of this site in the run.  [default: the name in the token, else the host name]",
        ),
        redis_option,
        store_option,
        click.option(
            "--workspace",
            envvar="FLAVOR_WORKSPACE",
            show_envvar=True,
            type=click.Path(file_okay=False, path_type=Path),
            help=f"Folder in which the folders of the {script} are created, unless OUTPUT_PATH, LOG_PATH, … are set.  "
            "[default: flavor-work/RUN/CLIENT]",
        ),
        click.option(
            "--key",
            envvar="FLAVOR_KEY",
            show_envvar=True,
            type=click.Path(dir_okay=False, path_type=Path),
            help="File of the private key that signs what this site hands in (PEM, Ed25519). It is created if it does "
            "not exist.  [default: client.key in the folder of --workspace if that is given, else "
            "~/.config/flavor/keys/CLIENT.key]",
        ),
        click.option(
            "--trust",
            envvar="FLAVOR_TRUST",
            show_envvar=True,
            multiple=True,
            metavar="KEY",
            help="Take only global models whose manifest is signed with this public key of an aggregator (ed25519:HEX "
            "or its aggregator.key.pub), and the initial weights with the digest sha256:HEX. May be repeated.",
        ),
        click.option(
            "--input",
            "input_path",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help=f"Input folder of the {script}, which finds it in INPUT_PATH.  [default: $INPUT_PATH, else the "
            "current folder]",
        ),
        click.option(
            "--format",
            "format_",
            envvar="FLAVOR_FORMAT",
            show_envvar=True,
            type=click.Choice(SITE_FORMATS),
            help=formats,
        ),
        click.option(
            "--opaque",
            is_flag=True,
            envvar="FLAVOR_OPAQUE",
            show_envvar=True,
            help=f"Take part in a run with opaque checkpoints, whose files reach the {script} unchecked.",
        ),
        click.option(
            "--checkpoint",
            metavar="KIND",
            envvar="FLAVOR_CHECKPOINT",
            show_envvar=True,
            help="Take part in a run whose kind of checkpoint comes from an installed package, which is imported for "
            "it.",
        ),
        click.option(
            "--allow-set",
            multiple=True,
            metavar="PATTERN",
            envvar="FLAVOR_ALLOW_SET",
            show_envvar=True,
            help=f"Let the run set environment variables of this name or pattern for the {script}, e.g. 'LR_*'. "
            "LEARNING_RATE and other common names are always allowed. May be repeated.",
        ),
        click.option(
            "--set",
            "own_settings",
            multiple=True,
            metavar="NAME=VALUE",
            help=f"Set an environment variable for the {script} of this site alone, in place of the run's value. The "
            "run's operator learns the name, not the value. May be repeated.",
        ),
    )

    def add(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return add
