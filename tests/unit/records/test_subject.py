"""Which model an evaluation judges: as records have it, also those of earlier releases."""

from __future__ import annotations

import pytest

from flavor.errors import InvalidRecord
from flavor.ledger.canonical import canonical
from flavor.ledger.evaluation import EvaluationManifest, JudgedSubject
from flavor.records.evaluation import EvaluationSummary
from flavor.records.failed_evaluation import FailedEvaluation
from flavor.records.subject import Subject, SubjectKind
from flavor.results.evaluated import Evaluated, numbers_of

UPDATE, WITHOUT = Subject(SubjectKind.UPDATE, 3, "s1"), Subject(SubjectKind.WITHOUT, 3, "s1")
WHOLE = Subject(SubjectKind.WHOLE, 3)
WORDS = {
    Subject.of_round(3): "the model of round 3",
    Subject.of_round(0): "a model from outside (SHA-256 aaaaaaaaaaaa…)",
    UPDATE: "the update of s1 in round 3",
    WHOLE: "the model of round 3",
    WITHOUT: "the model of round 3 without s1",
    Subject(SubjectKind.UNKNOWN, site="s1"): "the update of s1, or a model without it (SHA-256 aaaaaaaaaaaa…)",
    Subject(SubjectKind.UNKNOWN): "a model that no round has made (SHA-256 aaaaaaaaaaaa…)",
}


def named(subject: Subject) -> str:
    return subject.named("a" * 64)


@pytest.mark.parametrize("subject", WORDS, ids=lambda subject: f"{subject.kind}{subject.site}")
def test_it_is_kept_in_summaries_and_in_result_folders(subject):
    of = None if subject in (Subject.of_round(3), Subject.of_round(0)) else subject
    summary = EvaluationSummary(subject.made_by, 1, opened_ms=1, closed_ms=2, metrics={"accuracy": 1.0}, of=of)
    assert EvaluationSummary.from_json(summary.closed_at(2)) == summary
    assert summary.subject == subject
    failed = FailedEvaluation(subject.made_by, 1, 1, "its site is gone", of=of)
    assert FailedEvaluation.from_json('{"over_ms":0,"in_a_row":1,' + failed.to_json()[1:]) == failed
    found = numbers_of(summary)
    assert Evaluated.from_json(found.to_json(), "here").subject == subject
    assert subject.counts == (subject.kind in ("global", "outside"))


def test_what_people_read_of_it():
    assert {subject: named(subject) for subject in WORDS} == WORDS


def test_the_owner_of_an_earlier_release_is_a_site_whose_update_the_model_is_or_lacks():
    text = EvaluationSummary(0, 1, opened_ms=1).closed_at(2)
    assert EvaluationSummary.from_json(text).subject == Subject.of_round(0)
    earlier = text.replace('"number"', '"owner":"s1","number"')
    assert EvaluationSummary.from_json(earlier).subject == Subject(SubjectKind.UNKNOWN, site="s1")


@pytest.mark.parametrize(
    ("plain", "why"),
    [
        ({"kind": "global", "round": 4, "site": ""}, "stands under round 0"),
        ({"kind": "update", "round": -1, "site": "s1"}, "no whole number"),
        ({"kind": "other", "round": 0, "site": ""}, "is not a valid"),
        ({"kind": "update", "round": "3", "site": "s1"}, "no whole number"),
    ],
    ids=str,
)
def test_another_subject_is_refused(plain, why):
    with pytest.raises(ValueError, match=why):
        Subject.of_fields({"subject": plain}, 0)


def record(**fields: object) -> bytes:
    values = {
        "kind": "flavor.evaluation",
        "protocol": 2,
        "run": "r",
        "run_id": "0" * 32,
        "round": 0,
        "evaluation": 1,
        "model_path": "runs/r/global/0000-model-0.npz",
        "model_digest": "a" * 64,
        "opened_ms": 1,
        "closed_ms": 2,
        "expected": ["s1"],
        "judges": [
            {
                "client": "s1",
                "num_examples": 1,
                "info_path": "runs/r/evaluations/0000-1-result-s1-0.json",
                "info_digest": "b" * 64,
                "public_key": "",
                "signature": "",
            }
        ],
        "missing": {},
        "central": None,
        "best_round": 0,
        "merged_path": "",
        "merged_digest": "",
        "public_key": "",
        "signature": "",
    }
    return canonical({**values, **fields})


def test_records_name_it_and_those_of_an_earlier_release_keep_their_bytes():
    earlier = EvaluationManifest.parse(record(), "here")
    assert earlier.judged == Subject(SubjectKind.UNKNOWN)
    assert not earlier.counts
    assert EvaluationManifest.parse(record(round=3), "here").judged is None
    for subject in (UPDATE, WITHOUT, Subject.of_round(0)):
        written = earlier.model_copy(update={"subject": JudgedSubject.of(subject)}).to_bytes()
        assert written == record(subject=subject.to_plain())
        assert EvaluationManifest.parse(written, "here").judged == subject
    assert JudgedSubject.of(Subject.of_round(3)) is None
    whole = EvaluationManifest.parse(record(round=3, subject=WHOLE.to_plain()), "here")
    assert (whole.judged, whole.counts) == (WHOLE, False)


@pytest.mark.parametrize(
    ("round_", "subject"),
    [
        (3, UPDATE),
        (0, WHOLE),
        (4, WHOLE),
        (3, Subject(SubjectKind.WHOLE, 3, "s1")),
        (0, Subject(SubjectKind.UPDATE, 0, "s1")),
        (0, Subject(SubjectKind.WITHOUT, 3)),
        (0, Subject(SubjectKind.WITHOUT, 3, "../s1")),
        (0, Subject(SubjectKind.OUTSIDE, 3)),
        (0, Subject(SubjectKind.OUTSIDE, 0, "s1")),
        (0, Subject(SubjectKind.GLOBAL, 3)),
        (0, Subject(SubjectKind.UNKNOWN)),
    ],
    ids=str,
)
def test_a_record_of_another_subject_is_refused(round_, subject):
    with pytest.raises(InvalidRecord):
        EvaluationManifest.parse(record(round=round_, subject=subject.to_plain()), "here")
