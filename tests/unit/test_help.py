"""Help for people: groups, one spelling each, and suggestions by meaning."""

from __future__ import annotations

import importlib

import click
import pytest
from click.testing import CliRunner

COMMANDS = [("run", "run"), ("serve", "serve"), ("edge", "command"), ("aggregator", "command"), ("resume", "resume")]


def command(module: str, name: str) -> click.Command:
    return getattr(importlib.import_module(f"flavor.cli.{module}"), name)


@pytest.mark.parametrize(("module", "name"), COMMANDS)
def test_every_option_stands_in_a_group_once_and_in_one_spelling(module: str, name: str) -> None:
    done = CliRunner().invoke(command(module, name), ["--help"])
    assert done.exit_code == 0, done.output
    for option in command(module, name).params:
        if isinstance(option, click.Option):
            assert (
                sum(
                    line.split(" ")[2:3] == [option.opts[-1]] or f", {option.opts[-1]}" in line[:20]
                    for line in done.output.splitlines()
                )
                == 1
            ), option.opts
    assert "Your script:\n" in done.output or "Run, sites and data:\n" in done.output
    other = done.output.partition("\nOther:\n")[2]
    assert {line.split()[0] for line in other.splitlines() if line.startswith("  -")} <= {
        "--debug",
        "--help",
        "--version",
    }
    assert "-am" not in done.output


@pytest.mark.parametrize(("given", "meant"), [("--name", "--run"), ("--epochs", "--rounds"), ("--sites", "--edges")])
def test_what_was_meant_is_suggested(given: str, meant: str) -> None:
    done = CliRunner().invoke(command("run", "run"), ["-m", "x", given, "3"])
    assert done.exit_code == 2
    assert f"'{meant}'" in done.output.partition("Did you mean")[2], done.output
    assert "-am" not in done.output


def test_old_spellings_are_taken() -> None:
    done = CliRunner().invoke(command("run", "run"), ["-m", "python x", "-am", "python '"])
    assert "No such option" not in done.output
