"""What installed packages add to the values of options stands in the help and is completed."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flavor.cli.check_agg import command as check_agg
from flavor.cli.check_fl import command as check_fl
from flavor.cli.get import get
from flavor.cli.run import run
from flavor.cli.serve import serve

POINTS = """[flavor.checkpoints]
svm = absent_package:Svm

[flavor.stores]
ipfs = absent_package:open
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package whose code cannot be imported: nothing here needs it."""
    about = tmp_path / "extra-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def shown(command: click.Command) -> str:
    return " ".join(CliRunner().invoke(command, ["--help"]).output.split())


def completed(command: click.Command, name: str, incomplete: str) -> list[str]:
    option = next(each for each in command.params if each.name == name)
    return [item.value for item in option.shell_complete(click.Context(command), incomplete)]


@pytest.mark.parametrize("command", [run, serve, check_fl, check_agg])
def test_help_names_the_kinds_of_checkpoints_that_are_installed(command: click.Command, package: None) -> None:
    assert "Installed: tensors, opaque, svm. [default: tensors]" in shown(command)
    assert completed(command, "checkpoint", "") == ["tensors", "opaque", "svm"]
    assert completed(command, "checkpoint", "s") == ["svm"]


def test_without_packages_there_are_the_kinds_and_schemes_that_are_built_in() -> None:
    assert "Installed: tensors, opaque. [default: tensors]" in shown(run)
    assert "Installed packages add" not in shown(run)
    assert completed(run, "store", "ip") == ["ip"]


@pytest.mark.parametrize("command", [run, serve, get])
def test_help_names_the_schemes_of_stores_that_packages_add(command: click.Command, package: None) -> None:
    assert "AWS_* variables. Installed packages add ipfs://. [env var: FLAVOR_STORE]" in shown(command)
    assert completed(command, "store", "i") == ["ipfs://"]
    folder = next(each for each in command.params if each.name == "store").shell_complete(click.Context(command), "/x")
    assert [(item.value, item.type) for item in folder] == [("/x", "dir")]


@pytest.mark.parametrize(
    ("incomplete", "offered"),
    [
        ("med", ["median"]),
        ("norm", ["norm_clip"]),
        ("norm_clip:c=1/med", ["norm_clip:c=1/median"]),
        ("com", ["command"]),
        ("norm_clip:c=1/com", []),
        ("nesterov", []),
        ("svm", []),
    ],
)
def test_rules_are_completed_by_name(incomplete: str, offered: list[str]) -> None:
    assert completed(serve, "aggregator", incomplete) == offered


def test_server_steps_are_completed_by_name() -> None:
    assert completed(serve, "server_step", "nest") == ["nesterov"]
    assert completed(serve, "server_step", "median") == []


def test_a_wrong_value_is_answered_with_those_that_are_installed(package: None) -> None:
    from flavor.checkpoints.kinds import kind_named
    from flavor.errors import InvalidSetting
    from flavor.store.open import open_store

    with pytest.raises(InvalidSetting, match="only: tensors, opaque, svm; "):
        kind_named("none")
    with pytest.raises(InvalidSetting, match=r"schemes here: file, s3, gs, az, ipfs\)"):
        open_store("other://x")
