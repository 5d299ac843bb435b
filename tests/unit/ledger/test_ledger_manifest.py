"""Records: one spelling, written once, read back as they were."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flavor.errors import InvalidRecord, ObjectExists, ObjectMissing
from flavor.ledger.canonical import canonical
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Manifest, Model, RunRecord, settings_differ
from flavor.ledger.rounds import round_fields
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from tests.unit.forged_run import ForgedRun, overwrite

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    LEAVES | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES)
def test_canonical_json_is_ascii_stable_and_read_back(value: object) -> None:
    data = canonical(value)
    assert data.isascii()
    assert canonical(json.loads(data)) == data
    assert json.loads(data) == json.loads(json.dumps(value))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_has_not_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical({"x": number})


@settings(deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_any_settings_survive_a_record(config: dict[str, object]) -> None:
    record = RunRecord(run="r", run_id="0" * 32, rounds=3, config=config)
    assert RunRecord.parse(record.to_bytes(), "x") == RunRecord.parse(record.to_bytes(), "x")
    assert RunRecord.parse(record.to_bytes(), "x").to_bytes() == record.to_bytes()


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    data = run.archive.data(2)
    assert data is not None
    read = Manifest.parse(data, "x")
    assert read == run.manifests[1]
    assert read.is_signed()
    assert read.previous == run.manifests[0].digest
    assert run.manifests[0].previous == run.record.digest


def test_whom_a_rule_chose_stands_in_a_manifest_only_where_it_left_others_out(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(1)
    every = run.manifests[0]
    assert b"chosen" not in every.to_bytes(), "as releases before this field wrote and read it"
    some = every.model_copy(update={"chosen": ("a",)}).signed(run.worker)
    assert b'"chosen":["a"]' in some.to_bytes()
    assert Manifest.parse(some.to_bytes(), "x") == some
    assert some.is_signed()
    assert not some.model_copy(update={"chosen": None}).is_signed()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(b'"config":', b'"chosen":null,"config":'), "not as it was written"),
        (lambda text: text.replace(b'"config":', b'"chosen":[],"config":'), "chosen: Tuple should have at least 1"),
        (lambda text: text.replace(b'"round":1', b'"round": 1'), "not as it was written"),
        (lambda text: text.replace(b'"round":1', b'"round":"1"'), "not as it was written"),
        (lambda text: text.replace(b'"round":1', b'"round":1,"round":1'), "not as it was written"),
        (lambda text: text.replace(b'"kind":"flavor.round"', b'"kind":"flavor.x"'), "that this version reads: kind"),
        (lambda text: text.replace(b'"run_id":"', b'"run_id":"x'), "run_id: String should match"),
        (lambda text: text.replace(b'"attempt":1', b'"attempt":1,"more":0'), "more: Extra inputs"),
        (lambda text: text.replace(b'"round":1', b'"round":0'), "round: Input should be greater"),
        (lambda text: text[:-3], "not complete JSON"),
        (lambda text: b"\xff" + text, "not complete JSON"),
        (lambda text: b"[" * 100_000, "not complete JSON"),
    ],
)
def test_other_spellings_are_refused(tmp_path: Path, change, message: str) -> None:
    run = ForgedRun(tmp_path / "s").complete(1)
    data = run.manifests[0].to_bytes()
    assert change(data) != data
    with pytest.raises(InvalidRecord, match=message):
        Manifest.parse(change(data), "x")


def test_a_signature_is_about_the_whole_manifest(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(1)
    signed = run.manifests[0]
    assert not signed.model_copy(update={"closed_ms": 1}).is_signed()
    other = SigningKey.generate()
    assert not signed.model_copy(update={"public_key": str(other.public)}).is_signed()
    assert signed.signed(other).is_signed()


def test_a_manifest_keeps_every_field_of_a_global_model_but_its_seal() -> None:
    """What is forgotten here would be missing after `flavor recover`."""
    ref, info, state = ObjectRef("p", "d" * 64, 3, "seal"), ObjectRef("i", "f" * 64), ObjectRef("s", "e" * 64)
    model = GlobalModel(ref, info, state, "torch", 3, whole := ObjectRef("w", "a" * 64, 9))
    assert {each.name for each in fields(GlobalModel) if not getattr(model, each.name)} == set(), "each has a value"
    assert Model.of(model).to_global("seal") == model
    assert Model.of(model).objects() == [ref.sealed(""), info, state, whole]


def test_settings_differ_by_name_and_not_by_place() -> None:
    assert settings_differ({"a": 1, "store": "x"}, {"a": 1, "store": "y"}) == []
    assert settings_differ({"a": 1, "b": 2}, {"a": 2, "c": 3}) == ["a", "b", "c"]


class TestArchive:
    def test_a_manifest_is_put_in_place_once(self, tmp_path: Path) -> None:
        run = ForgedRun(tmp_path / "s")
        run.begin()
        one = run.manifest(1).signed(run.worker)
        ref = run.archive.stage(one)
        assert not run.archive.has(1)
        run.archive.publish(1, ref)
        run.archive.publish(1, ref)
        assert run.archive.data(1) == one.to_bytes()
        with pytest.raises(ObjectExists):
            run.archive.publish(1, run.archive.stage(run.manifest(1, tag="other").signed(run.worker)))
        assert run.archive.data(1) == one.to_bytes()

    def test_what_was_staged_must_be_what_was_committed(self, tmp_path: Path) -> None:
        run = ForgedRun(tmp_path / "s")
        run.begin()
        ref = run.archive.stage(run.manifest(1).signed(run.worker))
        overwrite(run.store.local(ref.path), b"{}")
        with pytest.raises(InvalidRecord, match="not the manifest that was committed"):
            run.archive.publish(1, ref)
        run.store.local(ref.path).unlink()
        with pytest.raises(ObjectMissing):
            run.archive.publish(1, ref)
        assert not run.archive.has(1)

    @pytest.mark.parametrize("closed", [*range(10), 31, 32, 33])
    def test_the_newest_round_is_found_by_asking_for_few(self, tmp_path: Path, closed: int) -> None:
        assert ForgedRun(tmp_path).complete(closed).archive.closed() == closed


def test_a_manifest_has_the_pauses_of_a_round_in_which_the_run_had_ended(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(1)
    whole = run.manifests[0]
    assert b"pauses" not in whole.to_bytes(), "as releases before this field wrote and read it"
    paused = whole.model_copy(update={"pauses": ((1_100, 1_350),)}).signed(run.worker)
    assert Manifest.parse(paused.to_bytes(), "m") == paused
    assert not paused.model_copy(update={"pauses": None}).is_signed()
    view = RoundView.from_hash(1, round_fields(paused, ObjectRef("m", "d")), {})
    assert (view.opened_ms, view.paused_ms) == (1_000, 250), "a recovered run tells the seconds without them"
