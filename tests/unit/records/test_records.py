"""Records and the fields of the hashes that they stand for: the wire format, field by field."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flavor.protocol import OLDEST
from flavor.records.admission import Admission
from flavor.records.client import FIELDS, ClientStatus, Role, Transfer, revoked
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.remarks import Remark, from_text
from flavor.records.round import Reference, RoundView
from flavor.records.states import ClientState
from flavor.records.task import Task
from flavor.records.update import UNSAID, Refused, Update, from_hash
from flavor.records.verdict import Answer, Verdict

MODEL = GlobalModel(ObjectRef("m", "1" * 64, 12, "5:12:9"), ObjectRef("i", "2" * 64), ObjectRef("s", "3" * 64), "npz")
UPDATE = Update(
    ObjectRef("u", "4" * 64, 7), ObjectRef("j", "5" * 64), "npz", 3, None, "ed25519:aa", "bb", unread=True, try_id="t"
)


def test_a_global_model_writes_every_field_so_that_nothing_of_an_earlier_one_stays() -> None:
    names = {"global_path", "global_digest", "global_size", "global_seal", "format"}
    beside = {"info_path", "info_digest", "state_path", "state_digest"}
    assert GlobalModel.from_hash(MODEL.to_hash()) == MODEL
    plain = GlobalModel(ObjectRef("m", "1" * 64, 12))
    assert set(plain.to_hash()) == set(MODEL.to_hash()) == names | beside
    assert GlobalModel.from_hash({**MODEL.to_hash(), **plain.to_hash()}) == plain


def test_a_task_names_the_model_to_train_from_and_there_is_one_without() -> None:
    assert Task.from_hash(2, {}) is None
    assert Task.from_hash(2, {"rounds": "3"}) == Task(2, None)
    assert Task.from_hash(2, MODEL.to_hash()) == Task(2, MODEL)


def test_an_update_is_written_and_read_as_it_is() -> None:
    fields = UPDATE.to_hash()
    assert fields == {
        "path": "u",
        "digest": "4" * 64,
        "size": "7",
        "format": "npz",
        "info_path": "j",
        "info_digest": "5" * 64,
        "num_examples": "3",
        "public_key": "ed25519:aa",
        "signature": "bb",
        "unread": "1",
        "try": "t",
    }
    assert from_hash(fields) == UPDATE
    base = ObjectRef("m", "1" * 64)
    assert from_hash(fields, base=base) == replace(UPDATE, base=base)
    assert replace(UPDATE, base=base).trained_from == "1" * 64


def test_what_a_client_wrote_is_read_whatever_it_is() -> None:
    read = from_hash({"size": "many", "num_examples": "-1", "try": "x" * 1000})
    assert isinstance(read, Update)
    assert (read.object.path, read.object.size_bytes, read.num_examples, len(read.try_id)) == ("", None, UNSAID, 64)
    large = from_hash({"num_examples": str(2**62)})
    assert isinstance(large, Update)
    assert large.num_examples == 2**62


@pytest.mark.parametrize("word", [Refused("no info.json", "info", "3", "its text", "t"), Refused("no info.json")])
def test_the_word_that_there_is_no_update(word: Refused) -> None:
    assert from_hash(word.to_hash()) == word
    assert word.to_hash()["refused"] == "no info.json"


def test_a_verdict_is_the_json_of_earlier_releases() -> None:
    verdict = Verdict(True, "good", UPDATE, constants=("mask",), try_id="t", structure="abc")
    fields = json.loads(verdict.to_json())
    assert fields == {
        "accepted": True,
        "reason": "good",
        "path": "u",
        "digest": "4" * 64,
        "size_bytes": 7,
        "seal": "",
        "format": "npz",
        "num_examples": 3,
        "info_path": "j",
        "info_digest": "5" * 64,
        "constants": ["mask"],
        "blameless": False,
        "public_key": "ed25519:aa",
        "signature": "bb",
        "try_id": "t",
        "structure": "abc",
        "unread": True,
    }
    assert Verdict.from_json(verdict.to_json()) == verdict
    refusal = Verdict(False, "bad", try_id="t")
    assert json.loads(refusal.to_json()).keys() == fields.keys()
    assert Verdict.from_json(refusal.to_json()) == refusal
    with pytest.raises(ValueError, match="bad"):
        assert refusal.inspected


def test_an_acceptance_answers_every_try_and_a_refusal_its_own() -> None:
    other = replace(UPDATE, try_id="t2")
    assert Verdict(True, "", UPDATE, try_id="t").is_about(other)
    assert Verdict(False, "", try_id="t").is_about(UPDATE)
    assert not Verdict(False, "", try_id="t").is_about(other)
    assert not Verdict(False, "", try_id="t").is_about(Refused("", try_id="t2"))


def test_a_client_s_answer() -> None:
    assert Answer.from_hash({}) is None
    assert Answer.from_hash({"accepted": "0", "reason": "NaN", "try": "t"}) == Answer(False, "NaN", "t")
    assert Answer.from_hash({"accepted": "0", "reason": "NaN", "quarantined": "3"}) == Answer(False, "NaN", "", 3)


def test_a_reference_is_read_as_it_is_written_also_that_of_an_older_release() -> None:
    for reference in (Reference(ObjectRef("p", "d", 3), "abc"), Reference(ObjectRef("p", "d", 3))):
        assert Reference.from_text(reference.to_text()) == reference
    assert Reference.from_text("p d") == Reference(ObjectRef("p", "d"))


def test_a_round_that_was_just_opened_is_as_its_hash_says() -> None:
    fields = {"state": "open", "expected": '["a"]', "opened_ms": "1", "deadline_ms": "9", "attempt": "0"}
    assert RoundView.from_hash(2, fields, {}) == RoundView.opened(2, ("a",), opened_ms=1, deadline_ms=9)


VERSION = "flavor 0.1.0, Python 3.11.2, Linux x86_64"
STATUS = ClientStatus(
    ClientState.FAILED,
    "it ended",
    "trainer-ended",
    "3",
    "its text",
    2,
    "host",
    7,
    "ed25519:aa",
    release="0.1.0",
    version=VERSION,
    told_ms=9,
    awaits_store=True,
    evaluates=True,
    allows_cross=True,
    sets=("BATCH_SIZE", "LR"),
    remarks=(Remark.TRAINED, Remark.TIED),
)


def test_of_remarks_only_known_words_are_read() -> None:
    assert from_text("tied later tied \x1b[31m own-trained") == (Remark.TIED, Remark.TRAINED)
    assert from_text(" ".join(["x"] * 16 + ["tied"])) == ()


def test_what_a_client_says_of_itself_is_written_whole_so_that_nothing_of_an_earlier_state_stays() -> None:
    fields = STATUS.to_hash()
    assert fields == {
        "protocol": str(OLDEST),
        "release": "0.1.0",
        "state": "failed",
        "reason": "it ended",
        "failure": "trainer-ended",
        "exit_code": "3",
        "report": "its text",
        "round": "2",
        "host": "host",
        "pid": "7",
        "public_key": "ed25519:aa",
        "version": VERSION,
        "told_ms": "9",
        "awaits": "store",
        "evaluates": "1",
        "cross": "1",
        "sets": "BATCH_SIZE LR",
        "remarks": "own-trained tied",
    }
    assert ClientStatus.from_hash(fields) == STATUS
    assert ClientStatus("ready").to_hash().keys() == fields.keys()
    assert fields.keys() | Transfer().to_hash().keys() == set(FIELDS)


def test_the_state_of_a_client_that_trains_nothing_is_none_that_an_older_coordinator_knows() -> None:
    judges = replace(STATUS, state=ClientState.READY, role=Role.EVALUATOR)
    assert (written := judges.to_hash())["state"] == "evaluator ready"
    assert written["state"] not in tuple(ClientState)
    assert ClientStatus.from_hash(written) == judges
    assert ClientStatus.from_hash(written).known_state is ClientState.READY
    assert ClientStatus.from_hash(revoked()).role is Role.TRAINER


def test_a_transfer_is_written_beside_it_and_taken_back() -> None:
    moving = Transfer("uploading", 3, 9, 1000)
    written = moving.to_hash()
    assert written == {"phase": "uploading", "done": "3", "total": "9", "since_ms": "1000", "bytes_s": ""}
    fields = {**STATUS.to_hash(), **written}
    assert ClientStatus.from_hash(fields) == replace(STATUS, transfer=moving)
    assert Transfer.from_hash({**written, "bytes_s": "7"}) == replace(moving, bytes_s=7)
    assert Transfer.from_hash({name: written[name] for name in written if name != "bytes_s"}) == moving, "earlier"
    assert ClientStatus.from_hash({**fields, **Transfer().to_hash()}) == STATUS


def test_what_a_client_says_of_itself_is_read_whatever_it_is() -> None:
    read = ClientStatus.from_hash({"state": "READY", "round": "-1", "pid": "x", "protocol": "two", "phase": "dancing"})
    assert read == ClientStatus("READY", protocol=0)
    assert read.known_state is None
    for text in ("", " ", "lower", "A  B", "A\x1b[2J", "A" * 65, " ".join(["A"] * 257)):
        assert ClientStatus.from_hash({"sets": text}).sets == (), text
    assert ClientStatus.from_hash({}) == ClientStatus(protocol=0)
    assert ClientStatus.from_hash(revoked()).known_state is ClientState.REVOKED


def test_an_admission() -> None:
    refused = Admission(False, "its key is another one", "ed25519:aa")
    fields = {"admitted": "0", "reason": "its key is another one", "public_key": "ed25519:aa"}
    assert refused.to_hash() == fields | {"quarantined": "0"}, "each time all, so that nothing of an earlier one stays"
    assert Admission.from_hash(fields) == refused, "an earlier release says nothing of a quarantine"
    for admission in (refused, Admission(True), Admission(True, quarantined=3)):
        assert Admission.from_hash(admission.to_hash()) == admission
    assert Admission.from_hash({}) is None
    assert refused.is_about("ed25519:aa")
    assert not refused.is_about("ed25519:bb")
    assert Admission(True).is_about("ed25519:bb"), "an earlier release names no key"
