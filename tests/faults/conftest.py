"""A federation whose history can be checked, on a server that the test starts for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from federation import Faulty
from meanwhile import Meanwhile
from servers import REDIS, Server

from flavor.bus.embedded import embedded_server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "meanwhile(scenario): runs beside the tests before it; see meanwhile.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of what runs beside the others come after them."""
    late = [item for item in items if item.get_closest_marker("meanwhile")]
    here = [item for item in items if Path(__file__).parent in item.path.parents and item not in late]
    before = items[: items.index(here[0])] if here else []
    after = [item for item in items if item not in {*before, *here, *late}]
    items[:] = [*before, *here, *late, *after]


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest, bench_class: type, tmp_path_factory) -> Iterator[Meanwhile]:
    """The scenarios of all chosen tests, which begin with the first test of this folder."""
    scenarios = Meanwhile(bench_class, tmp_path_factory.mktemp)
    for item in request.session.items:
        if marker := item.get_closest_marker("meanwhile"):
            scenarios.begin(marker.kwargs["scenario"])
    yield scenarios
    scenarios.close()


@pytest.fixture
def outcome(request: pytest.FixtureRequest, begun: Meanwhile) -> Callable[[], None]:
    """Wait for the end of the test's scenario; raises what it raised."""
    return lambda: begun.outcome(request.node.get_closest_marker("meanwhile").kwargs["scenario"])


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
