"""Sites' results in their own folders: what a signed record names there is never left over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.coordinator.handed_results import HandedResults
from flavor.ledger.archive import Archive
from flavor.ledger.evaluation import EvaluationManifest, JudgeRecord, put_manifest
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import RunRecord
from flavor.records.objects import ObjectRef
from flavor.store.open import open_store
from flavor.store.paths import evaluation_prefix, named, result_prefix, update_prefix

KEY = SigningKey.generate()
DIGEST = "0" * 64


@pytest.fixture(params=["folder", "bucket"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    url = str(tmp_path / "store")
    if request.param == "bucket":
        s3 = request.getfixturevalue("s3")
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        url = f"s3://{s3.bucket()}/fed"
    archive = Archive(open_store(url, create=True), "r")
    archive.begin(RunRecord(run="r", run_id="0" * 32, rounds=9, config={}))
    return archive


@pytest.fixture
def put(archive: Archive) -> Callable[[str], str]:
    def put(path: str) -> str:
        with archive.store.stage() as staged:
            staged.write_bytes(b"{")
            archive.store.put(ObjectRef(path, hashlib.sha256(b"{").hexdigest()), staged)
        return path

    return put


def handed_in(site: str, round_: int, what: str = "", number: int = 0) -> str:
    return f"{result_prefix('r', round_, number, site)}{what}{'1' * 16}{'.png' if what == 'image-' else '.json'}"


def record(archive: Archive, round_: int, infos: dict[str, str]) -> None:
    """Put the signed record of the evaluation of a round, which names what each site has measured by its path."""
    judges = (JudgeRecord(client=site, num_examples=1, info_path=infos[site], info_digest=DIGEST) for site in infos)
    manifest = EvaluationManifest(
        run="r",
        run_id="0" * 32,
        round=round_,
        evaluation=0,
        model_path="runs/r/global/0001-model-0.bin",
        model_digest=DIGEST,
        opened_ms=1,
        closed_ms=2,
        expected=tuple(infos),
        judges=tuple(judges),
        missing={},
        merged_path="",
        merged_digest="",
    )
    put_manifest(archive, manifest.signed(KEY))


def left(results: HandedResults, *sites: str, but: tuple[tuple[int, int], ...] = ()) -> set[str]:
    return {*results.unnamed([path for site in sites for path in results.listed(site, most=9)], but=but)}


def test_what_a_record_names_is_not_left_over_nor_what_belongs_to_it(
    archive: Archive, put: Callable[[str], str], subtests: pytest.Subtests
) -> None:
    results = HandedResults(archive)
    named_here = {put(handed_in("a", 1, what)) for what in ("", "report-", "image-")}
    beside = put(
        f"{result_prefix('r', 1, 0, 'a')}{'2' * 16}.json"
    )  # no record names it, but another result of the site
    late, asked = put(handed_in("b", 1)), put(handed_in("a", 1, number=7))
    taken = named(evaluation_prefix("r", 2, 0), "result-a", DIGEST, ".json")
    copied, of_none, spoiled = put(handed_in("a", 2)), put(handed_in("a", 3)), put(handed_in("a", 4))
    record(archive, 1, {"a": handed_in("a", 1)})
    record(archive, 2, {"a": taken})
    put(named(evaluation_prefix("r", 4, 0), "manifest", "1" * 16, ".json"))
    with subtests.test("while the evaluation is open"):
        assert left(results, "a", "b", but=((1, 7), (3, 0))) == {beside, late, copied}
    with subtests.test("once all are over"):
        assert left(results, "a", "b") == {beside, late, asked, copied, of_none}
    with subtests.test("one whose record cannot be read"):
        assert spoiled in results.listed("a", most=9)
    with subtests.test("what is known to be named is not looked at again"):
        assert not named_here & {*results.listed("a", most=9)}
    with subtests.test("a result of a second record of the same evaluation"):
        record(archive, 1, {"b": handed_in("b", 1)})
        assert late not in left(results, "a", "b")


def test_what_stays_is_in_no_other_objects_way(archive: Archive, put: Callable[[str], str]) -> None:
    results = HandedResults(archive)
    for round_ in range(1, 8):
        record(archive, round_, {"a": put(handed_in("a", round_))})
    refused = put(named(update_prefix("r", 7, "a"), "update", DIGEST, ".bin"))
    for _ in range(5):
        found = results.listed("a", most=2)
        assert len(found) <= 3
        assert not results.unnamed(found, but=())
    assert found == [refused]
