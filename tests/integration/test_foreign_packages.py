"""A run's hash in Redis names stores and kinds of packages: no command imports one that its user has not named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.cli.credits import credits
from flavor.cli.get import get
from flavor.cli.log import log
from flavor.cli.resume import resume
from flavor.cli.status import status
from flavor.config import RunConfig
from flavor.errors import ObjectMissing
from flavor.records.states import RunState

POINTS = "[flavor.stores]\ntape = robot_code:tape\n\n[flavor.checkpoints]\nforest = robot_code:Forest\n"


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that an installed package writes when it is imported."""
    about, mark = tmp_path / "packages" / "robot-1.0.dist-info", tmp_path / "imported"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: robot\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    (about.parent / "robot_code.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    monkeypatch.syspath_prepend(str(about.parent))
    return mark


@pytest.fixture
def runs(url: str) -> Iterator[RunStore]:
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    config = {**RunConfig(rounds=3, min_clients=1, store="file:///s").to_mapping(), "store": "tape://host/run"}
    runs.create(rounds=3, config={**config, "checkpoint": "forest"})
    yield runs
    redis.close()


@pytest.mark.parametrize("command", [credits, get, resume])
def test_a_store_of_a_package_that_only_the_run_names_is_not_opened(
    runs: RunStore, url: str, imported: Path, monkeypatch: pytest.MonkeyPatch, command: object
) -> None:
    def gone(runs: RunStore, store: object = None) -> None:
        raise ObjectMissing("the verdicts are gone")

    monkeypatch.setattr("flavor.credits.contributions", gone)
    runs.end(RunState.FAILED, "over")
    done = CliRunner().invoke(command, ["r", "--redis-url", url])
    assert not imported.exists()
    assert done.exit_code == 2, done.output
    assert "run 'r' keeps its objects in a store 'tape://', which a package of this machine would open" in done.output
    assert "pass --store URL" in done.output


@pytest.mark.parametrize("command", [status, log])
def test_what_only_shows_a_run_opens_no_store_of_a_package(
    runs: RunStore, url: str, imported: Path, command: object
) -> None:
    done = CliRunner().invoke(command, ["r", "--redis-url", url])
    assert not imported.exists()
    assert done.exit_code == 0, done.output
    if command is status:
        assert "no metrics are shown: a package would open the run's store 'tape://'" in done.output
