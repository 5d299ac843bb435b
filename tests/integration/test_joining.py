"""Whole runs whose sites have a join token and nothing else; their secrets are then looked for everywhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import redis
from pages import on_path
from redisserver import redis_server
from warm import COLD

from flavor.bus.connection import connect, options
from flavor.bus.embedded import embedded_server
from flavor.bus.token import JoinToken
from flavor.certs import Certificates, make_certificates
from flavor.checkpoints import Format, read
from flavor.ledger.keys import SigningKey
from flavor.records.states import RunState

OPERATOR = "the-0perator's/pass?word"
SHELL_TRAINER = """#!/bin/sh
# A trainer that is not Python: it hands the same checkpoint in, round after round.
set -eu
flavor event set TrainInitDone
while flavor event wait TrainStarted; do
    cp "$TEST_SEED" "$LOCAL_MODEL_PATH"
    flavor info save "$TEST_INFO"
    flavor event set TrainFinished
done
"""
INFO = """{"metadata": {"epoch": 1, "datasetSize": 30, "importance": 1.0},
 "metrics": {"basic/confusion_tp": 3, "basic/confusion_fp": 3, "basic/confusion_fn": 3, "basic/confusion_tn": 3}}"""


@dataclass(frozen=True)
class Door:
    """A server whose administrator has a password."""

    url: str
    """For a command line: with the password, without TLS files."""
    address: str
    """For this process."""
    certificates: Certificates | None

    @property
    def environment(self) -> dict[str, str | None]:
        """The TLS files, and no URL: who needs one is told it."""
        made = self.certificates
        names = ("FLAVOR_TLS_CA", "FLAVOR_TLS_CERT", "FLAVOR_TLS_KEY")
        files = [made.certificate("ca"), made.certificate("client"), made.key("client")] if made else [None] * 3
        values = [str(file) if file else None for file in files]
        return {"FLAVOR_REDIS_URL": None, **dict(zip(names, values, strict=True))}


@pytest.fixture(params=["embedded", "redis-server"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    """Once a socket of this machine, once TLS with client certificates and a file of users."""
    password = quote(OPERATOR, safe="")
    with contextlib.ExitStack() as stack:
        if request.param == "embedded":
            url = stack.enter_context(embedded_server())
            with connect(url) as client:
                client.execute_command("ACL SETUSER", "default", "resetpass", f">{OPERATOR}")
            url = url.replace("unix://", f"unix://:{password}@")
            yield Door(url, url, None)
        else:
            made = make_certificates(tmp_path / "tls", ["localhost"])
            server = stack.enter_context(
                redis_server(
                    tmp_path / "r", certificates=made, client_certificates=True, password=OPERATOR, users_file=True
                )
            )
            yield Door(server.url, server.address, made)


class Watched:
    """All that MONITOR tells while it watches."""

    def __init__(self, client) -> None:
        self.lines: list[str] = []
        self._client = client
        self._monitor = client.monitor()
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        for entry in self._monitor.listen():
            self.lines.append(entry["command"])
            if "the end of it" in entry["command"]:
                return

    def end(self) -> str:
        self._client.echo("the end of it")
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._monitor.__exit__(None, None, None)
        return "\n".join(self.lines)


def everything_in(url: str) -> str:
    """All that the server holds; RQ's jobs, which it compresses, in plain words."""
    held: list[bytes] = []
    with redis.Redis.from_url(url, **options(url, 10)) as client:
        looks = {
            b"string": lambda key: [client.get(key)],
            b"hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"list": lambda key: client.lrange(key, 0, -1),
            b"stream": lambda key: [part for _, fields in client.xrange(key) for part in fields.values()],
        }
        for key in client.scan_iter():
            held += [key, *looks[client.type(key)](key)]
    for i, value in enumerate(held):
        with contextlib.suppress(zlib.error):
            held[i] = zlib.decompress(value)
    return "\n".join(value.decode(errors="replace") for value in held)


