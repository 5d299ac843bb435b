"""Checks that the options of `flavor run` go together, before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flavor.config import RunConfig


def check_own_aggregator(config: RunConfig, main: str | None, init_once: bool) -> None:
    """Raise `InvalidSetting` or `CommandNotFound` unless the options about a user's aggregator go together."""
    from flavor.errors import InvalidSetting
    from flavor.programs.command import parse_command
    from flavor.rule_settings import COMMAND

    advice = "an aggregator of your own: --aggregator-main 'python aggregate.py'"
    if main is not None:
        parse_command(main, "--aggregator-main")
        if config.aggregator not in (None, COMMAND):
            raise InvalidSetting(f"--aggregator-main takes the place of --aggregator {config.aggregator}: choose one")
        if reason := config.not_for_command:
            raise InvalidSetting(reason)
    elif not config.kind.has_tensors or config.aggregator == COMMAND:
        option = f"--aggregator {COMMAND}" if config.kind.has_tensors else f"--checkpoint {config.checkpoint}"
        raise InvalidSetting(f"{option} needs {advice}")
    elif init_once:
        raise InvalidSetting(f"--init-once is for {advice}")


def central_of(command: str | None, folder: Path | None) -> tuple[str, str] | None:
    """Return the command that judges models at an aggregator, and its data. Raises `InvalidSetting`."""
    from flavor.errors import InvalidSetting
    from flavor.programs.command import parse_command

    if (command is None) != (folder is None):
        lacking = "--central-evaluate CMD" if command is None else "--evaluate-input DIR"
        raise InvalidSetting(f"--central-evaluate and --evaluate-input go together: pass {lacking} as well")
    if command is None:
        return None
    parse_command(command, "--central-evaluate")
    return command, str((folder or Path()).absolute())


def check_judged(config: RunConfig, evaluator: str | None, central: Sequence[str] | None) -> None:
    """Raise `InvalidSetting` for a setting that needs an evaluator which none of the run's own processes has."""
    from flavor.errors import InvalidSetting
    from flavor.evaluation_settings import lacking_evaluator

    if reason := lacking_evaluator(config, sites=evaluator is not None, central=central is not None):
        raise InvalidSetting(reason)


def check_named(config: RunConfig, clients: Sequence[str]) -> None:
    """Raise `InvalidSetting` for settings of a client that the run does not have."""
    from flavor.errors import InvalidSetting
    from flavor.site_settings import unknown_clients

    for client, there_are in unknown_clients(config, clients):
        raise InvalidSetting(f"--set-for {client}: this run has no client of this name: {there_are}")
