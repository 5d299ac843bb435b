"""What a worker reads of a bucket: no more of an object than it needs, and nothing that its owner has locked away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from buckets import S3, Proxy, proxied

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.records.states import RoundState
from flavor.store.cache import FileCache
from flavor.store.remote import RemoteStore
from flavor.store.settings import Endurance, StoreSettings
from tests.infos import begin_run
from tests.integration.test_worker import TOKEN, decide, model, open_round, submit, verdict
from workers import jobs
from workers.context import WorkerContext, set_context

HEADER_BYTES = 64 * 1024
"""More than a header and the answers around it have, and far less than the objects here."""
LARGE = 500_000
"""Numbers of four bytes: more than is fetched without a look at its header."""


class Bucketed:
    """A run in its first round whose store is a bucket, with the clients a, b and c."""

    def __init__(self, url: str, s3: S3, proxy: Proxy, folder: Path) -> None:
        self.s3, self.proxy, self.folder, self.bucket = s3, proxy, folder, s3.bucket()
        self.url, self.redis, self.machines = url, connect(url), 0
        self.redis.flushall()
        self.site, self.runs = self.machine(), RunStore(self.redis, "r", url)
        config = RunConfig(rounds=3, min_clients=3, store=self.site.url)
        begin_run(self.runs, self.site, config)
        self.redis.set(self.runs.keys.coordinator, TOKEN)
        open_round(self.runs, 1)
        self.worker()

    def machine(self) -> RemoteStore:
        """The store as another machine sees it, which has nothing of it yet."""
        self.machines += 1
        cache = FileCache(self.folder / f"cache-{self.machines}", 2**30)
        return RemoteStore(f"s3://{self.bucket}", cache=cache, settings=StoreSettings(Endurance(patience_s=600)))

    def worker(self) -> None:
        """A worker on a machine of its own does the jobs from now on."""
        set_context(WorkerContext(self.redis, self.url, self.machine(), name="worker-1"))

    def submit(self, client: str, value: float = 1.0, *, elements: int = 6) -> str:
        tensors = model(value) if elements == 6 else {"w": np.full(elements, value, np.float32)}
        return submit(self.runs, self.site, client, tensors)

    def fetched(self, path: str) -> int:
        """Bytes of all answers to those who asked for this object."""
        return sum(size for first, size in self.proxy.answers if re.match(f"GET \\S*/{re.escape(path)}[ ?]", first))


@pytest.fixture
def bucketed(url: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucketed]:
    with proxied(s3) as proxy:
        for name, value in s3.environment(proxy.address).items():
            monkeypatch.setenv(name, value)
        made = Bucketed(url, s3, proxy, tmp_path)
        yield made
        set_context(None)
        made.redis.close()


def test_of_an_object_of_another_structure_only_the_header_is_fetched(bucketed: Bucketed) -> None:
    """Doors 16: and of one that may count, all of it, once."""
    good = bucketed.submit("a", elements=LARGE)
    assert verdict(bucketed.runs, "a").accepted
    decide(bucketed.runs, verdict(bucketed.runs, "a"))
    bad = bucketed.submit("b", elements=LARGE + 1)
    assert f"shape ({LARGE + 1},)" in verdict(bucketed.runs, "b").reason
    assert 0 < bucketed.fetched(bad) < HEADER_BYTES
    assert 4 * LARGE < bucketed.fetched(good) < 4 * LARGE + HEADER_BYTES


def test_of_a_header_that_no_such_model_has_not_even_that_is_fetched(bucketed: Bucketed) -> None:
    """Doors 16: its length is read, and no more."""
    path = bucketed.submit("a", elements=LARGE)
    length = (100 * 2**20).to_bytes(8, "little")
    bucketed.s3.overwrite(bucketed.bucket, path, length + bytes(4 * LARGE))
    bucketed.redis.hset(bucketed.runs.keys.client("a").update(1), "size", str(8 + 4 * LARGE))
    assert "has a header of 104857600 bytes: at most " in verdict(bucketed.runs, "a").reason
    assert 0 < bucketed.fetched(path) < HEADER_BYTES


def small_update(bucketed: Bucketed) -> str:
    return bucketed.submit("b")


def large_update(bucketed: Bucketed) -> str:
    return bucketed.submit("b", elements=LARGE)


def its_info(bucketed: Bucketed) -> str:
    bucketed.submit("b")
    return str(bucketed.redis.hget(bucketed.runs.keys.client("b").update(1), "info_path"))


@pytest.mark.parametrize("archived", [small_update, large_update, its_info])
def test_an_object_in_an_archive_is_its_sites_trouble_alone(
    bucketed: Bucketed, archived: Callable[[Bucketed], str]
) -> None:
    """Doors 9: the service says InvalidObjectState; nobody waits for it, and the others count."""
    bucketed.submit("a", 1)
    bucketed.submit("c", 3)
    path = archived(bucketed)
    bucketed.s3.archive(bucketed.bucket, path)
    jobs.inspect("r", 1, ["a", "b", "c"])
    view = bucketed.runs.read_round(1)
    assert view is not None
    assert {client: found.accepted for client, found in view.verdicts.items()} == {"a": True, "b": False, "c": True}
    assert "does not give it out (403 InvalidObjectState)" in view.verdicts["b"].reason
    assert path in view.verdicts["b"].reason
    assert sum(f"/{path}" in first and first.startswith("GET") for first in bucketed.proxy.requests) == 1


def test_one_that_goes_there_after_it_was_accepted_is_left_out(bucketed: Bucketed) -> None:
    """Doors 9: at the aggregation, by a worker that has not got it yet."""
    paths = {client: bucketed.submit(client, value) for client, value in (("a", 1), ("b", 9), ("c", 3))}
    assert all(verdict(bucketed.runs, client).accepted for client in paths)
    bucketed.s3.archive(bucketed.bucket, paths["b"])
    bucketed.worker()
    bucketed.runs.begin_aggregation(TOKEN, 1, attempt=1, contributors=list(paths), reason="all")
    jobs.aggregate("r", 1, 1)
    view = bucketed.runs.read_round(1)
    assert view is not None
    assert (view.state, view.spoiled) == (RoundState.AGGREGATING, ("b",))
    assert "InvalidObjectState" in (view.error or "")
