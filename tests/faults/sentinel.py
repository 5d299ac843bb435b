"""A primary, its replica and a Sentinel that promotes the replica when the primary is gone."""

from __future__ import annotations

import contextlib
import time
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
        self._synchronised()
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor {MASTER} 127.0.0.1 {self.primary.port} 1\n"
            f"sentinel down-after-milliseconds {MASTER} 500\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )
        self._sentinel = Server(folder / "sentinel", first=(str(configuration), "--sentinel"), program=REDIS)
        self.proxy = Proxy(self.primary.port)

    def _synchronised(self) -> None:
        with contextlib.closing(redis.Redis(port=self.replica.port)) as client:
            deadline = time.monotonic() + 20
            while client.info("replication").get("master_link_status") != "up":
                assert time.monotonic() < deadline, self.replica.log.read_text()
                time.sleep(0.02)

    def catch_up(self) -> None:
        """Wait until the replica has all that the primary has.

        Redis answers `WAIT` for the writes of the connection that it comes on: on another, which has done nothing since
        before them, it answers at once. A replica whose link is up may have nothing yet: after a snapshot over a socket
        the primary sends it no writes before its next REPLCONF ACK, which is due once a second.
        """
        with contextlib.closing(redis.Redis(port=self.primary.port, single_connection_client=True)) as client:
            client.set("test:written last", "1")
            assert client.wait(1, 20_000) == 1, self.replica.log.read_text()

    def lag(self) -> None:
        """From now on the replica hears of nothing, and is not let in again."""
        with contextlib.closing(redis.Redis(port=self.primary.port)) as client:
            client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            assert client.client_kill_filter(_type="replica") == 1

    def fail_over(self) -> None:
        """Kill the primary, and wait until Sentinel has promoted the replica; `lead` leads everybody there."""
        self.primary.kill()
        self.proxy.cut()
        with contextlib.closing(redis.Redis(port=self._sentinel.port, decode_responses=True)) as client:
            deadline = time.monotonic() + 30
            while True:
                _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
                if int(port) == self.replica.port:
                    break
                assert time.monotonic() < deadline, self._sentinel.log.read_text()
                time.sleep(0.05)

    def lead(self) -> None:
        self.proxy.target = self.replica.port
        self.proxy.cut()

    def close(self) -> None:
        self.proxy.close()
        for server in (self._sentinel, self.replica, self.primary):
            server.close()
