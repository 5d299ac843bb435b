"""A primary, its replica and a Sentinel that promotes the replica when the primary is gone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import redis

from tests.faults.servers import REDIS, Proxy, Server

MASTER = "flavor"


class Replicated:
    """Two servers; `proxy` leads to whichever of them is the primary, as Sentinel says."""

    def __init__(self, folder: Path) -> None:
        self.primary = Server(folder / "primary", "--repl-diskless-sync-delay", "0", program=REDIS)
        source = ("127.0.0.1", str(self.primary.port))
        self.replica = Server(folder / "replica", "--replicaof", *source, program=REDIS)
        self.catch_up()
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor {MASTER} 127.0.0.1 {self.primary.port} 1\n"
            f"sentinel down-after-milliseconds {MASTER} 500\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )
        self._sentinel = Server(folder / "sentinel", first=(str(configuration), "--sentinel"), program=REDIS)
        self.proxy = Proxy(self.primary.port)

    def catch_up(self) -> None:
        """Wait until the replica has all that the primary has.

        Redis answers `WAIT` for the writes of the connection that it comes on: on another, which has done nothing since
        before them, it answers at once. A replica whose link is up may have nothing yet: after a snapshot over a socket
        the primary sends it no writes before its next REPLCONF ACK, which is due once a second.
        """
        client = redis.Redis(port=self.primary.port, single_connection_client=True, socket_timeout=30)
        with contextlib.closing(client):
            client.set("test:written last", "1")
            assert client.wait(1, 20_000) == 1, self.replica.log.read_text()

    def lag(self) -> None:
        """From now on the replica hears of nothing, and is not let in again."""
        with contextlib.closing(redis.Redis(port=self.primary.port)) as client:
            client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            assert client.client_kill_filter(_type="replica") == 1

    def fail_over(self) -> None:
        """Kill the primary, and wait until Sentinel has promoted the replica; `lead` leads everybody there."""
        sentinel = redis.Redis(port=self._sentinel.port, decode_responses=True)
        with contextlib.closing(sentinel), sentinel.pubsub() as news:
            news.subscribe("+switch-master")
            assert news.get_message(timeout=30), "it is subscribed"
            self.primary.kill()
            self.proxy.cut()
            switched = news.get_message(timeout=30)
        assert switched, self._sentinel.log.read_text()
        assert switched["data"].split()[-1] == str(self.replica.port), switched

    def lead(self) -> None:
        self.proxy.target = self.replica.port
        self.proxy.cut()

    def close(self) -> None:
        self.proxy.close()
        for server in (self._sentinel, self.replica, self.primary):
            server.close()
