"""A federation whose history can be checked, on a server that the test starts for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flavor.bus.embedded import embedded_server
from tests.faults.federation import Faulty
from tests.faults.servers import REDIS, Server


@pytest.fixture
def own_url(tmp_path: Path) -> Iterator[str]:
    """A server of this test's own, that keeps what it acknowledged."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with embedded_server(append_only=True, folder=folder) as url:
        yield url


@pytest.fixture
def faulty(own_url: str, bench_at: Callable) -> Faulty:
    return Faulty(bench_at(own_url))


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Server]:
    """A server on a port, that keeps every write that it acknowledged, and can be killed."""
    server = Server(tmp_path / "redis", program=REDIS)
    yield server
    server.close()


@pytest.fixture
def on_port(redis_server: Server, bench_at: Callable) -> Faulty:
    return Faulty(bench_at(redis_server.url))
