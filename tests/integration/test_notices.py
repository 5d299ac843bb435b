"""`--notify`: people hear of what they have to know, no secret is anywhere, and no run is slower or worse for it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from receiver import Receiver, receiving
from warm import COLD

from flavor.bus.runs import RunStore
from flavor.bus.variables import NOTIFY_VARIABLE
from flavor.errors import BusUnavailable, InvalidSetting, LeaseHeld, StateLost
from flavor.notices import destination, following
from flavor.notices.destination import destinations
from flavor.notices.notices import END_S, Notices, noticed
from flavor.view.client_events import ClientLost
from flavor.view.event import Event
from flavor.view.log import Logged, newest_entry, read_log
from flavor.view.round_events import RunFailed, RunFinished
from tests.driven import Driven
from tests.integration.test_central import edges, finish, judges
from tests.polled import eventually

SECRETS = ("hush-hush", "s3cr3t")
EVENTS = 20_000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as place:
        yield place


# -- in this process


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_fault_of_redis_at_the_end_of_a_run_hides_the_end_only_where_it_stays_and_then_says_so(
    url: str, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    over, told, heard = threading.Event(), list[str](), list[Event]()
    run = Driven(url)

    def ends(runs: RunStore, *, after: str, wait_ms: int | None) -> list[Logged]:
        """The run ends while Redis is away for a moment."""
        if wait_ms is None and comes_back:
            return read_log(runs, after=after)
        over.set()
        run.runs.redis.xadd(run.runs.keys.log, {"event": "run.stopped", "reason": "by hand"})
        raise BusUnavailable("it is away")

    monkeypatch.setattr(following, "read_log", ends)
    notices = cast(Notices, SimpleNamespace(hear=heard.append))
    following._follow(run.runs, notices, newest_entry(run.runs), over, told.append)
    assert [each.name for each in heard] == (["run.stopped"] if comes_back else [])
    assert [line.partition(",")[0] for line in told] == (
        [] if comes_back else ["notices: the last messages may lack what happened at the end"]
    )


def test_a_message_arrives_and_the_end_waits_for_the_last(receiver: Receiver) -> None:
    told: list[str] = []
    with noticed("mammo", [receiver.url], after_s=900, tell=told.append) as observer:
        observer.hear(ClientLost("its heartbeat has stopped", "site-1"))
        receiver.until("site-1 is gone: its heartbeat has stopped")
        observer.hear(RunFinished("all 3 rounds are closed", run="mammo"))
    assert [each["type"] for each in receiver.messages] == ["warning", "success"], "both are there at once"
    assert receiver.messages[-1]["title"] == "flavor: run mammo: finished"
    assert told == ["notices go by JSON"]


def test_the_end_of_a_coordinator_is_a_message_unless_its_user_sees_it(receiver: Receiver) -> None:
    for error in (StateLost("Redis came back empty"), ZeroDivisionError("x"), LeaseHeld("y"), KeyboardInterrupt()):
        with (
            pytest.raises(type(error)),
            noticed("mammo", [receiver.url], after_s=900, tell=print),
        ):
            raise error
    assert [each["message"].partition("coordinator ")[2] for each in receiver.messages] == [
        "has ended: Redis came back empty",
        "has ended with an error of flavor itself (ZeroDivisionError)",
    ]


def test_a_service_that_does_not_answer_delays_nothing_and_loses_little(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is bounded in memory, told once without a secret, and the other service gets all."""
    monkeypatch.setattr(destination, "SEND_S", 0.3)
    told: list[str] = []
    with receiving() as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
        closed.close()
        silent.silent.set()
        urls = [silent.url, f"json://me:hush-hush@127.0.0.1:{port}/s3cr3t", receiver.url]
        places = destinations(urls, told.append)
        notices = Notices("mammo", places, after_s=900)
        began = time.monotonic()
        for number in range(EVENTS):
            notices.hear(ClientLost("gone", f"site-{number}"))
        waits = EVENTS * destination.SEND_S
        assert time.monotonic() - began < waits / 100, "an event waits for no service: each wait would cost SEND_S"
        receiver.until("site-0 is gone")
        notices.hear(RunFailed("no quorum", run="mammo"))
        began = time.monotonic()
        notices.close()
        assert time.monotonic() - began < END_S + 1
        assert "failed: no quorum" in receiver.messages[-1]["message"]
    assert sorted(told) == sorted(set(told)), "once each"
    assert any("there is no connection to the service" in line for line in told), told
    assert len(told) == 2
    assert not any(secret in line for line in told for secret in SECRETS)


