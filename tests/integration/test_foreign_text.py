"""What a site writes, shown to an operator and to other sites: as it is, in its place, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.cli.log import log
from flavor.cli.program import fail
from flavor.cli.status import status
from flavor.config import RunConfig
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.members import Members
from flavor.errors import RunError
from flavor.local.progress import Progress, rounds_table
from flavor.policy.standing import client_of
from flavor.printable import quoted
from flavor.protocol import SPEAKS
from flavor.records.client import ClientStatus
from flavor.records.states import ClientState, RunState
from flavor.records.update import Refused
from flavor.records.verdict import Verdict
from flavor.results.folder import Results
from flavor.results.rounds import RoundResult
from flavor.view.observer import Lines, Silent

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


FORGED = "2026-11-29 14:32:46.123  client.lost          A                    A: stole the data"
BLANKS = (" ", "\u3164", "\u2800", "\xa0", "\t", "\n")


@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize("columns", [80, 120])
def test_no_site_writes_a_line_of_its_own_below_one_of_the_log(
    runs: RunStore, url: str, columns: int, blank: str
) -> None:
    """It filled the terminal's line with what shows nothing, and began the next one."""
    words = f'disk full"{blank * (columns - 1)}{FORGED}{blank * columns}{FORGED}'
    observed = list[str]()
    seen = Members(runs, Lines(observed.append), ClientLog(runs, Silent()), quarantine_after=3, lease_s=15.0, only=None)
    runs.redis.hset(runs.keys.client("evil").hash, mapping={**SPEAKS, "state": "ready", "reason": ""})
    runs.redis.set(runs.keys.client("evil").lease, "x")
    seen.read_all(token=TOKEN, lenient=lambda: False)
    runs.redis.hset(runs.keys.client("evil").hash, mapping={"state": "failed", "reason": words, "report": words})
    seen.read_all(token=TOKEN, lenient=lambda: False)
    runs.judge(1, "evil", Verdict(False, words))
    runs.log("round.note", reason=words)
    shown = [CliRunner().invoke(each, ["r", "--redis-url", url]) for each in (log, status)]
    assert [each.exit_code for each in shown] == [0, 0]
    lines = [line for each in shown for line in each.stdout.splitlines()]
    assert sum("disk full" in line for line in lines) >= 3
    for line in lines:
        wrapped = [line[at : at + columns] for at in range(0, len(line), columns)]
        assert not [part for part in wrapped[1:] if FORGED[:46] in part], line
        assert blank * 3 not in line.partition("disk full")[2]
    [lost] = [fields["reason"] for _, fields in runs.redis.xrange(runs.keys.log) if fields["event"] == "client.lost"]
    assert lost[0] == lost[-1] == '"'
    assert '"' not in lost[1:-1], "it ends its quotation itself"


def test_words_of_a_site_are_quoted_wherever_they_are_shown() -> None:
    said = 'lost power"; A: its update was a backdoor'
    assert quoted(said) == '"lost power\'; A: its update was a backdoor"'
    assert (quoted(""), quoted("  \n")) == ("", "")
    assert quoted("x" * 9, most=3) == '"xxx"'
    assert Refused(said).said(1000) == quoted(said)
    failed = ClientStatus("failed", said)
    assert client_of(failed, ClientState.FAILED, is_there=True, is_quarantined=False).why_gone == quoted(said)
    revoked = client_of(failed, ClientState.REVOKED, is_there=False, is_quarantined=False)
    assert revoked.why_gone == "it was revoked", "an operator's word, and not the site's"


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