def test_a_run_of_enrolled_sites(bench_at, door: Door, tmp_path: Path) -> None:
    bench = bench_at(door.address)
    watched = Watched(connect(door.address))
    env = door.environment
    operator = {**env, "FLAVOR_REDIS_URL": None}

    # -- enrolled, before there is a run
    tokens = {}
    for name in ("edge-1", "edge-2", "edge-3"):
        words = ["--unsaved", bench.run, name, "--store", bench.store, "--redis-url", door.url]
        process = bench.done("flavor", "enroll", *words, env=operator)
        assert process.wait() == 0, process.stderr
        tokens[name] = process.stdout.strip()
        assert tokens[name] not in process.stderr
    parsed = {name: JoinToken.parse(token) for name, token in tokens.items()}
    assert all((token.ca is not None) == (door.certificates is not None) for token in parsed.values())
    secrets = [token.secret.get_secret_value() for token in parsed.values()]
    secrets += [*tokens.values(), OPERATOR, quote(OPERATOR, safe="")]
    assert len(set(secrets)) == 8

    # -- a coordinator and an aggregator with the operator's password, three sites with tokens, given in three ways
    words = ["--run", bench.run, "--store", bench.store, "--rounds", 3, "--min-clients", 3, "--queue", bench.run]
    coordinator = bench.start("flavor", "serve", *words, "--redis-url", door.url, env=operator)
    (tmp_path / "edge-2.token").write_text(tokens["edge-2"] + "\n")
    (tmp_path / "train.sh").write_text(SHELL_TRAINER)
    (tmp_path / "info.json").write_text(INFO)
    np.savez(tmp_path / "seed.npz", w=np.zeros((3, 2), np.float32), b=np.zeros(4, np.float32))
    site = {**env, "FLAVOR_TLS_CA": None, "TEST_BUS": door.address}
    shell = on_path(tmp_path / "programs")
    shell |= {"TEST_SEED": str(tmp_path / "seed.npz"), "TEST_INFO": str(tmp_path / "info.json")}
    given = {
        "edge-1": (["--join", tokens["edge-1"], "-m", bench.trainer("--hold", "--at", 1)], {COLD: "1"}),  # as users do
        "edge-2": (["--join", f"@{tmp_path / 'edge-2.token'}", "-m", bench.trainer()], {}),
        "edge-3": (["-m", f"sh {tmp_path / 'train.sh'}"], {**shell, "FLAVOR_JOIN": tokens["edge-3"]}),
    }
    edges = [
        bench.start("flavor-fl", *words, "--workspace", bench.folder / name, env={**site, **more})
        for name, (words, more) in given.items()
    ]

    # -- in the middle of a round, with everything running, and a job that waits for the aggregator
    bench.held("edge-1")
    bench.eventually("a job", lambda: "workers.jobs.inspect" in everything_in(door.address))
    held = everything_in(door.address)
    words = ["--queue", bench.run, "--store", bench.store, f"--redis-url={door.url}"]
    aggregator = bench.start("flavor-agg", *words, env=operator)
    aggregator.until("listens on queue")
    processes = bench.survivors()
    assert len(processes) >= 8  # coordinator, aggregator, three edges, three trainers
    assert not [secret for secret in secrets if secret in "\n".join(processes.values())]
    assert sum("flavor.cli.flavor_fl -m" in command for command in processes.values()) == 2  # where --join TOKEN was
    trainers = [pid for pid, command in processes.items() if "toy_trainer" in command and "flavor.cli" not in command]
    assert len(trainers) == 2
    for pid in trainers:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"FLAVOR_JOIN" not in environment
        assert (b"FLAVOR_TLS_CA=" in environment) == (door.certificates is not None)
    clients = str(bench.redis.client_list())
    for name in parsed:
        assert f"flavor:{bench.run}:{name}" in clients
    bench.release("edge-1")
    assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0, 0], [p.stderr for p in edges]

    # -- it was a run like any other
    view = bench.runs.read()
    assert view.state is RunState.FINISHED
    expected = 0.0
    for _ in range(3):
        expected = (10 * (expected + 1) + 20 * (expected + 2) + 30 * 0.0) / 60
    assert view.global_model is not None
    model = read(bench.store / view.global_model.model.path, Format.SAFETENSORS).tensors
    for array in model.values():
        np.testing.assert_allclose(array, expected, rtol=1e-6)
    for edge in edges:
        assert "Traceback" not in edge.stderr
        assert "NOPERM" not in edge.stderr + edge.stdout
    assert bench.redis.acl_log() == []  # nobody was refused anything

    # -- and its secrets are nowhere
    process = bench.done("flavor", "status", bench.run, "--redis-url", door.url, env=operator)
    assert "finished" in process.stdout
    told = [process.stdout, process.stderr]
    aggregator.end()
    told += [text for one in (coordinator, aggregator, *edges) for text in (one.stdout, one.stderr)]
    told += [held, everything_in(door.address), clients, str(bench.redis.slowlog_get(128)), watched.end()]
    told += [str(bench.redis.acl_list())]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "edge-2.token"]
    assert len(written) > 20
    for secret in secrets:
        for text in told:
            assert secret not in text
        for path in written:
            assert secret.encode() not in path.read_bytes(), path


