"""An object of a closed round that the bucket no longer gives out: archived, or encrypted with a key of its site's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import S3, Fault, Proxy, proxied

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.errors import ObjectWithheld, StateLost, StoreUnavailable
from flavor.ledger.archive import Archive
from flavor.ledger.audit import audit
from flavor.ledger.canonical import sha256
from flavor.ledger.recover import recover
from flavor.ledger.trust import Trust
from flavor.records.objects import ObjectRef
from flavor.results.folder import ResultFolder
from flavor.store.cache import FileCache
from flavor.store.remote import RemoteStore
from flavor.store.settings import Endurance, StoreSettings
from tests.unit.forged_run import ForgedRun


class Kept:
    """A finished run in a bucket, and the way there, on which single objects are kept back."""

    def __init__(self, s3: S3, proxy: Proxy, folder: Path) -> None:
        self.proxy, self.folder, self.bucket, self.machines = proxy, folder, s3.bucket(), 0
        self.made = ForgedRun(folder / "made", metrics={"a": {"acc": 0.5}, "b": {"acc": 0.75}}).complete()
        store = self.machine()
        for file in sorted(path for path in (folder / "made/runs").rglob("*") if path.is_file()):
            with store.stage() as staged:
                staged.write_bytes(data := file.read_bytes())
                store.put(ObjectRef(str(file.relative_to(folder / "made")), sha256(data)), staged)

    def machine(self) -> RemoteStore:
        """The store as another machine sees it, which has nothing of it yet."""
        self.machines += 1
        cache = FileCache(self.folder / f"cache-{self.machines}", 2**30)
        return RemoteStore(f"s3://{self.bucket}", cache=cache, settings=StoreSettings(Endurance(patience_s=600)))

    def keep_back(self, **acts: str) -> Archive:
        """Another machine's view of the run, of which these objects (parts of their paths) are kept back."""
        paths = {"info": "clients/a/0003-info", "update": "clients/b/0002-update", "manifest": "manifests/round-2"}
        paths |= {"model": "global/0003-model", "all": ""}
        self.proxy.faults = [Fault(f"^(GET|HEAD) .*{paths[name]}", act, 1000) for name, act in acts.items()]
        return Archive(self.machine(), "r")


@pytest.fixture
def kept(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    with proxied(s3) as proxy:
        for name, value in s3.environment(proxy.address).items():
            monkeypatch.setenv(name, value)
        yield Kept(s3, proxy, tmp_path)


def test_what_one_site_keeps_back_is_one_line_and_all_the_rest_is_checked(kept: Kept) -> None:
    whole = audit(kept.keep_back())
    assert whole.problems == []
    found = audit(kept.keep_back(info="archived", update="400", manifest="deny"))
    lines = [str(problem) for problem in found.problems]
    about = {
        name: next(line for line in lines if part in line)
        for name, part in {"info": "clients/a/0003-info", "manifest": "manifests/round-2"}.items()
    }
    assert "the information of a cannot be read: the store does not give it out (403" in about["info"]
    assert "round-2.json: the store does not give it out (403" in about["manifest"]
    assert found.checked > 10


def test_each_of_them_alone(kept: Kept) -> None:
    whole = audit(kept.keep_back())
    for act in ("archived", "400", "deny"):
        found = audit(kept.keep_back(info=act), Trust(frozenset({str(kept.made.worker.public)})))
        (problem,) = found.problems
        assert (problem.round, "the information of a cannot be read" in problem.what) == (3, True), problem
        assert (found.checked, found.chain.closed) == (whole.checked, 3)
    (problem,) = audit(kept.keep_back(update="400")).problems
    assert "the update of b cannot be read: the store does not give it out (400" in str(problem)


def test_a_store_that_gives_out_nothing_is_no_fault_of_an_object(kept: Kept) -> None:
    with pytest.raises(StoreUnavailable):
        audit(kept.keep_back(all="deny"))


def test_a_run_is_rebuilt_without_what_its_sites_keep_back(kept: Kept, url: str) -> None:
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    with pytest.raises(StateLost, match=r"manifests/round-2\.json: the store does not give it out .403"):
        recover(kept.keep_back(manifest="deny"), runs, url=url, tell=print)
    with pytest.raises(ObjectWithheld, match="global/0003-model"):
        recover(kept.keep_back(model="archived"), runs, url=url, tell=print)
    assert runs.find() is None
    done = recover(kept.keep_back(info="archived", update="400"), runs, url=url, tell=print)
    assert (done.round, runs.read().round) == (3, 3)


def test_results_lack_what_one_site_keeps_back_and_nothing_else(kept: Kept, url: str) -> None:
    """And a round that was read before the store went away is in them, too."""
    redis = connect(url)
    redis.flushall()
    runs, said = RunStore(redis, "r", url), list[str]()
    recover(kept.keep_back(), runs, url=url, tell=print)
    store = kept.keep_back(info="archived", model="deny").store
    folder = ResultFolder(kept.folder / "out", said.append)
    kept.proxy.faults += [Fault("^(GET|HEAD) .*0002-", "deny", 1000), Fault("^(GET|HEAD) .*run.json", "deny", 1000)]
    with pytest.raises(StoreUnavailable):
        folder.update(runs, store, runs.read())
    del kept.proxy.faults[2:]
    results = folder.end(runs, store)
    assert [(each.round, [site.metrics.get("acc") for site in each.sites]) for each in results.rounds] == [
        (1, [0.5, 0.75]),
        (2, [0.5, 0.75]),
        (3, [None, 0.75]),
    ]
    assert any(line.startswith("round 3: what a reported is not given out by the store, though") for line in said), said
    assert any("lacks the final global model: object runs/r/global/0003-model" in line for line in said), said
    assert len((kept.folder / "out/metrics.csv").read_text().splitlines()) == 4
