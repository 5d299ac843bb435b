"""What all commands do alike: an example first, a module of their name, a line in the page on commands."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flavor.cli.main import COMMANDS, cli
from flavor.cli.main import PROGRAMS as LISTED
from flavor.ledger.keys import SigningKey
from tests.unit.cli.test_command_line import PROGRAMS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
NAMES = [name for listed in COMMANDS.values() for name in listed]
STARTS = {
    "flavor": "flavor.cli.start:flavor",
    "flavor-fl": "flavor.cli.start:edge",
    "flavor-fv": "flavor.cli.start:evaluator",
    "flavor-agg": "flavor.cli.start:aggregator",
    "check-fl": "flavor.cli.check_fl:main",
    "check-fv": "flavor.cli.check_fv:main",
    "check-agg": "flavor.cli.check_agg:main",
    "aumai-fedtrain": "flavor.cli.start:fedtrain",
}


def leaves(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command, info_name=words)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from leaves(f"{words} {name}", inner)


LEAVES = {words: command for program, command in PROGRAMS.items() for words, command in leaves(program, command)}


@pytest.mark.parametrize("words", LEAVES)
def test_each_help_starts_with_an_example_that_the_command_takes(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = LEAVES[words]
    monkeypatch.chdir(tmp_path)
    Path("info.json").write_text("{}")
    model = Path("flavor-runs/mammo/global_model.pkl")
    model.parent.mkdir(parents=True)
    model.touch()
    for line in examples(command):
        match = re.search(rf"{words}( [^|&>)]*)?", line)
        assert match, line
        with command.make_context(words, shlex.split(match[1] or "")) as context:
            assert context.args == []


NO_SERVER = re.compile(
    r"flavor (demo|run|certs|aggregators|verify|store|event|info|report|time-left)\b|check-|aumai-fedtrain|--join "
)
"""Commands, and ways to start them, that need no option for Redis: an event's script has it in its environment."""


@pytest.mark.parametrize("words", LEAVES)
def test_each_example_names_the_server_and_the_store_that_the_command_needs(words: str) -> None:
    for line in examples(LEAVES[words]):
        assert "--redis-url " in line or " flavor-runs/" in line or NO_SERVER.search(line), line
        assert "--store " in line or not re.match(r"flavor (serve|recover)|flavor-agg", line), line


def examples(command: click.Command) -> list[str]:
    """The examples at the beginning of a command's help, of which the lines that go on have been joined."""
    shown = CliRunner().invoke(command, ["--help"]).output
    usage, example, *_ = shown.split("\n\n")
    assert usage.startswith("Usage: ")
    title, *lines = example.splitlines()
    assert all(len(line) <= 80 for line in lines)
    found = "\n".join(lines).replace("\\\n", "").splitlines()
    assert title == ("Example:" if len(found) == 1 else "Examples:")
    return [line.strip() for line in found]


def groups(words: str, command: click.Command) -> Iterator[tuple[str, click.Group]]:
    if isinstance(command, click.Group):
        yield words, command
        for name in command.list_commands(context := click.Context(command, info_name=words)):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from groups(f"{words} {name}", inner)


@pytest.mark.parametrize(
    ("words", "command"),
    [each for program, command in PROGRAMS.items() for each in groups(program, command)],
)
def test_a_group_starts_with_an_example_of_its_commands(words: str, command: click.Group) -> None:
    names = command.list_commands(click.Context(command))
    for line in examples(command):
        match = re.search(rf"{words} ([a-z-]+)", line)
        assert match, line
        assert match[1] in names


@pytest.mark.parametrize("name", NAMES)
def test_a_command_is_in_the_module_of_its_name_and_says_what_the_list_says(name: str) -> None:
    module = name.replace("-", "_")
    command = getattr(importlib.import_module(f"flavor.cli.{module}"), module)
    listed = next(texts[name] for texts in COMMANDS.values() if name in texts)
    assert (command.help or "").split("\n\n")[0].replace("\n", " ").startswith(listed.removesuffix("."))
    assert f"| `flavor {name}` | {listed} |" in PAGE


def test_help_lists_commands_by_who_uses_them() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    for title, listed in {**COMMANDS, "Programs of their own": LISTED}.items():
        section = shown.partition(f"{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines() if line[2] != " "] == list(listed)
    assert f"## {next(iter(COMMANDS))}" in PAGE
    assert all(f"| `{program}` | {text} |" in PAGE for program, text in LISTED.items())
    assert "docs/commands.md" in shown


def completed(folder: Path, program: str, lines: Sequence[str]) -> list[list[str]]:
    """What bash offers at the end of the words of each line."""
    module, _, name = STARTS[program].partition(":")
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    assert f"`{variable}`" in PAGE
    code = f"import sys; sys.argv[0] = '{program}'; from {module} import {name}; {name}()"
    (folder / program).write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    (folder / program).chmod(0o755)
    script = f"""eval "$({variable}=bash_source {program})"
complete=$(complete -p {program} | sed 's/.*-F \\([^ ]*\\).*/\\1/')
for line in {shlex.join(lines)}; do
    COMPREPLY=(); COMP_WORDS=($line); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    $complete {program}
    printf '%s ' "${{COMPREPLY[@]}}"; echo
done
"""
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


OFFERED: dict[str, dict[str, list[str]]] = {
    "flavor": {
        "flavor re": ["results", "resume", "revoke", "recover", "report"],
        "flavor serve --keep-": ["--keep-rounds", "--keep-globals"],
        "flavor serve --compress b": ["bf16"],
        "flavor serve --checkpoint o": ["opaque"],
        "flavor run --aggregator trim": ["trimmed_mean"],
        "flavor run --server-step nest": ["nesterov"],
        "flavor get --store s3": ["s3://"],
    },
    "check-agg": {"check-agg --checkpoint op": ["opaque"], "check-agg --client-m": ["--client-main"]},
    "aumai-fedtrain": {"aumai-fedtrain run --outer-optimizer nest": ["nesterov"], "aumai-fedtrain st": ["status"]},
    "flavor-fl": {"flavor-fl --jo": ["--join", "--join-timeout-s"]},
    "flavor-fv": {"flavor-fv --un": ["--until-end"]},
    "flavor-agg": {"flavor-agg --qu": ["--queue"]},
    "check-fl": {"check-fl --ign": ["--ignore-ckpt"]},
    "check-fv": {"check-fv --mo": ["--model"]},
}


@pytest.mark.parametrize("program", OFFERED)
def test_a_shell_completes(tmp_path: Path, program: str) -> None:
    offered = OFFERED[program]
    assert dict(zip(offered, completed(tmp_path, program, list(offered)), strict=True)) == offered


def test_the_names_of_commands_are_completed_without_importing_them() -> None:
    code = (
        "import sys; from flavor.cli.main import cli\n"
        "cli.shell_complete(cli.make_context('flavor', [], resilient_parsing=True), '')\n"
        "print([name for name in sys.modules if name.startswith('flavor.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "flavor.cli.serve" not in done.stdout


def test_recover_says_whose_key_it_was_given_where_that_is_no_aggregator_s() -> None:
    key = f"site-1 {SigningKey.generate().public}"
    words = ["--run", "r", "--redis-url", "redis://localhost:1", "--store", "nowhere", "--trust", key]
    said = CliRunner().invoke(cli, ["recover", *words]).output
    assert "no trusted key of an aggregator is given: with --trust only that of 'site-1', which signs updates" in said
    assert "name the aggregators' keys with --trust (aggregator.key.pub)" in said
