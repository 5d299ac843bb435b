"""The options of a run's settings: each says what its field says, and a command hands on what it was given."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flavor.cli.resume import resume
from flavor.cli.run import run
from flavor.cli.run_options import SettingOption, config_of, run_options
from flavor.cli.serve import serve
from flavor.config import RunConfig
from flavor.resume import MAY_CHANGE
from flavor.setting import Setting

ROOT = Path(__file__).parents[3]


def options_of(command: click.Command) -> dict[str, SettingOption]:
    return {each.name: each for each in command.params if isinstance(each, SettingOption) and each.name}


def spelled(name: str) -> str:
    return Setting.of(RunConfig.model_fields[name]).option or f"--{name.replace('_', '-')}"


@click.command()
@run_options(variables=True)
def every(**options: object) -> None:
    """Show the settings."""
    click.echo(config_of(options, store="s").model_dump_json())


def test_each_setting_is_an_option_once_with_the_default_of_its_field() -> None:
    assert list(options_of(every)) == [name for name in RunConfig.model_fields if name != "store"]
    done = CliRunner().invoke(every, ["--rounds", "2"])
    assert RunConfig.model_validate_json(done.output) == RunConfig(rounds=2, store="s")


def test_what_a_command_does_otherwise_is_little() -> None:
    fields = RunConfig.model_fields
    for command, differ in ((serve, {"on_quorum_lost"}), (run, {"rounds", "min_clients"})):
        found = options_of(command)
        assert {
            name
            for name, option in found.items()
            if not option.multiple and not fields[name].is_required() and option.default != fields[name].default
        } == differ - {"rounds"}
    assert set(options_of(serve)) - set(options_of(run)) == {"queue"}
    assert set(options_of(resume)) == MAY_CHANGE
    assert {option.default for option in options_of(resume).values()} == {None}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--quorum", "60%"], {"quorum": 0.6}),
        (["--quorum", "1"], {"quorum": 1}),
        (["--keep", "a", "--keep", "b"], {"keep": ("a", "b")}),
        (["--statistics", "none"], {"statistics": ()}),
        (["--statistics", "*.seen"], {"statistics": (*RunConfig(rounds=1, store="s").statistics, "*.seen")}),
        (["--set", "LR=0.1", "--set", "A=b"], {"settings": {"A": "b", "LR": "0.1"}}),
        (
            ["--set-for", "b", "LR=0.1", "--set-for", "a", "LR=1", "--set-for", "b", "A=x=y"],
            {"set_for": {"a": {"LR": "1"}, "b": {"A": "x=y", "LR": "0.1"}}},
        ),
        (["--share-names", "--compress", "int8"], {"share_names": True, "compress": "int8"}),
        (["--heartbeat-timeout-s", "2"], {"heartbeat_timeout_s": 2.0}),
    ],
)
def test_a_value_reaches_its_field(words: list[str], expected: dict[str, object]) -> None:
    done = CliRunner().invoke(every, ["--rounds", "2", *words])
    config = RunConfig.model_validate_json(done.output)
    assert config == RunConfig(rounds=2, store="s").model_copy(update=expected)


@pytest.mark.parametrize(("option", "values"), [("--select", "a:max b:min"), ("--stop-after-no-gain", "3 4")])
def test_a_rule_that_a_run_has_once_is_refused_where_it_is_given_twice(option: str, values: str) -> None:
    first, second = values.split()
    words = ["--rounds", "2", "--select", "a:max", option, first]
    done = CliRunner().invoke(every, words if option != "--select" else words[:-2])
    found = RunConfig.model_validate_json(done.output)
    assert (found.select, found.stop_after_no_gain) == ("a:max", None if option == "--select" else first)
    done = CliRunner().invoke(every, [*words, option, second])
    assert done.exit_code == 2
    given = f"3 times ({first}, {first}, {second})" if option == "--select" else f"2 times ({first}, {second})"
    assert f"'{option}': given {given}, and a run has one: leave out the others" in done.output


def test_variables_are_read_where_they_are_meant_to_be() -> None:
    environment = {"FLAVOR_ROUNDS": "4", "FLAVOR_MIN_CLIENTS": "2", "FLAVOR_QUEUE": "q"}
    done = CliRunner().invoke(every, [], env=environment)
    config = RunConfig.model_validate_json(done.output)
    assert (config.rounds, config.min_clients, config.queue) == (4, 2, "q")
    assert not [option.envvar for command in (run, resume) for option in options_of(command).values() if option.envvar]


def test_help_shows_defaults_and_bounds() -> None:
    shown = " ".join(CliRunner().invoke(every, ["--help"]).output.split())
    for part in (
        "1<=x<=1000000; required]",
        "[default: 3; x>=1]",
        "[default: 1.0; 0.0<x<=1.0]",
        "--round-timeout-s SECONDS|auto[:k=3,...]",
        "[default: no limit; x>=1]",
        "[default: the aggregator's own]",
    ):
        assert part in shown, part


def test_the_page_on_resuming_lists_each_setting_once_with_its_answer() -> None:
    table = (ROOT / "docs" / "resume.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`--.*?) \| (yes|no)\b", table, flags=re.MULTILINE)
    answers = {option: answer == "yes" for names, answer in rows for option in re.findall(r"`(--[a-z-]+)`", names)}
    expected = {spelled(name): name in MAY_CHANGE for name in RunConfig.model_fields if name != "store"}
    assert answers == expected


def test_each_help_is_a_sentence_that_stands_alone() -> None:
    for name, field in RunConfig.model_fields.items():
        text = Setting.of(field).help
        assert re.fullmatch(r"[A-Z].*\.", text), name
        assert not re.search(r"\b(that|this) (sampling|one|rate)\b|nobody|whoever|meanwhile", text), name


@pytest.mark.parametrize(("given", "taken"), [("50MB", 50_000_000), ("2GiB", 2**31), ("17", 17), ("0", 0), ("5 MX", 0)])
def test_a_size_may_have_a_unit(given: str, taken: int) -> None:
    done = CliRunner().invoke(every, ["--rounds", "2", "--max-update-bytes", given])
    assert done.exit_code == (0 if taken else 2)
    if taken:
        assert RunConfig.model_validate_json(done.output).max_update_bytes == taken
    else:
        assert f"'--max-update-bytes': '{given}' is not a size: write e.g. 50MB" in done.output
