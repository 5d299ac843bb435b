"""The signed records as a page shows them: read a part at a time, and each manifest once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flavor.errors import StoreUnavailable
from flavor.ledger.archive import Archive
from flavor.ledger.chain import read_chain
from flavor.records.names import is_name
from flavor.store.paths import manifest_path
from flavor.view import provenance
from flavor.view.provenance import Records, verified
from tests.unit.forged_run import SIZES, ForgedRun, overwrite


class Counting:
    """A store that counts the records which are read, and a clock that moves with them."""

    def __init__(self, store: Any) -> None:
        self._store, self.read, self.now, self.fails = store, list[str](), 0.0, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read_unverified(self, path: str, **options: Any) -> bytes:
        if self.fails:
            raise StoreUnavailable("the store is away")
        self.read.append(path)
        self.now += 0.5
        data: bytes = self._store.read_unverified(path, **options)
        return data


def looking(run: ForgedRun) -> tuple[Counting, Records]:
    store = Counting(run.store)
    return store, Records(Archive(store, run.name), clock=lambda: store.now)  # type: ignore[arg-type]


def to_the_end(records: Records) -> Any:
    while not (found := records.read())["is_complete"]:
        assert found["manifests"] > found["read"]
    return found


def test_a_look_reads_for_a_second_and_the_next_one_reads_on(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s", config={"rounds": 20}).complete(7)
    store, records = looking(run)
    first = records.read()
    assert (first["is_complete"], first["manifests"], first["run_id"]) == (False, 7, run.run_id)
    assert [row["round"] for row in first["chain"]] == [1]
    found = to_the_end(records)
    assert found == to_the_end(records)
    assert store.read == ["runs/r/run.json", *(manifest_path("r", round_) for round_ in range(1, 8))], "each once"
    assert found["head"] == run.manifests[-1].digest
    assert (found["closed"], found["rounds"], found["problems"], found["silent"]) == (7, 20, [], "")
    row = found["chain"][-1]
    assert (row["sites"], row["contributors"], row["examples"]) == (["a", "b"], 2, sum(SIZES.values()))
    assert (row["model"], row["public_key"]) == (run.manifests[-1].global_model.digest, str(run.worker.public))
    checked = verified(run.archive)
    same = (
        "run",
        "run_id",
        "rounds",
        "closed",
        "head",
        "chain",
        "manifests",
        "read",
        "earlier",
        "wrong",
        "is_complete",
    )
    assert {name: checked[name] for name in same} == {name: found[name] for name in same}
    assert checked["objects_read"] == 1 + 7 * 8
    assert checked.keys() == found.keys()

    run.close(run.manifest(8))
    assert to_the_end(records)["closed"] == 8
    assert store.read[8:] == [manifest_path("r", 8)]
    store.now += 1000
    assert to_the_end(records)["closed"] == 8
    assert len(store.read) == 9 + 9, "the store may have changed: all is read again"


@pytest.mark.parametrize("harm", ["a gap", "another manifest", "no record", "a stray file", "removed"])
def test_what_is_wrong_is_what_flavor_verify_finds_in_the_records(tmp_path: Path, harm: str) -> None:
    run = ForgedRun(tmp_path / "s", config={"rounds": 7}).complete(7)
    place = {"no record": "runs/r/run.json", "removed": manifest_path("r", 6)}.get(harm, manifest_path("r", 3))
    path = run.folder / place
    if harm == "another manifest":
        overwrite(path, run.manifests[2].model_copy(update={"attempt": 2}).to_bytes())
    elif harm == "a stray file":
        (run.folder / manifest_path("r", 9000)).write_text("{}")
    else:
        path.unlink()
    if harm == "removed":
        (run.folder / manifest_path("r", 7)).unlink()
        overwrite(run.folder / manifest_path("r", 5), b"{}")
    chain = read_chain(run.archive)
    found = to_the_end(looking(run)[1])
    told = sorted((each["round"], each["path"], each["what"]) for each in found["problems"])
    assert told == sorted((each.round, each.path, each.what) for each in chain.problems)
    assert found["wrong"] == len(told) > 0
    rounds = {each.round for each in chain.problems}
    assert [row["verdict"] == "wrong" for row in found["chain"]] == [link.round in rounds for link in chain.links]
    assert found["head"] == chain.head


def test_its_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_MOST_TOLD", 3)
    run = ForgedRun(tmp_path / "s", config={"rounds": 9, "require_signatures": True}, clients={"a": None, "b": None})
    run.complete(9)
    monkeypatch.setattr(provenance, "MOST_ROUNDS", 4)
    _, records = looking(run)
    found = to_the_end(records)
    assert [row["round"] for row in found["chain"]] == [6, 7, 8, 9]
    assert (found["earlier"], len(found["problems"]), found["wrong"]) == (5, 3, 18)
    assert records._reader is not None
    chain = records._reader.chain
    assert (len(chain.links), chain.problems, chain.notices) == (1, [], [])
    assert len(json.dumps(found)) < 4 * 1000 + 3 * 300
    assert all(is_name(site) for site in found["chain"][0]["sites"])


def test_a_store_that_is_away_is_said_and_read_again(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete()
    store, records = looking(run)
    store.fails = True
    assert records.read()["silent"] == "the store is away"
    store.fails = False
    assert to_the_end(records)["closed"] == 3
    nowhere = Records(Archive(run.store, "other")).read()
    assert "there is no run 'other' in the store" in nowhere["silent"]
    assert nowhere["chain"] == []


def test_a_store_that_goes_away_midway_leaves_the_chain_unread(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(7)
    store, records = looking(run)
    assert records.read()["read"] == 1
    store.fails = True
    found = records.read()
    assert (found["silent"], found["is_complete"]) == ("the store is away", False)
    assert (found["read"], found["manifests"]) == (1, 7)
