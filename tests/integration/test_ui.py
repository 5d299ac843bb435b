"""`flavor ui` and `flavor run --ui` on real runs: the page goes on and ends, and says in one line why it does not."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flavor.bus.acl import enroll
from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.token import with_credentials
from flavor.cli import beside
from flavor.cli.main import cli
from flavor.page.app import Page
from flavor.page.server import Place, bound
from flavor.page.shown import shown_board
from flavor.store.local import LocalStore
from flavor.view.board import Board
from tests.conftest import Bench, Process
from tests.driven import Driven
from tests.integration.test_status_watch import Terminal
from tests.unit.page.test_stream import Reader

TOKEN = "a-token-of-the-test"


def page_of(process: Process) -> str:
    process.until("Ctrl-C ends it")
    found = re.search(r"the page is at (http://\S+)", process.stderr)
    assert found is not None
    return found[1]


def got(address: str, **headers: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_page_of_a_run_until_it_is_told_to_end(bench: Bench, number: signal.Signals) -> None:
    Driven(bench.url, LocalStore(bench.store, create=True), bench.run, rounds=3)
    process = bench.start("flavor", "ui", bench.run, "--port", 0, "--no-open")
    address = page_of(process)
    site, _, rest = address.partition("/run/")
    assert rest == bench.run
    assert got(f"{site}/api/runs/{bench.run}")["rounds"] == 3
    assert [row["run"] for row in got(f"{site}/api/runs")] == [bench.run], "the one that is named, and no other"
    with urllib.request.urlopen(f"{site}/metrics") as answer:
        assert f'flavor_run_rounds{{run="{bench.run}"}} 3.0'.encode() in answer.read()
    live = urllib.request.urlopen(f"{site}/api/stream?run={bench.run}", timeout=30)
    assert live.readline() == b"retry: 2000\n"
    process.send(number)
    assert process.wait() == 0
    assert process.stderr.endswith("the page has ended\n")
    live.close()


def test_a_token_stands_in_no_process_list_and_in_no_output(bench: Bench) -> None:
    Driven(bench.url, LocalStore(bench.store, create=True), bench.run, rounds=3)
    words = ["ui", "--host", "0.0.0.0", "--port", 0, "--token", TOKEN, "--no-open"]
    process = bench.start("flavor", *words, env={"FLAVOR_TEST_COLD": "1"})
    site = page_of(process).replace("localhost", "127.0.0.1")
    listed = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert b"ui\0--host" in listed
    assert TOKEN.encode() not in listed
    with pytest.raises(urllib.error.HTTPError, match="401"):
        got(f"{site}api/runs")
    assert bench.run in [row["run"] for row in got(f"{site}api/runs", Authorization=f"Bearer {TOKEN}")]
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert TOKEN not in process.stderr + process.stdout


@pytest.fixture(scope="module")
def taken() -> Iterator[Place]:
    place = bound("127.0.0.1", 0, token=None)
    yield place
    place.socket.close()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no-such-run"], 1, "no run 'no-such-run'"),
        (["--port", "TAKEN"], 1, "port TAKEN of 127.0.0.1 is in use"),
        (["--host", "0.0.0.0"], 2, "so it needs a token: --token or FLAVOR_UI_TOKEN"),
        (["--host", "203.0.113.7", "--token", TOKEN], 2, "this machine has no such address"),
        (["--token", "short"], 2, "8 characters or more"),
        (["--token", "@/no/such/file"], 2, "--token @/no/such/file: No such file or directory"),
        (["--redis-url", "redis://localhost:1"], 3, "check that it runs"),
        (["--redis-url", "@/no/such/file"], 2, "--redis-url @/no/such/file: No such file or directory"),
        (["no/such/folder"], 2, "no result folder of `flavor run`"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(
    server: str, taken: Place, words: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAVOR_PATIENCE_S", "0.2")
    monkeypatch.setattr("flavor.cli.ui.raise_on_sigterm", lambda: None)
    given = [word.replace("TAKEN", str(taken.port)) for word in words]
    port = [] if "--port" in words else ["--port", "0"]
    url = [] if "--redis-url" in words else ["--redis-url", server]
    done = CliRunner().invoke(cli, ["ui", "--no-open", *given, *port, *url])
    assert done.exit_code == code, done.output
    errors = [line for line in done.stderr.splitlines() if "Error: " in line]
    assert len(errors) == 1
    assert said.replace("TAKEN", str(taken.port)) in errors[0]


@pytest.mark.parametrize("words", [["--token", TOKEN, "--json"], ["--json", "--token", TOKEN]], ids=["first", "last"])
def test_a_token_that_no_page_would_ask_for_is_a_wrong_use(words: list[str]) -> None:
    for command in (["demo"], ["run", "-m", "true"]):
        done = CliRunner().invoke(cli, [*command, *words])
        assert (done.exit_code, done.stdout) == (2, "")
        assert "--token is for the page of --ui: pass --ui as well, or leave --token out" in done.stderr


def test_a_user_that_may_not_look_is_told_who_may(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flavor.cli.ui.raise_on_sigterm", lambda: None)
    with connect(server) as admin:
        secret, _ = enroll(admin, "r", "site-1", where="here")
    url = with_credentials(server, "flavor:r:site-1", secret)
    done = CliRunner().invoke(cli, ["ui", "--port", "0", "--no-open", "--redis-url", url])
    assert done.exit_code == 3
    assert "`flavor enroll --viewer NAME`" in done.stderr
    assert secret not in done.output


@pytest.mark.parametrize("words", [["ui"], ["run", "-m", "true", "--edges", "1", "--ui"]])
def test_libraries_that_are_not_installed_are_named(
    server: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr("flavor.cli.run.raise_on_sigterm", lambda: None)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, [*words, "--redis-url", server])
    assert done.exit_code == 2, done.output
    assert "pip install '.[ui]'" in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing was started"


def test_a_redis_that_goes_away_is_said_and_the_page_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        with embedded_server(append_only=True, folder=folder) as url:
            run = Driven(url, LocalStore(tmp_path / "store", create=True), "r")
            run.open(["a"])
            board = stack.enter_context(Board(url))
            place = bound("127.0.0.1", 0, token=None)
            stack.enter_context(shown_board(url, board, place))
            reader = Reader(place, "r")
            assert reader.until("document").data["round"] == 1
        assert "Redis cannot be read since" in reader.until("problem").data
        assert got(f"{place.address}api/runs/r")["round"] == 1, "what was read stays"
        with pytest.raises(urllib.error.HTTPError, match="503"):
            got(f"{place.address}api/queue")
        with embedded_server(append_only=True, folder=folder):
            assert reader.until("problem").data == ""
            run.accept("a")
            run.close()
            while reader.document["round_state"] != "closed":
                reader.next()
            reader.close()


def test_flavor_run_shows_its_page_and_its_folder_shows_it_again(bench: Bench) -> None:
    out = bench.folder / "out"
    command = bench.trainer("--rounds", 3)
    process = bench.start(
        *("flavor", "run", "-m", command, "--edges", 2, "--rounds", 2, "--out", out, "--run", "shown", "--ui"),
        env={"FLAVOR_REDIS_URL": None},
    )
    process.until("the page of this run: ")
    found = re.search(r"the page of this run: (http://\S+:(\d+))/run/shown", process.stderr)
    assert found is not None
    place = Place(socket.socket(), "127.0.0.1", int(found[2]), True)
    reader = Reader(place, "shown")
    states: list[str] = []
    with contextlib.suppress(EOFError):
        while True:
            reader.next()
            if reader.document and reader.document["state"] not in states[-1:]:
                states.append(reader.document["state"])
    assert states[-1] == "finished", "open pages show the end before theirs"
    assert process.wait() == 0
    assert f"to see it again: flavor ui {out}" in process.stderr
    reader.close()
    place.socket.close()

    again = bench.start("flavor", "ui", out, "--port", 0, "--no-open", env={"FLAVOR_REDIS_URL": None})
    site = page_of(again).partition("/run/")[0]
    assert "press Ctrl-C before you go on" in again.stderr
    assert got(f"{site}/api/runs/shown")["state"] == "finished"
    assert len(got(f"{site}/api/runs/shown/rounds")) == 2
    assert got(f"{site}/api/runs/shown/curves")["rounds"] == [1, 2]
    assert got(f"{site}/api/runs/shown/provenance?verify=1")["verified"] is True
    again.send(signal.SIGTERM)
    assert again.wait() == 0
    assert bench.survivors() == {}


def test_in_a_terminal_the_page_stays_until_ctrl_c_behind_its_token(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, script = bench.folder / "out", bench.folder / "script.py"
    trainer = bench.trainer("--rounds", 1).split()[1:]
    script.write_text(f"import os, runpy, sys\nassert 'FLAVOR_UI_TOKEN' not in os.environ\nsys.argv = {trainer!r}\n")
    with script.open("a") as file:
        file.write("runpy.run_path(sys.argv[0], run_name='__main__')\n")
    monkeypatch.setenv("FLAVOR_UI_TOKEN", TOKEN)
    monkeypatch.delenv("FLAVOR_REDIS_URL", raising=False)
    monkeypatch.chdir(bench.work)
    words = ["run", "-m", f"{sys.executable} {script}", "--edges", "1", "--rounds", "1", "--run", "stays", "--ui"]
    terminal = Terminal(*words, "--out", str(out), columns=250)
    terminal.until("until Ctrl-C")
    found = re.search(r"its page stays at (http://\S+)/run/stays until Ctrl-C", terminal.text)
    assert found is not None
    assert "(it asks for its token)" in terminal.text
    with pytest.raises(urllib.error.HTTPError, match="401"):
        got(f"{found[1]}/api/runs/stays")
    document = got(f"{found[1]}/api/runs/stays", Authorization=f"Bearer {TOKEN}")
    assert document["state"] == "finished"
    assert document["folder"] == str(out), "by which `flavor status` finds it"
    events = got(f"{found[1]}/api/runs/stays/events?kind=run.finished", Authorization=f"Bearer {TOKEN}")
    assert [entry["line"].partition(":")[0] for entry in events] == ["run 'stays' is finished"]
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(30) == 0, "the run's own exit code"
    assert f"the page has ended; to see it again: flavor ui {out}" in terminal.text


def test_the_page_of_a_folder_outlives_its_run(bench: Bench) -> None:
    """Its server ends with `flavor run`; the page then runs one of its own, and open pages come back by themselves."""
    out = bench.folder / "out"
    words = [
        "run",
        "-m",
        bench.trainer("--hold", "--at", 1),
        "--edges",
        1,
        "--rounds",
        1,
        "--out",
        out,
        "--run",
        "left",
    ]
    run = bench.start("flavor", *words, env={"FLAVOR_REDIS_URL": None})
    log = out / "logs" / "edge-1.log"
    bench.eventually("the run is there", lambda: log.exists() and "joined" in log.read_text())
    page = bench.start("flavor", "ui", out, "--port", 0, "--no-open", env={"FLAVOR_REDIS_URL": None})
    site = page_of(page).partition("/run/")[0]
    assert "end the page before" not in page.stderr
    run.send(signal.SIGINT)
    assert run.wait() == 130
    page.until("press Ctrl-C before you go on with the run (flavor run --resume")
    bench.eventually("the page is back", lambda: _state(f"{site}/api/runs/left") == "stopped")
    resumed = bench.done("flavor", "run", "--resume", out, env={"FLAVOR_REDIS_URL": None})
    assert "another process is at this run now, perhaps a `flavor ui`" in resumed.stderr
    page.send(signal.SIGINT)
    assert page.wait() == 0


def _state(address: str) -> str:
    try:
        return str(got(address)["state"])
    except OSError:
        return ""


def test_a_page_that_cannot_be_shown_ends_no_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    place = bound("127.0.0.1", 0, token=None)
    monkeypatch.setattr(Page, "__init__", lambda *_, **__: 1 / 0)
    beside._show("r", bench.url, str(bench.store), "", place, None, threading.Event(), told.append)
    place.socket.close()
    assert told == ["the page cannot be shown: ZeroDivisionError: division by zero"]