def test_a_revoked_site_ends_at_once_and_the_others_go_on(bench_at, door: Door, tmp_path: Path) -> None:
    bench = bench_at(door.address)
    env = {**door.environment, "FLAVOR_TLS_CA": None}
    operator = {**door.environment, "FLAVOR_REDIS_URL": door.url}
    edges = {}
    words = ["--run", bench.run, "--store", bench.store, "--rounds", 3, "--min-clients", 2, "--quorum", 1]
    coordinator = bench.start("flavor", "serve", *words, "--queue", bench.run, env=operator)
    bench.start("flavor-agg", "--queue", bench.run, "--store", bench.store, env=operator)
    for name, flags in (("edge-1", ()), ("edge-2", ("--hold", "--at", 2))):
        words = ["--unsaved", bench.run, name, "--store", bench.store]
        token = bench.done("flavor", "enroll", *words, env=operator).stdout.strip()
        assert token.startswith("flavor-join:")
        words = ["-m", bench.trainer(*flags), "--workspace", bench.folder / name]
        edges[name] = bench.start("flavor-fl", *words, env={**env, "FLAVOR_JOIN": token, "TEST_BUS": door.address})
        secret = JoinToken.parse(token).secret.get_secret_value()
    bench.held("edge-2")
    process = bench.done("flavor", "revoke", bench.run, "edge-2", env=operator)
    assert process.wait() == 0, process.stderr
    assert edges["edge-2"].wait() == 3
    lines = edges["edge-2"].stderr.splitlines()
    assert "Error: Redis at " in lines[-1]
    assert "a client that was revoked or enrolled anew needs a new one" in lines[-1]
    assert "trying for" not in edges["edge-2"].stderr
    assert secret not in edges["edge-2"].stderr + edges["edge-2"].stdout
    assert not [pid for pid, command in bench.survivors().items() if "edge-2" in command]
    assert [edges["edge-1"].wait(), coordinator.wait()] == [0, 0], coordinator.stderr
    assert bench.logged("client.lost", client="edge-2")["reason"] == "it was revoked"
    closed = [entry["reason"].split()[0] for entry in bench.log() if entry["event"] == "round.closed"]
    assert closed == ["2", "1", "1"]
    # -- its token is worth nothing any more, and that is said at once
    again = bench.done("flavor-fl", "-m", "true", "--debug", env={**env, "FLAVOR_JOIN": token})
    assert again.wait() == 3
    assert "trying for" not in again.stderr
    assert secret not in again.stderr
    assert token not in again.stderr


def test_a_site_that_only_judges_joins_with_its_token(bench_at, door: Door) -> None:
    """Its user of Redis may do all that it needs, and ends it when it is revoked, also after the end of the run."""
    bench = bench_at(door.address)
    operator = {**door.environment, "FLAVOR_REDIS_URL": door.url}
    words = ["--run", bench.run, "--store", bench.store, "--rounds", 1, "--min-clients", 1, "--queue", bench.run]
    coordinator = bench.start("flavor", "serve", *words, env=operator)
    bench.start("flavor-agg", "--queue", bench.run, "--store", bench.store, env=operator)
    sites = {}
    evaluator = f"{sys.executable} {Path(__file__).with_name('toy_evaluator.py')} --report"
    for name, program, command in (("v2", "flavor-fv", evaluator), ("edge-1", "flavor-fl", bench.trainer())):
        words = ["--unsaved", bench.run, name, "--store", bench.store]
        token = bench.done("flavor", "enroll", *words, env=operator).stdout.strip()
        env = {**door.environment, "FLAVOR_TLS_CA": None, "FLAVOR_JOIN": token}
        sites[name] = bench.start(program, "-m", command, "--workspace", bench.folder / name, env=env)
        bench.logged("client.joined", client=name)
    assert [coordinator.wait(), sites["edge-1"].wait()] == [0, 0], coordinator.stderr
    assert "1 result, 200 examples" in bench.logged("evaluation.closed")["reason"]
    sites["v2"].until("this site stays")
    assert bench.redis.acl_log() == []
    assert bench.done("flavor", "revoke", bench.run, "v2", env=operator).wait() == 0
    assert sites["v2"].wait() == 3, sites["v2"].stderr


