"""A server that takes no writes: nothing can be renewed there, and so nothing is said to be gone."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from flavor.bus.acl import enroll_viewer, viewer_user
from flavor.bus.connection import connect
from flavor.bus.token import with_credentials
from flavor.cli.main import cli
from flavor.cli.status_frame import Screen, runs_frame
from flavor.metrics.families import families
from flavor.metrics.scrape import Scraper
from flavor.view.board import Board
from flavor.view.server import refusal_of
from tests.driven import Driven
from tests.faults.servers import REDIS, Server, filled, tmpfs
from tests.polled import eventually
from tests.view.test_board_away import until

LEASE_MS, HEARTBEAT_S = 4000, 1.5


@dataclass(frozen=True)
class Fault:
    """What keeps a server from taking writes, and the words about it."""

    harm: Callable[[redis.Redis, Path], object]
    heal: Callable[[redis.Redis, Path], object]
    says: str
    words: tuple[str, ...] = ()
    """Settings of the server."""


def follow_nobody(admin: redis.Redis, _: Path) -> None:
    admin.replicaof("127.0.0.1", 1)


def lose_the_disk(admin: redis.Redis, folder: Path) -> None:
    (folder / "dump.rdb" / "in the way").mkdir(parents=True)
    admin.config_set("save", "3600 1")
    admin.bgsave()


def find_the_disk(admin: redis.Redis, folder: Path) -> None:
    (folder / "dump.rdb" / "in the way").rmdir()
    (folder / "dump.rdb").rmdir()
    admin.bgsave()


FAULTS = {
    "replica": Fault(
        follow_nobody,
        lambda admin, _: admin.replicaof("NO", "ONE"),
        "it is a read-only replica of 127.0.0.1:1: have the URL lead to the primary, or make this server the primary",
    ),
    "memory": Fault(
        lambda admin, _: admin.config_set("maxmemory", "1mb"),
        lambda admin, _: admin.config_set("maxmemory", 0),
        " of 1.0 MB): raise maxmemory",
    ),
    "snapshot": Fault(
        lose_the_disk, find_the_disk, "it cannot save its data, as its disk is full or broken: make room"
    ),
    "disk": Fault(
        lambda _, folder: filled(folder),
        lambda _, folder: (folder / "ballast").unlink(),
        "it cannot write its append-only file, as its disk is full or broken: make room on the disk of Redis",
        ("--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"),
    ),
    "lone primary": Fault(
        lambda admin, _: admin.config_set("min-replicas-to-write", 2),
        lambda admin, _: admin.config_set("min-replicas-to-write", 0),
        "it wants 2 replicas beside it (min-replicas-to-write), and has 0 that keep up",
    ),
}


@contextlib.contextmanager
def server_for(fault: Fault, folder: Path) -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        if fault.words:
            stack.enter_context(tmpfs(folder, "4m"))
        server = Server(folder, *fault.words, append_only=bool(fault.words), program=REDIS)
        stack.callback(server.close)
        yield server


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_says_why_it_takes_no_writes(name: str, tmp_path: Path) -> None:
    if name == "disk" and os.geteuid() != 0:
        pytest.skip("a small file system needs root to mount it")
    fault = FAULTS[name]
    with server_for(fault, tmp_path / "redis") as server, connect(server.url, patience_s=0.0) as admin:
        secret, _ = enroll_viewer(admin, "page", where="here")
        viewer = connect(with_credentials(server.url, viewer_user("page"), secret))

        def refuses() -> bool:
            try:
                admin.set("more", bytes(1000))
            except redis.exceptions.RedisError:
                return True
            return False

        assert not refuses()
        for client in (admin, viewer):
            assert refusal_of(client) == ""
        fault.harm(admin, server.folder)
        eventually("writes are refused", refuses)
        eventually("the reason is known", lambda: fault.says in refusal_of(admin))
        for_viewer = fault.says.replace("wants 2", "wants more")
        eventually("the viewer knows it, too", lambda: for_viewer in refusal_of(viewer))
        for client in (admin, viewer):
            assert refusal_of(client).startswith("Redis takes no writes: ")
        fault.heal(admin, server.folder)
        eventually("writes are taken", lambda: not refuses())
        for client in (admin, viewer):
            eventually("no reason is left", lambda client=client: refusal_of(client) == "")  # type: ignore[misc]


def test_a_snapshot_that_nobody_wants_keeps_nobody_from_writing(tmp_path: Path) -> None:
    with server_for(FAULTS["snapshot"], tmp_path / "redis") as server, connect(server.url, patience_s=0.0) as admin:
        lose_the_disk(admin, server.folder)
        eventually("a snapshot fails", lambda: admin.info("persistence")["rdb_last_bgsave_status"] != "ok")
        for setting, value in (("save", ""), ("stop-writes-on-bgsave-error", "no")):
            admin.config_set(setting, value)
            assert admin.set("a", 1)
            assert refusal_of(admin) == ""
            admin.config_set("save", "3600 1")


def test_a_server_that_takes_no_writes_is_named_first_and_nobody_is_called_gone(tmp_path: Path) -> None:
    fault = FAULTS["replica"]
    with server_for(fault, tmp_path / "redis") as server:
        looked_at(server, fault)


def looked_at(server: Server, fault: Fault) -> None:
    run = Driven(server.url, run="r", heartbeat_timeout_s=HEARTBEAT_S, rounds=3)
    for client in ("a", "b"):
        run.runs.admit("coordinator", client, "joined")
        run.runs.redis.hset(run.runs.keys.client(client).hash, mapping={"state": "ready", "protocol": "2"})
    run.runs.redis.hset(run.runs.keys.client("b").hash, "state", "failed")
    run.open(["a"])
    leases = run.runs.keys.client("a").lease, run.runs.keys.coordinator
    for key in leases:
        run.runs.redis.set(key, "x", px=LEASE_MS)
    with connect(server.url, patience_s=0.0) as admin, Board(server.url) as board:
        until(board, "all are there", lambda: board.document("r")["clients"]["a"]["alive"] and not gone(board))
        assert not said(board)
        fault.harm(admin, server.folder)
        until(board, "it is seen", lambda: said(board))
        until(board, "the leases have lapsed", lambda: board.document("r")["clients"]["a"]["alive"] is None)
        until(board, "the other, too", lambda: board.document("r")["served"] is None)
        document = board.document("r")
        assert document["absent"] == [document["absent"][0]]
        assert fault.says in said(board)
        assert said(board).endswith("who is alive is not known until then")
        assert (document["clients"]["a"]["phase"], document["clients"]["b"]["phase"]) == ("training", "failed")
        assert document["waits_for"] == "0 of 1 update accepted, waiting for a"
        row = board.runs()[0]
        assert row["alive"] is None
        drawn = "\n".join(line.plain for line in runs_frame([row], "here", Screen(300, 20, board.now_ms())))
        assert "? of 2" in drawn
        assert "Redis takes no writes: " in drawn
        assert board.queue()["refusal"] == said(board)
        told = {
            (sample.name, sample.labels.get("phase")): sample.value
            for family in families(Scraper.on(server.url, board).scene())
            for sample in family.samples
        }
        assert told["flavor_redis_takes_writes", None] == 0
        assert ("flavor_run_coordinator_up", None) not in told
        assert ("flavor_client_phase", "gone") not in told
        assert told["flavor_client_phase", "training"] == 1
        for words in (["status"], ["status", "r"], ["status", "r", "--json"]):
            done = CliRunner().invoke(cli, [*words, "--redis-url", server.url])
            assert done.exit_code == 0, done.output
            assert said(board)[:60] in (done.stderr if words == ["status"] else done.stdout)
            assert not any(each in done.output for each in ("no coordinator", "flavor serve", "heartbeat stopped"))
        assert json.loads(done.stdout)["served"] is None
        fault.heal(admin, server.folder)
        until(board, "it is over", lambda: not said(board))
        assert not gone(board), "leases that have lapsed may be taken again"
        until(board, "now it is known", lambda: gone(board))
        assert board.runs()[0]["alive"] == 0


def said(board: Board) -> str:
    return next((each for each in board.document("r")["absent"] if each.startswith("Redis takes no writes: ")), "")


def gone(board: Board) -> bool:
    document = board.document("r")
    return document["clients"]["a"]["phase"] == "gone" or document["served"] is False
