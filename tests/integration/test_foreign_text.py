"""What a site writes, shown to an operator and to other sites: as it is, in its place, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.cli.program import fail
from flavor.cli.status import status
from flavor.config import RunConfig
from flavor.errors import RunError
from flavor.local.progress import Progress, rounds_table
from flavor.records.states import RunState
from flavor.results.folder import Results
from flavor.results.rounds import RoundResult

EVIL = "[/x] [link=http://evil]c[/link] \x1b[2J\x1b]0;t\x07 \nrun r: finished \u202e"
TOKEN = "coordinator"


@pytest.fixture
def runs(url: str, tmp_path: Path) -> Iterator[RunStore]:
    """A run with one client, which says evil things of itself."""
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    config = RunConfig(rounds=3, min_clients=1, store=f"file://{tmp_path}")
    runs.create(rounds=3, config=config.to_mapping())
    redis.set(runs.keys.coordinator, TOKEN)
    runs.admit(TOKEN, "evil", "")
    redis.hset(runs.keys.client("evil").hash, mapping={"state": "failed", "host": EVIL, "reason": EVIL})
    yield runs
    redis.close()


@pytest.mark.parametrize("words", [["r"], []])
def test_status_shows_it_as_it_is(runs: RunStore, url: str, words: list[str]) -> None:
    runs.end(RunState.FAILED, f"1 client is needed; evil: {EVIL}")
    done = CliRunner().invoke(status, [*words, "--redis-url", url], env={"COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    assert "[/x] [link=http://evil]c[/link]" in " ".join(done.output.split())
    assert not [c for c in done.output if not c.isprintable() and c != "\n"]
    assert not [line for line in done.output.splitlines() if line.startswith("run r: finished")]


def test_an_error_that_quotes_it_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(RunError(f"run 'r' is failed: evil: {EVIL}"))
    said = capsys.readouterr().err
    assert said.rstrip("\n").isprintable()
    assert "\\x1b[2J" in said


def test_metrics_with_brackets_head_their_columns(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["dice[liver] (weighted)", "dice[tumor] (weighted)", "a[/b] (weighted)"]
    result = RoundResult(round=1, seconds=1.0, clients=["a"], examples=3, bytes=1, metrics=dict.fromkeys(names, 0.5))
    results = Results(run="r", state="finished", reason="all rounds", rounds=[result], global_model=None, out="out")
    progress = Progress("r", 1)
    progress.closed(result, 0)
    line = capsys.readouterr().err
    progress.console.print(rounds_table(results), soft_wrap=True)
    table = capsys.readouterr().err
    for name in names:
        assert name.removesuffix(" (weighted)") in line
        assert name.removesuffix(" (weighted)") in table
