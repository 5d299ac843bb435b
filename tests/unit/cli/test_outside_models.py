"""A site that shares what it has trained judges models of no round; one that declines these cannot share."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from flavor.cli.flavor_fl import command as flavor_fl
from flavor.cli.flavor_fv import command as flavor_fv


@pytest.mark.parametrize("command", [flavor_fl, flavor_fv])
def test_allow_cross_and_no_outside_models_exclude_each_other(command: click.Command) -> None:
    words = ["-m", "true", "--run", "r", "--redis-url", "redis://localhost:1", "--allow-cross", "--no-outside-models"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 2, done.output
    assert "Error: --allow-cross and --no-outside-models exclude each other" in done.output
