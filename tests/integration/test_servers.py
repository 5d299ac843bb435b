"""Servers that deny, restrict or are of another kind: each works, or is named in one line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis
from redisserver import redis_server

from flavor.bus.acl import UserPersistence, enroll_worker, save_users
from flavor.bus.connection import ServerWatch, bus_error, checked_url, connect
from flavor.errors import InvalidSetting


def test_a_name_that_may_not_be_said_ends_no_program(url: str) -> None:
    with connect(url) as admin:
        admin.execute_command("ACL SETUSER", "quiet", "reset", "on", ">s", "~*", "&*", "+@all", "-client|setname")
    with connect(url.replace("://", "://quiet:s@"), client_name="flavor-serve:r") as client:
        assert client.ping()
        assert client.set("x", "1")


def test_a_name_that_may_be_said_is(url: str) -> None:
    with connect(url, client_name="flavor-serve:r") as client:
        assert client.client_getname() == "flavor-serve:r"


def test_a_cluster_is_named_as_such() -> None:
    for text in ("7092 127.0.0.1:35247",):
        line = str(bus_error(redis.exceptions.MovedError(text), "redis://h:1"))
        assert "Redis Cluster" in line
        assert "without cluster mode" in line


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "http://proxy:3128"])
def test_a_proxy_is_named_as_such(url: str) -> None:
    with pytest.raises(InvalidSetting, match="a proxy on the way to it is named by --proxy URL"):
        checked_url(url)


def test_a_connection_that_was_cut_is_no_outage_and_a_restart_is(tmp_path: Path) -> None:
    with redis_server(tmp_path / "r") as server, connect(server.url, patience_s=20) as client:
        watch = ServerWatch(client, server.url)
        assert not watch.was_away()
        with connect(server.url) as other:
            other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert client.ping()
        assert not watch.was_away()


def test_users_are_saved_in_a_configuration_file_and_refused_where_nothing_keeps_them(bench) -> None:
    with connect(bench.url) as admin:
        assert save_users(admin) is UserPersistence.LOST
    refused = bench.done("flavor", "enroll", bench.run, "c1")
    assert refused.wait() == 1
    assert "--unsaved" in refused.stderr
    assert refused.stdout == ""
    taken = bench.done("flavor", "enroll", "--unsaved", bench.run, "c1")
    assert (taken.wait(), bool(taken.stdout)) == (0, True)


def test_an_aggregator_works_with_a_user_that_is_no_administrator(bench) -> None:
    made = bench.done("flavor", "enroll", "--unsaved", "--worker", "agg-1")
    assert made.wait() == 0, made.stderr
    address = made.stdout.strip()
    assert "flavor-worker" in address
    coordinator = bench.serve(rounds=2, clients=1)
    worker = bench.aggregator(env={"FLAVOR_REDIS_URL": address})
    edge = bench.edge("c1", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr + worker.stderr
    assert edge.wait() == 0
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0, worker.stderr
    assert "NoPermission" not in worker.stderr
    with connect(address) as client:
        for command in ("FLUSHALL", "CONFIG GET *", "ACL LIST", "KEYS *", "SHUTDOWN", "GET other", "SCRIPT FLUSH"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())


def test_enrolled_again_an_aggregator_has_another_secret(url: str) -> None:
    with connect(url) as admin:
        first, _ = enroll_worker(admin, "agg-1", where="here")
        second, _ = enroll_worker(admin, "agg-1", where="here")
    assert first != second
