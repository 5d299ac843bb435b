"""What old rounds leave is removed beside the loop: it holds up nobody, and Redis stays flat."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flavor.bus.clients import LONGEST_FIELD_BYTES
from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.asking import asking, removing_models
from flavor.coordinator.pruning import Pruning
from flavor.credits import contributions
from flavor.errors import LocalFault, StoreError, StoreUnavailable
from flavor.ledger.archive import Archive
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Contributor, Manifest, Model, RunRecord
from flavor.records import update
from flavor.records.client import ClientStatus
from flavor.records.evaluation import AUTOMATIC
from flavor.records.objects import ObjectRef
from flavor.records.states import ClientState
from flavor.results.folder import ResultFolder, has_model
from flavor.store.local import LocalStore
from flavor.store.open import open_store
from flavor.store.paths import (
    global_prefix,
    is_info,
    manifest_path,
    named,
    result_prefix,
    round_of,
    run_record_path,
    update_prefix,
)
from flavor.store.protocol import ObjectStore
from tests.infos import put_info
from tests.polled import eventually
from tests.recorded import accepted, global_model

TOKEN = "coordinator"
KEY = SigningKey.generate()
INFO = {"epoch": 0, "datasetSize": 1, "importance": 1.0}
METRICS = dict.fromkeys(("basic/confusion_tp", "basic/confusion_fp", "basic/confusion_fn", "basic/confusion_tn"), -1)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def runs(url: str, store: ObjectStore) -> Iterator[RunStore]:
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    config = RunConfig(rounds=100, store=store.url).to_mapping()
    Archive(store, "r").begin(RunRecord(run="r", run_id="0" * 32, rounds=100, config=config))
    runs.create(rounds=100, config=config, run_id="0" * 32)
    redis.set(runs.keys.coordinator, TOKEN)
    yield runs
    redis.close()


def put(store: ObjectStore, path: str, data: bytes) -> None:
    with store.stage() as staged:
        staged.write_bytes(data)
        store.put(ObjectRef(path, ""), staged)


def close(runs: RunStore, store: ObjectStore, round_: int, *, keep: int | None = None) -> None:
    """A round of one client, from its opening to its manifest, which says how many rounds are kept."""
    runs.open_round(TOKEN, round_, expected=["a"], timeout_s=60, reason="go")
    prefix = update_prefix("r", round_, "a")
    path = named(prefix, "update", f"{round_:016d}", ".bin")
    put(store, path, b"update")
    info = put_info(store, prefix, {"metadata": INFO, "metrics": {**METRICS, "auc": round_ / 1000}})
    runs.redis.hset(runs.keys.client("a").update(round_), mapping={"path": path})
    verdict = accepted("", path=path, num_examples=1, info_path=info["info_path"], info_digest=info["info_digest"])
    assert runs.judge(round_, "a", verdict)
    runs.begin_aggregation(TOKEN, round_, attempt=1, contributors=["a"], reason="all")
    runs.claim_round(round_, attempt=1, token="worker", ttl_s=60)
    made = named(global_prefix("r", round_), "model", f"{round_:016d}", ".bin")
    put(store, made, b"model")
    of_all = {"metadata": {"clients": ["a"], "datasetSize": [1]}, "metrics": {"auc": round_ / 1000}}
    merged = put_info(store, global_prefix("r", round_), of_all)
    model = global_model(
        made, hashlib.sha256(b"model").hexdigest(), 5, info=(merged["info_path"], merged["info_digest"])
    )
    contributor = Contributor(
        client="a",
        path=path,
        digest="0" * 64,
        size_bytes=6,
        format="",
        num_examples=1,
        info_path=info["info_path"],
        info_digest=info["info_digest"],
    )
    manifest = Manifest(
        run="r",
        run_id="0" * 32,
        round=round_,
        attempt=1,
        config={} if keep is None else {"keep_rounds": keep},
        opened_ms=1,
        closed_ms=2,
        expected=("a",),
        contributors=(contributor,),
        global_model=Model.of(model),
    ).signed(KEY)
    ref = ObjectRef("staged", manifest.digest)
    runs.commit_round(round_, attempt=1, token="worker", model=model, reason="", manifest=ref)
    put(store, manifest_path("r", round_), manifest.to_bytes())


def test_redis_stays_flat_over_a_long_run(runs: RunStore, store: ObjectStore) -> None:
    config = RunConfig(rounds=100, keep_rounds=2, keep_globals=3, store=store.url)
    put(store, f"{global_prefix('r', 0)}model-x.bin", b"initial")
    pruning, sizes = Pruning(runs, store, config, print), []
    for round_ in range(1, 121):
        close(runs, store, round_)
        runs.open_evaluation(TOKEN, round_, AUTOMATIC, expected=["a"], skipped=[], timeout_s=60, reason="due")
        runs.give_up_evaluation(TOKEN, runs.read_evaluation(round_, AUTOMATIC), "its site is gone")
        pruning.prune(round_, ["a"])
        sizes.append(runs.redis.dbsize())
    assert max(sizes) == sizes[60] == sizes[-1], sizes
    handed_in = store.list("runs/r/clients/a/")
    assert {round_of(path) for path in handed_in if not is_info(path)} == {119, 120}
    assert {round_of(path) for path in handed_in if is_info(path)} == set(range(71, 121)), "as long as their rounds"
    made = store.list("runs/r/global/")
    assert {round_of(path) for path in made if not is_info(path)} == {0, 118, 119, 120}
    assert {round_of(path) for path in made if is_info(path)} == set(range(71, 121))
    assert len(store.list("runs/r/manifests/")) == 120, "they stay"
    assert runs.read_round(71) is not None
    assert runs.read_round(70) is None


def test_what_sites_have_measured_of_an_old_model_stays_until_their_evaluation_is_over(
    runs: RunStore, store: ObjectStore
) -> None:
    """`flavor evaluate RUN --round 3` while rounds go on: one site has handed in, and another one is slow."""
    pruning = Pruning(runs, store, RunConfig(rounds=100, keep_rounds=1, store=store.url), print)
    path = f"{result_prefix('r', 3, 1, 'a')}{'0' * 16}.json"
    for round_ in range(1, 31):
        close(runs, store, round_)
        if round_ == 5:
            put(store, path, b"{}")
            runs.redis.hset(runs.keys.evaluating, "3 1", "1")
        pruning.prune(round_, ["a"])
    assert {round_of(kept) for kept in store.list("runs/r/clients/a/") if not is_info(kept)} == {3, 30}
    assert store.exists(path)
    runs.redis.delete(runs.keys.evaluating)
    for round_ in range(31, 43):
        close(runs, store, round_)
        pruning.prune(round_, ["a"])
    assert not store.exists(path), "nothing waits for it any more, and no record names it"


def models(store: ObjectStore) -> set[int]:
    return {round_of(path) for path in store.list("runs/r/global/") if not is_info(path)}


def test_no_model_is_removed_while_a_command_may_have_chosen_it(runs: RunStore, store: ObjectStore) -> None:
    """`flavor evaluate RUN --round 1` has read that the model is there, and opens its evaluation in a moment."""
    pruning = Pruning(runs, store, RunConfig(rounds=100, keep_globals=2, store=store.url), print)
    with asking(runs, store, print):
        for round_ in (1, 2, 3, 4):
            close(runs, store, round_)
            pruning.prune(round_, ["a"])
        assert models(store) == {1, 2, 3, 4}
    pruning.prune(4, ["a"])
    assert models(store) == {3, 4}
    assert not runs.redis.exists(runs.keys.removing)


def test_a_command_that_asks_waits_for_the_end_of_a_removal(runs: RunStore, store: ObjectStore) -> None:
    with removing_models(runs) as may_be:
        assert may_be
        assert runs.redis.pttl(runs.keys.removing) > 0, "it ends by itself where its process is killed"
        runs.redis.pexpire(runs.keys.removing, 300)
        with asking(runs, store, print):
            assert not runs.redis.exists(runs.keys.removing)
            with removing_models(runs) as may_be_now:
                assert not may_be_now


def test_a_removal_that_takes_long_stays_known_and_a_command_says_that_it_waits(
    runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flavor.coordinator.asking._LEASE_S", 1.5)
    monkeypatch.setattr("flavor.coordinator.asking._TELL_S", 0.0)
    ended, asked, told = threading.Event(), list[bool](), list[str]()

    def ask() -> None:
        with asking(runs, store, told.append):
            asked.append(ended.is_set())

    command = threading.Thread(target=ask)
    with removing_models(runs):
        runs.redis.pexpire(runs.keys.removing, 60_000)
        command.start()
        eventually("a renewal", lambda: 0 < runs.redis.pttl(runs.keys.removing) <= 1500)
        eventually("the command's line", lambda: told)
        ended.set()
    command.join(10)
    assert asked == [True]
    assert told == ["run 'r': waiting until its coordinator has removed old global models from the store"]


def test_results_that_are_written_late_lack_nothing_of_a_site(
    runs: RunStore, store: ObjectStore, tmp_path: Path
) -> None:
    """Whoever writes them stood still meanwhile, for up to 50 rounds."""
    pruning = Pruning(runs, store, RunConfig(rounds=100, keep_rounds=2, keep_globals=2, store=store.url), print)
    for round_ in range(1, 31):
        close(runs, store, round_)
        pruning.prune(round_, ["a"])
    told: list[str] = []
    ResultFolder(tmp_path / "out", told.append).update(runs, store, runs.read())
    assert [path.parent.name for path in sorted((tmp_path / "out/info").glob("*/a.json"))] == [
        f"round-{number:04d}" for number in range(1, 31)
    ]
    assert rows(tmp_path / "out/metrics-sites.csv") == [[str(n), "a", f"{n / 1000}"] for n in range(1, 31)]
    assert not told
    assert [has_model(runs, store, round_, newest=30) for round_ in (9, 28, 30)] == [False, False, True]
    store.delete([run_record_path("r")])
    assert has_model(runs, store, 9, newest=30), "the folder of the store seems not to be mounted"


def test_what_results_lack_is_told_once_and_the_rest_is_written(
    runs: RunStore, store: ObjectStore, tmp_path: Path
) -> None:
    pruning = Pruning(runs, store, RunConfig(rounds=100, keep_rounds=2, keep_globals=2, store=store.url), print)
    for round_ in range(1, 56):
        close(runs, store, round_)
        pruning.prune(round_, ["a"])
    store.delete([manifest_path("r", 5)])
    told: list[str] = []
    folder = ResultFolder(tmp_path / "out", told.append)
    folder.update(runs, store, runs.read())
    assert [line.partition(" is no longer")[0] for line in told] == [
        "4 rounds, 1 to 4: the merged information",
        "4 rounds, 1 to 4: what single sites reported",
        "round 5: all of it",
    ]
    assert all(f"so {tmp_path / 'out'} lacks it" in line for line in told)
    there = [*range(1, 5), *range(6, 56)]
    assert rows(tmp_path / "out/metrics-sites.csv") == [[str(n), "a", f"{n / 1000}" if n > 5 else ""] for n in there]
    folder.update(runs, store, runs.read())
    assert len(told) == 3


def test_what_was_changed_in_the_store_is_told_once_and_the_rest_is_written(
    runs: RunStore, store: ObjectStore, tmp_path: Path
) -> None:
    """The models of rounds 2 and 4, the last one, and what round 1 merged."""
    for round_ in range(1, 5):
        close(runs, store, round_)
    for round_ in (1, 2, 4):
        view = runs.read_round(round_)
        assert view is not None
        path = tmp_path / "store" / (view.info if round_ == 1 else view.model).path
        path.chmod(0o644)
        path.write_text("{}")
    told: list[str] = []
    folder = ResultFolder(tmp_path / "out", told.append)
    for _ in range(2):
        results = folder.end(runs, store)
    out = tmp_path / "out"
    assert [line.partition(" in the store")[0] for line in told[:2]] == [
        "round 1: the merged information",
        "2 rounds, 2 to 4: the global model",
    ]
    assert all(f"so {out} lacks it" in line and "`flavor verify`" in line for line in told[:2])
    assert told[2].startswith(f"{out} lacks the final global model: object runs/r/global/0004-model-")
    assert told[2:] == told[2:3] * 2, "once each time that the results are ended"
    assert sorted(path.name for path in (out / "global").iterdir()) == [
        "round-0001.safetensors",
        "round-0003.safetensors",
    ]
    assert results.global_model is None
    assert len(results.rounds) == 4
    assert json.loads((out / "summary.json").read_text())["rounds"]


class Away(LocalStore):
    def read_unverified(self, path: str, *, most: int) -> bytes:
        raise StoreUnavailable("the store is away")


def test_a_store_that_is_away_takes_nothing_of_the_results(runs: RunStore, store: ObjectStore, tmp_path: Path) -> None:
    close(runs, store, 1)
    folder = ResultFolder(tmp_path / "out", print)
    with pytest.raises(StoreUnavailable):
        folder.update(runs, Away(tmp_path / "store"), runs.read())
    folder.update(runs, store, runs.read())
    assert rows(tmp_path / "out/metrics-sites.csv") == [["1", "a", "0.001"]]


@pytest.mark.parametrize("in_the_middle", [False, True])
def test_results_take_nothing_of_a_share_that_is_away_to_be_lost(
    runs: RunStore, store: ObjectStore, tmp_path: Path, in_the_middle: bool
) -> None:
    close(runs, store, 1)
    told, moving = list[str](), Unmounted(tmp_path / "store")
    folder = ResultFolder(tmp_path / "out", told.append)
    if in_the_middle:
        moving.at = "local"
    else:
        away(tmp_path)
    with pytest.raises(LocalFault, match="is the share mounted"):
        folder.update(runs, moving, runs.read())
    moving.at = ""
    back(tmp_path)
    assert len(folder.update(runs, moving, runs.read())) == 1
    assert told == []
    assert (tmp_path / "out/global/round-0001.safetensors").read_bytes() == b"model"
    assert rows(tmp_path / "out/metrics-sites.csv") == [["1", "a", "0.001"]]


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [[row["round"], row["site"], row["auc"]] for row in csv.DictReader(file)]


def test_a_round_whose_manifest_is_not_there_yet_stays_in_redis(runs: RunStore, store: ObjectStore) -> None:
    for round_ in range(1, 54):
        close(runs, store, round_)
    store.delete([manifest_path("r", 2)])
    Pruning(runs, store, RunConfig(rounds=100, keep_rounds=2, store=store.url), print).prune(53, ["a"])
    assert [runs.read_round(number) is not None for number in (1, 2, 3)] == [False, True, True]


def test_a_manifest_that_was_removed_or_is_none_is_put_back_from_its_staged_copy(
    runs: RunStore, store: ObjectStore
) -> None:
    archive, told = Archive(store, "r"), list[str]()
    for round_ in range(1, 56):
        close(runs, store, round_)
    for round_ in (2, 3):
        manifest = archive.manifest(round_)
        assert manifest is not None
        archive.stage(manifest)
    store.delete([manifest_path("r", number) for number in (2, 3, 4)])
    put(store, manifest_path("r", 3), b"{}")
    pruning = Pruning(runs, store, RunConfig(rounds=100, keep_rounds=2, store=store.url), told.append)
    for _ in range(2):  # the second time nothing is said again
        pruning.prune(55, ["a"])
    assert [archive.has(number) for number in (1, 2, 3, 4, 5)] == [True, True, True, False, True]
    assert [runs.read_round(number) is not None for number in (1, 2, 3, 4, 5)] == [False, False, False, True, True]
    assert len(told) == 3
    assert "round-2.json was removed from the store; it is put back" in told[0]
    assert "round-3.json was not the manifest that its aggregator has signed" in told[1]
    assert "round-4.json was removed from the store, and what its aggregator staged is gone, too" in told[2]
    assert "from a backup" in told[2]


def away(tmp_path: Path) -> Path:
    """What an unmounted share looks like: an empty folder. Returns where the store is."""
    elsewhere = (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    return elsewhere


def back(tmp_path: Path) -> None:
    (tmp_path / "store").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "store")


def updates(store: ObjectStore) -> list[int]:
    return [round_of(path) for path in store.list("runs/r/clients/a/") if not is_info(path)]


def test_nothing_is_told_to_be_lost_or_forgotten_while_the_share_is_away(
    runs: RunStore, store: ObjectStore, tmp_path: Path
) -> None:
    told = list[str]()
    for round_ in range(1, 54):
        close(runs, store, round_)
    pruning = Pruning(runs, store, RunConfig(rounds=100, keep_rounds=2, store=store.url), told.append)
    away(tmp_path)
    pruning.after(53, ["a"])
    pruning.close()
    assert not [*(tmp_path / "store").iterdir()], "nothing is written where the share belongs"
    assert len(told) == 1
    assert told[0].endswith("is the share mounted?")
    assert all(runs.redis.exists(runs.keys.client("a").update(number)) for number in (1, 51))
    back(tmp_path)
    pruning.prune(53, ["a"])
    assert (runs.read_round(1), updates(store), len(told)) == (None, [52, 53], 1)


class Unmounted(LocalStore):
    """Its share is unmounted while updates are deleted, or manifests or models looked at."""

    at = ""

    def delete(self, paths: Sequence[str]) -> None:
        if self.at == "delete":
            away(self._root.parent)
        super().delete(paths)

    def local(self, path: str, *, size_bytes: int | None = None) -> Path:
        if self.at == "local":
            self.at = ""
            away(self._root.parent)
        return super().local(path, size_bytes=size_bytes)

    def read_unverified(self, path: str, *, most: int) -> bytes:
        if self.at == "read" and path == manifest_path("r", 1):
            away(self._root.parent)
        return super().read_unverified(path, most=most)


@pytest.mark.parametrize("at", ["delete", "read"])
def test_nor_where_the_share_goes_in_the_middle_of_it(
    runs: RunStore, store: ObjectStore, tmp_path: Path, at: str
) -> None:
    told = list[str]()
    for round_ in range(1, 54):
        close(runs, store, round_)
    moving = Unmounted(tmp_path / "store")
    pruning, moving.at = Pruning(runs, moving, RunConfig(rounds=100, keep_rounds=2, store="x"), told.append), at
    with pytest.raises(LocalFault, match="is the share mounted"):
        pruning.prune(53, ["a"])
    moving.at = ""
    back(tmp_path)
    assert runs.read_round(1) is not None
    pruning.prune(53, ["a"])
    assert (runs.read_round(1), updates(store), told) == (None, [52, 53], [])


def test_a_signal_that_comes_while_its_thread_starts_is_what_ends_the_coordinator(
    runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    pruning = Pruning(runs, store, RunConfig(rounds=9, keep_rounds=2, store=store.url), print)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pruning.after(1, ["a"])
    pruning.close()


class Refusing(LocalStore):
    """It removes no object with one of these words in its path, as a bucket by a rule of its owner."""

    kept: tuple[str, ...] = ()

    def delete(self, paths: Sequence[str]) -> None:
        refused = [path for path in paths if any(word in path for word in self.kept)]
        if refused:
            raise StoreUnavailable(f"{refused[0]}: answered 403 (AccessDenied)")
        super().delete(paths)


def test_what_cannot_be_removed_keeps_nothing_of_other_sites_and_no_model(
    runs: RunStore, store: ObjectStore, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    told, refusing = list[str](), Refusing(tmp_path / "store")
    refusing.kept = ("0000000000000003.bin", "locked")  # an update, a model, and objects of site c
    config = RunConfig(rounds=100, keep_rounds=1, keep_globals=2, store=store.url)
    pruning = Pruning(runs, refusing, config, told.append)
    clients = tmp_path / "store/runs/r/clients"
    for round_ in range(1, 13):
        close(runs, store, round_)
    for site in ("b", "c", "d", "f"):
        put(store, named(update_prefix("r", 1, site), "update", "1" * 16, ".bin"), b"late")
    for path in (named(result_prefix("r", 1, 5, "f"), "image", "1" * 16, ".png"), f"{result_prefix('r', 0, 7, 'f')}1"):
        put(store, path, b"of no evaluation")
    for number in range(25):
        put(store, f"{result_prefix('r', 1, 5, 'c')}locked{number}.json", b"{}")
        put(store, f"{update_prefix('r', 1, 'c')}locked{number}", b"")
    for name in ("0001-bad name", "0001-\x1b[2J", f"0001-{'x' * 150}"):
        (clients / "b" / name).write_bytes(b"")
    (clients / "e").symlink_to(clients / "d")
    for _ in range(2):
        pruning._swept = -10  # as after ten more rounds
        pruning.prune(12, list("abcdef"))
    left = {path for site in "abcdf" for path in store.list(f"runs/r/clients/{site}/") if not is_info(path)}
    with subtests.test("an update that cannot be removed, and those of the other rounds"):
        assert {round_ for round_ in map(round_of, left) if round_ not in (0, 1)} == {3, 12}
        assert runs.redis.exists(runs.keys.client("a").update(11)) == 0
    with subtests.test("a model that cannot be removed, and the others"):
        assert models(store) == {3, 11, 12}
    with subtests.test("sites behind one whose names are odd, whose objects are locked, or whose folder is a link"):
        assert {path.split("/")[3] for path in left if round_of(path) == 1} == {"b", "c"}
        assert len([path for path in left if "/b/" in path]) == 3
        assert not [path for path in left if "/f/" in path], "those of round 0, too"
    with subtests.test("each is told once, with its site"):
        assert len(told) == 5, told
        start = "what old rounds left"
        for whose in ("of site 'a'", "of site 'b'", "of site 'c'", "of site 'e'", "in runs/r/global/"):
            assert sum(line.startswith(f"{start} {whose} stays for now: ") for line in told) == 1, told
        assert all(line.isprintable() for line in told)


class Broken(LocalStore):
    def delete(self, paths: object) -> None:
        raise RecursionError("too deep")


def test_what_a_resumed_run_keeps_no_longer_goes_once_a_manifest_says_so(runs: RunStore, store: ObjectStore) -> None:
    """Else `flavor verify` calls it missing until the next round is closed: the manifests are all that it has."""

    for round_ in range(1, 7):
        close(runs, store, round_, keep=4)
    Pruning(runs, store, RunConfig(rounds=9, keep_rounds=4, store=store.url), print).prune(6, ["a"])
    assert updates(store) == [3, 4, 5, 6]
    resumed = Pruning(runs, store, RunConfig(rounds=9, keep_rounds=1, store=store.url), print)
    resumed.prune(6, ["a"])
    assert updates(store) == [3, 4, 5, 6]
    close(runs, store, 7, keep=1)
    manifest = store.read_unverified(manifest_path("r", 7), most=10**6)
    store.delete([manifest_path("r", 7)])  # its worker has committed the round, and not put it in place yet
    resumed.prune(7, ["a"])
    assert updates(store) == [3, 4, 5, 6, 7]
    put(store, manifest_path("r", 7), manifest)
    resumed.prune(7, ["a"])
    assert updates(store) == [7]
    of_all = Pruning(runs, store, RunConfig(rounds=9, keep_rounds=1, store=store.url), print)
    close(runs, store, 8, keep=0)
    of_all.prune(8, ["a"])
    assert updates(store) == [7, 8]


def test_whatever_goes_wrong_ends_no_run_and_is_told_once(runs: RunStore, store: ObjectStore, tmp_path: Path) -> None:
    for round_ in (1, 2, 3, 4):
        close(runs, store, round_)
    told: list[str] = []
    pruning = Pruning(runs, Broken(tmp_path / "store"), RunConfig(rounds=9, keep_rounds=1, store="x"), told.append)
    pruning.after(3, ["a"])
    pruning.after(4, ["a"])
    pruning.close()
    assert told == ["what old rounds left stays for now: too deep"]


def test_what_a_site_heaps_up_in_its_folder_holds_up_nobody(runs: RunStore, store: ObjectStore, tmp_path: Path) -> None:
    for round_ in (1, 2, 3):
        close(runs, store, round_)
    folder = tmp_path / "store/runs/r/clients/a"
    for number in range(20_000):
        os.close(os.open(folder / f"0001-junk-{number}", os.O_CREAT))
    pruning = Pruning(runs, store, RunConfig(rounds=9, keep_rounds=1, store="x"), print)
    began = time.monotonic()
    pruning.after(3, ["a"])
    assert time.monotonic() - began < 0.5, "the loop does not wait for it"
    pruning.close()
    assert len(store.list("runs/r/clients/a/")) >= 19_000, "no more than a part is looked at each time"
    recorded = {round_of(path) for path in store.list("runs/r/clients/a/") if "update" in path}
    assert recorded == {3}, "what was recorded is found without looking"


def test_of_what_a_client_writes_only_known_fields_of_sensible_size_are_read(runs: RunStore) -> None:
    key = runs.keys.client("a")
    runs.redis.hset(key.hash, mapping={"state": "ready", "junk": "x" * 4_000_000})
    runs.redis.hset(key.update(1), mapping={"path": "p", "junk": "x" * 4_000_000})
    ready, nothing = ClientStatus("ready", protocol=0), ClientStatus(protocol=0)
    assert runs.clients(["a", "b"]) == {"a": (ready, False), "b": (nothing, False)}
    assert runs.updates(1, ["a", "b"]) == {"a": update.from_hash({"path": "p"})}
    runs.redis.set(key.lease, "x")
    runs.redis.hset(key.hash, "reason", "x" * (LONGEST_FIELD_BYTES + 1))
    runs.redis.hset(key.update(1), "info_path", "x" * (LONGEST_FIELD_BYTES + 1))
    (status, alive) = runs.clients(["a"])["a"]
    assert alive
    assert status.state == ClientState.FAILED
    assert "'reason' is larger than" in status.reason
    assert "'info_path' is larger than" in runs.updates(1, ["a"])["a"].reason
    for name in (key.hash, key.update(1)):
        runs.redis.delete(name)
        runs.redis.set(name, json.dumps({}))
    assert "no hash" in runs.clients(["a"])["a"][0].reason
    assert "no hash" in runs.updates(1, ["a"])["a"].reason


def test_credits_and_rounds_of_a_long_run_are_whole(runs: RunStore, store: ObjectStore) -> None:
    """Redis has the newest rounds, the store's manifests the others; who gives no store is told so."""
    for round_ in range(1, 61):
        close(runs, store, round_)
    Pruning(runs, store, RunConfig(rounds=100, keep_rounds=2, store=store.url), print).prune(60, ["a"])
    assert runs.read_round(1) is None
    assert [(one.round, one.samples) for one in contributions(runs, store)] == [(n, 1) for n in range(1, 61)]
    with pytest.raises(StoreError, match="name the --store"):
        contributions(runs)
    store.delete([manifest_path("r", 1)])
    with pytest.raises(StoreError, match="round 1 of run 'r' is gone"):
        contributions(runs, store)
