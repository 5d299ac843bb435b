"""Help for people: groups, one spelling each, and suggestions by meaning."""

from __future__ import annotations

import importlib

import click
import pytest
from click.testing import CliRunner

COMMANDS = [
    ("run", "run"),
    ("serve", "serve"),
    ("flavor_fl", "command"),
    ("flavor_fv", "command"),
    ("flavor_agg", "command"),
    ("resume", "resume"),
]


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
                    line.startswith("  -") and option.opts[-1] in line.replace(",", " ").split()[:2]
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


@pytest.mark.parametrize(("module", "short"), [("check_fl", ["-am"]), ("check_agg", ["-cm", "-cp"])])
def test_checks_list_the_short_names_that_people_type(module: str, short: list[str]) -> None:
    listed = CliRunner().invoke(command(module, "command"), ["--help"]).output
    assert [name for name in ("-am", "-cm", "-cp") if f"  {name}, --" in listed] == short


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            ["-m", "python x", "--input-glob", "data/s1", "data/s2", "--rounds", "3"],
            "--input-glob takes one word: put the pattern in quotes: --input-glob 'data/site*/'",
        ),
        (["--input-glob=data/s1", "data/s2", "-m", "x"], "--input-glob takes one word: put the pattern in quotes"),
        (
            ["-m", "python", "main.py", "--edges", "2"],
            "-m takes one word: put the command in quotes: -m 'python main.py'",
        ),
        (["-m", "python main.py", "--edges", "2", "more"], ""),
        (["-m", "python main.py", "--set", "LR", "0.1"], "--set takes one word: --set NAME=VALUE"),
        (
            ["-m", "python main.py", "--set-for", "site1", "LR", "0.1"],
            "--set-for takes two words: --set-for CLIENT NAME=VALUE",
        ),
        (["python", "main.py"], "Give the command of the script after -m, in quotes: -m 'python main.py'"),
    ],
)
def test_what_a_shell_has_taken_apart_needs_quotes(words: list[str], advice: str) -> None:
    done = CliRunner().invoke(command("run", "run"), words)
    assert done.exit_code == 2
    assert "Got unexpected extra argument" in done.output
    assert advice in done.output
    assert any(how in done.output for how in ("in quotes", "one word", "two words")) == bool(advice)


@pytest.mark.parametrize("module", ["check_fl", "flavor_fl"])
def test_without_its_option_a_command_is_told_to_stand_in_quotes(module: str) -> None:
    done = CliRunner().invoke(command(module, "command"), ["python main.py"])
    assert done.exit_code == 2
    assert "Missing option '-m' / '--main': the command of the script, in quotes: -m 'python main.py'" in done.output


def test_old_spellings_are_taken() -> None:
    done = CliRunner().invoke(command("run", "run"), ["-m", "python x", "-am", "python '"])
    assert "No such option" not in done.output