def test_a_token_and_options_that_contradict_it(bench) -> None:
    token = bench.done("flavor", "enroll", "--unsaved", bench.run, "site-1").stdout.strip()
    secret = JoinToken.parse(token).secret.get_secret_value()
    for words, told in [
        (["--run", "other"], f"--run other: the join token is for run '{bench.run}'"),
        (["--client", "other"], "--client other: the join token is for client 'site-1'"),
        (["--redis-url", "redis://localhost:1"], "--redis-url and --join exclude each other"),
    ]:
        process = bench.done("flavor-fl", "-m", "true", "--join", token, *words, "--debug")
        assert process.wait() == 2
        assert process.stderr.splitlines()[-1].startswith(f"Error: {told}")
        assert token not in process.stderr
        assert secret not in process.stderr
    for words, env in (
        (["--join", token[:-5]], {}),
        (["--join=@/no/such/file"], {}),
        ([], {"FLAVOR_JOIN": f"{token}x"}),
    ):
        process = bench.done("flavor-fl", "-m", "true", *words, env=env)
        assert process.wait() == 2
        lines = [line for line in process.stderr.splitlines() if "in the process list" not in line]
        assert len(lines) == 1
        assert token[12:40] not in process.stderr
    relative = bench.done("flavor", "enroll", "--unsaved", bench.run, "site-2", "--store", "no-such-store")
    assert "warning: the token carries the store as the relative path 'no-such-store'" in relative.stderr
    process = bench.done("flavor-fl", "-m", "true", "--join", relative.stdout.strip())
    assert process.wait() == 2
    assert f"no folder '{bench.work / 'no-such-store'}' here: name the store's folder with --store" in process.stderr
    assert bench.done("flavor", "revoke", bench.run, "site-2").wait() == 0
    # what the environment says besides gives way to the token
    env = {"FLAVOR_JOIN": token, "FLAVOR_RUN": "other", "FLAVOR_CLIENT": "other", "FLAVOR_REDIS_URL": "redis://x:1"}
    process = bench.done("flavor-fl", "-m", "true", "--join-timeout-s", 0.2, env=env)
    assert process.wait() == 4
    assert f"run '{bench.run}' did not appear" in process.stderr
    assert bench.done("flavor", "revoke", bench.run, "site-1").wait() == 0


def test_what_refuses_an_enrolment_leaves_the_old_token_valid(bench) -> None:
    """A site must not lose its token to a command that prints no other one."""
    words = ("flavor", "enroll", "--unsaved", bench.run, "site-1")
    lost, now = (SigningKey.generate().public for _ in range(2))
    bench.runs.create(rounds=1, config={})
    bench.done(*words, "--public-key", lost)
    token = JoinToken.parse(bench.done(*words, "--public-key", now).stdout)
    for more, said in (
        (("--public-key", lost), "a replaced key is never pinned again"),
        (("--store", "s3://\udcff"), "--store"),
        (("--new-key",), "cannot be read"),
    ):
        if "cannot be read" in said:
            bench.runs.redis.hset(bench.runs.keys.state, "state", "no such state")
        refused = bench.done(*words, *more)
        assert refused.wait() != 0
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not refused.stdout
        assert bench.runs.public_keys() == {"site-1": str(now)}
        with connect(token.credentials()) as site:
            assert site.ping(), "the token that the site has is the one that counts"
    bench.done("flavor", "revoke", bench.run, "site-1")
