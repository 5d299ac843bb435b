"""`flavor log`: which events it shows, and in which colours."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.cli.log import _patiently, log
from flavor.cli.opened_run import OpenedRun
from flavor.config import RunConfig
from flavor.records.states import RunState
from flavor.view.events import KINDS
from flavor.view.log import START
from flavor.view.snapshot import Phase
from flavor.view.styles import COLOUR_OF_EVENT, COLOUR_OF_PHASE

HOUR = 3_600_000
ENTRIES = {  # hours ago: what happened
    30: {"event": "round.opened", "round": "1", "reason": "ready"},
    5: {"event": "update.refused", "round": "1", "client": "a", "reason": "NaN in w"},
    3: {"event": "client.lost", "client": "b", "reason": "its heartbeat stopped"},
    2: {"event": "round.waiting", "round": "1", "reason": "1 of 2 updates accepted"},
    1: {"event": "client.not_admitted", "client": "stranger", "reason": "no token\x1b[2J\nFORGED"},
    0: {"event": "round.closed", "round": "1", "reason": "all accepted"},
}
RED, YELLOW, GREEN = "\x1b[31m", "\x1b[33m", "\x1b[32m"


@pytest.fixture(scope="module")
def runs(url: str) -> RunStore:
    """A run whose log has one event each of `ENTRIES`, so long ago."""
    runs = RunStore(connect(url), "r", url)
    runs.create(rounds=3, config=RunConfig(rounds=3, store="s").to_mapping())
    runs.redis.delete(runs.keys.log)
    runs.redis.sadd(runs.keys.members, "a", "b", "quiet")
    now_ms = runs.now_ms()
    for hours, fields in ENTRIES.items():
        runs.redis.xadd(runs.keys.log, fields, id=f"{now_ms - hours * HOUR}-1")
    return runs


def shown(runs: RunStore, *options: str, **env: str) -> Result:
    return CliRunner(env=env).invoke(log, [runs.run, "--redis-url", runs.where, *options])


def events(done: Result) -> list[str]:
    assert done.exit_code == 0, done.output
    return [json.loads(line)["event"] for line in done.stdout.splitlines()]


def test_since(runs: RunStore) -> None:
    assert events(shown(runs, "--json")) == [each["event"] for each in ENTRIES.values()]
    assert events(shown(runs, "--json", "--since", "150m")) == ["round.waiting", "client.not_admitted", "round.closed"]
    assert events(shown(runs, "--json", "--since", "2020-01-01")) == [each["event"] for each in ENTRIES.values()]
    identity, _ = runs.redis.xrange(runs.keys.log, count=2)[1]
    at = datetime.fromtimestamp(int(identity.partition("-")[0]) / 1000, UTC)
    assert events(shown(runs, "--json", "--since", at.isoformat(timespec="milliseconds")))[0] == "update.refused"
    later = at + timedelta(milliseconds=1)
    assert events(shown(runs, "--json", "--since", later.isoformat(timespec="milliseconds")))[0] == "client.lost"


def test_clients(runs: RunStore) -> None:
    assert events(shown(runs, "--json", "--client", "a")) == ["update.refused"]
    both = shown(runs, "--json", "--client", "a", "--client", "b", "--since", "4h")
    assert events(both) == ["client.lost"]
    assert events(shown(runs, "--json", "--client", "quiet")) == []
    assert events(shown(runs, "--json", "--client", "stranger")) == ["client.not_admitted"]  # it has never joined


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--since", "yesterday"], "Error: --since yesterday: write so long ago (90s, 30m, 2h, 1d), a time"),
        (["--since", "2999-01-01"], "Error: --since 2999-01-01: that is still to come: the clock of the Redis server"),
        (
            ["--client", "c"],
            "Error: --client c: no site of this name has joined run 'r': `flavor status` lists the sites",
        ),
        (["--client", "a b"], "Error: --client 'a b' cannot be used: 1 to 64 letters"),
        (["--script", "a", "--since", "2h"], "Error: --script and --since exclude each other"),
        (["--script", "a", "--client", "a"], "Error: --script and --client exclude each other"),
    ],
)
def test_wrong_values_are_refused_in_one_line(runs: RunStore, options: list[str], line: str) -> None:
    done = shown(runs, *options)
    assert done.exit_code == 2
    assert done.stderr.startswith(line)
    assert done.output.count("\n") == 1


def test_colours(runs: RunStore) -> None:
    plain, coloured = shown(runs).stdout, shown(runs, "--color").stdout
    assert "\x1b" not in plain  # no terminal
    assert "\x1b" not in shown(runs, "--json", "--color").stdout
    lines = dict(zip(ENTRIES, coloured.splitlines(), strict=True))
    assert all(RED in lines[hours] for hours in (5, 3, 1))
    assert YELLOW in lines[2]
    assert GREEN in lines[0]
    for code in (RED, YELLOW, GREEN, "\x1b[36m", "\x1b[2m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain  # no text of a site is an escape sequence


def test_a_terminal_gets_colours_unless_its_user_wants_none(runs: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flavor.cli.output.sys", Terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert RED in shown(runs, TERM="xterm").stdout
    assert RED in shown(runs, TERM="xterm", NO_COLOR="").stdout  # as no-color.org says
    assert "\x1b" not in shown(runs, TERM="xterm", NO_COLOR="1").stdout
    assert "\x1b" not in shown(runs, TERM="dumb").stdout
    assert "\x1b" not in shown(runs, "--no-color", TERM="xterm").stdout
    assert RED in shown(runs, "--color", TERM="xterm", NO_COLOR="1").stdout


def test_a_terminal_gets_whole_words_and_an_indent(runs: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "word " * 40 + "w" * 90
    runs = RunStore(runs.redis, "narrow", runs.where)
    runs.create(rounds=3, config=RunConfig(rounds=3, store="s").to_mapping())
    runs.redis.xadd(runs.keys.log, {"event": "update.refused", "round": "1", "client": "a", "reason": why})
    piped = shown(runs, COLUMNS="60").stdout
    assert why in piped
    monkeypatch.setattr("flavor.cli.output.sys", Terminal)
    for options in ("--no-color", "--color"):
        lines = re.sub(r"\x1b\[\d*m", "", shown(runs, options, COLUMNS="60", TERM="xterm").stdout).splitlines()
        assert "\n".join(lines).split() == piped.split(), "each word is whole"
        assert [line for line in lines if len(line) > 60] == [f"    {'w' * 90}"]
        assert all(re.match(r"\d{4}-| {4}\S", line) for line in lines)
    assert events(shown(runs, "--json", COLUMNS="60"))[-1] == "update.refused"


class Terminal:
    class stdout:
        @staticmethod
        def isatty() -> bool:
            return True


def test_follow_shows_the_chosen_sites_until_the_end(runs: RunStore) -> None:
    runs = RunStore(runs.redis, "ended", runs.where)
    runs.create(rounds=3, config=RunConfig(rounds=3, store="s").to_mapping())
    runs.redis.hset(runs.keys.state, "state", "stopped")
    for client in ("a", "b"):
        runs.redis.xadd(runs.keys.log, {"event": "client.joined", "client": client, "reason": "in"})
    done = CliRunner().invoke(
        log,
        ["ended", "--redis-url", runs.where, "--follow", "--json", "--client", "b", "--client", "z", "--since", "1h"],
    )
    assert events(done) == ["client.joined"]
    assert "no site 'z' has joined run 'ended' yet: waiting for its events" in done.stderr


def test_follow_goes_on_after_an_outage_of_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with contextlib.ExitStack() as second:

        def comes_back(line: str, *, err: bool) -> None:
            told.append(line)
            url = second.enter_context(embedded_server(append_only=True, folder=tmp_path))
            again = RunStore(connect(url), "r", url)
            again.log("round.note", reason="after the outage", round_=1)
            again.end(RunState.STOPPED, "enough")

        monkeypatch.setattr("flavor.cli.log.print_line", comes_back)
        with embedded_server(append_only=True, folder=tmp_path) as url:
            found = OpenedRun("r", connect(url, patience_s=0.1), url, None)
            found.runs.create(rounds=3, config=RunConfig(rounds=3, store="s").to_mapping())
            entries = _patiently(found, START)
            events = [next(entries).entry["event"]]
        events += [logged.entry["event"] for logged in entries]
    assert events == ["run.created", "round.note", "run.stopped"]
    [line] = told
    assert re.match(r"the log cannot be read since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: Redis at .*; waiting for it$", line)


def test_every_kind_of_event_and_every_phase_has_its_colour() -> None:
    assert set(COLOUR_OF_EVENT) == set(KINDS)
    assert set(COLOUR_OF_PHASE) == set(Phase)