def test_a_service_that_refuses_is_told_with_its_answer_and_a_moments_fault_is_made_good(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "_AGAIN_S", 0.2)
    told: list[str] = []
    (place,) = destinations([receiver.url], told.append)
    notices = Notices("mammo", [place], after_s=900)
    receiver.answers = 503
    notices.hear(ClientLost("gone", "site-1"))
    eventually("it is told", lambda: told)
    assert told == [
        "notices by JSON: a message was not delivered: the service answers with HTTP 503; this is said once"
    ]
    assert len(receiver.messages) == 2, "tried twice"
    receiver.answers = 200
    notices.hear(RunFailed("no quorum", run="mammo"))
    notices.close()
    assert "no quorum" in receiver.messages[-1]["message"]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["json://h/a", "slak://hush-hush/x"],
            "URL 2 of 2 cannot be used (slak://): the package apprise does not know",
        ),
        (["hush-hush"], "URL 1 of 1 cannot be used: it has no scheme, as in json://HOST/PATH"),
        (["HUSH hush-hush://x"], "URL 1 of 1 cannot be used: the package apprise does not know its scheme"),
        (["slack://hush-hush"], "cannot be used (slack://): the package apprise does not know its scheme, or a part"),
        (["@nothing"], "--notify @nothing: No such file or directory"),
        (["@empty"], "--notify @empty: the file has no URL: write one on each line"),
        (["@binary"], "--notify @binary: the file is no text"),
        (["@."], "--notify @.: Is a directory"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_by_its_place(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("# none\n\n")
    Path("binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSetting) as caught:
        destinations(given, print)
    assert said in str(caught.value)
    assert "hush" not in str(caught.value).lower()


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(InvalidSetting, match=r"needs a library that is not installed: pip install '\.\[notify\]'"):
        destinations(["json://localhost"], print)


# -- as programs


def nothing_secret(bench, *texts: str) -> None:
    """No secret is in these texts, on Redis, in the store, in the process list or in a child's environment."""
    values = [*texts, *(str(entry) for entry in bench.log()), str(bench.redis.hgetall(bench.runs.keys.state))]
    values += [path.read_text(errors="replace") for path in bench.store.rglob("*.json")]
    for secret in SECRETS:
        assert not [text for text in values if secret in text], secret


def of_process(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(errors="replace")


def test_serve_tells_of_a_lost_site_a_wait_and_the_end(bench, receiver: Receiver, tmp_path: Path) -> None:
    """The URL is on the command line, where it stays for a moment only; a file has another."""
    file = tmp_path / "urls"
    with receiving() as other:
        file.write_text(f"# of the team\n{other.url}\n")
        words = ["--notify", receiver.url, "--notify", f"@{file}", "--notify-after-s", 1, "--heartbeat-timeout-s", 2]
        cold = {COLD: "1"}  # so that it executes the interpreter again, as a user's does
        serve = bench.serve(*words, "--on-quorum-lost", "wait", rounds=2, env=cold)
        receiver.until("waiting for ")
        bench.aggregator()
        command = bench.trainer("--hold", "--only", "client-1", "--at", 2)
        edges = [bench.edge(f"client-{number}", command) for number in (1, 2)]
        bench.held("client-1")
        receiver.until("going on after ")
        assert not any(secret in of_process(serve.pid, "cmdline") for secret in SECRETS)
        os.killpg(edges[0].pid, signal.SIGKILL)
        lost = receiver.until("client-1 is gone")
        assert lost["type"] == "warning"
        assert f"run {bench.run}, round 2 of 2" in lost["title"]
        bench.runs.redis.ping()
        bench.done("flavor", "stop", bench.run)
        serve.wait()
        assert receiver.messages[-1]["message"].startswith("stopped: "), receiver.messages
        assert other.messages[-1] == receiver.messages[-1]
        assert set(receiver.paths) == {"/hooks/s3cr3t"}
        assert "notices go by JSON, JSON" in serve.stderr
        nothing_secret(bench, serve.stderr, serve.stdout)
        assert not any(path.read_bytes().count(b"s3cr3t") for path in bench.folder.rglob("*.log"))


def test_an_evaluation_that_fails_at_the_end_is_told_with_the_end(bench, receiver: Receiver) -> None:
    coordinator = bench.serve("--notify", receiver.url, "--evaluate", "final", rounds=1)
    judges(bench, "--fail", "exit")
    finish(coordinator, *edges(bench))
    message = receiver.messages[-1]
    assert message["title"].endswith(": finished")
    (failed,) = [line for line in message["message"].splitlines() if line.startswith("evaluation failed: ")]
    assert failed.endswith("the model of round 1 on the operator's own data: its evaluator ended (exit code 3)")


def test_a_run_on_this_machine_sends_notices_and_hides_them_from_its_scripts(
    bench, receiver: Receiver, tmp_path: Path
) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "import os, sys\nfound = [name for name in os.environ if 'hush' in os.environ[name]]\n"
        "print('the script finds', found, file=sys.stderr, flush=True)\nsys.exit(3)\n"
    )
    words = ["-m", f"python {script}", "--edges", 1, "--run", bench.run, "--out", "out"]
    env = {"FLAVOR_REDIS_URL": None, NOTIFY_VARIABLE: receiver.url}
    done = bench.done("flavor", "run", *words, env=env)
    assert done.wait() == 1
    message = receiver.until("failed: ")
    assert message["title"].endswith(": failed")
    texts = [
        path.read_text(errors="replace") for path in (bench.work / "out").rglob("*") if path.suffix in (".log", ".json")
    ]
    assert any("the script finds []" in text for text in texts)
    assert not [text for text in [*texts, done.stderr] if any(secret in text for secret in SECRETS)]


def test_a_silent_service_slows_no_round_and_the_end_by_seconds_only(bench, receiver: Receiver) -> None:
    receiver.silent.set()
    bench.aggregator()
    serve = bench.serve("--notify", receiver.url, "--heartbeat-timeout-s", 2, rounds=3)
    for number in (1, 2):
        bench.edge(f"client-{number}", bench.trainer())
    bench.logged("run.finished")
    began = time.monotonic()
    assert serve.wait() == 0, serve.stderr
    assert time.monotonic() - began < END_S + 4
    assert "the last message may be lost, because it was not taken in time" in serve.stderr
    nothing_secret(bench, serve.stderr)
    rounds = [bench.runs.read_round(number) for number in (1, 2, 3)]
    assert all((each.closed_ms - each.opened_ms) < 5000 for each in rounds)
