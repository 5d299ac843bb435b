"""What leaves a site about a failure: a class that says enough, and no word of the site's."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.edge.consent import check_store
from flavor.edge.notice import Failure, Notice, notice_of
from flavor.errors import (
    BadObjectPath,
    DigestMismatch,
    InvalidRecord,
    InvalidSetting,
    NoResult,
    ObjectMissing,
    OtherStore,
    RunRefused,
    StoreError,
    UntrustedModel,
    UnusableStore,
)
from flavor.programs.result_file import read_measured
from flavor.store.open import open_store


def test_a_site_with_another_store_says_so_and_does_not_name_it(tmp_path: Path) -> None:
    with pytest.raises(OtherStore) as other:
        check_store(open_store(str(tmp_path), create=True), "r", "a" * 32, tell=print)
    notice = notice_of(other.value)
    assert notice.refused(None).to_hash() == {"refused": notice.reason, "failure": "other-store", "try": ""}
    assert notice.reason == "it was started with another store than the run's (its --store, or its token's)"


def test_so_does_one_whose_store_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting) as found:
        open_store(str(tmp_path / "missing"))
    notice = notice_of(UnusableStore(str(found.value)))
    assert notice.refused(None).to_hash() == {"refused": notice.reason, "failure": "unusable-store", "try": ""}
    assert notice.reason == "it was started with a store that cannot be used (its --store, or its token's)"


def test_what_a_site_declines_is_something_else() -> None:
    assert notice_of(RunRefused("no")).failure == "declined"
    assert notice_of(InvalidSetting("no")).failure == "misuse"


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (UntrustedModel("m"), "untrusted-model"),
        (BadObjectPath("../x"), "refused-object"),
        (DigestMismatch("x"), "refused-object"),
        (InvalidRecord("x"), "refused-object"),
        (ObjectMissing("x"), "store"),
    ],
)
def test_what_a_site_refuses_is_no_fault_of_its_store(error: StoreError, failure: str) -> None:
    """An operator who is told of the store looks there, and not for who has put a model into its place."""
    notice = notice_of(error)
    assert notice.failure == failure
    assert ("cannot use the object store" in notice.reason) == (failure == "store")


def test_each_class_of_failure_has_a_sentence() -> None:
    for failure in Failure:
        assert Notice(failure).reason


def test_an_evaluator_that_has_reported_nothing_left_no_file_that_could_be_wrong(tmp_path: Path) -> None:
    with pytest.raises(NoResult, match="call SaveInfoJson"):
        read_measured(tmp_path, tmp_path / "info.json", 1)
    notice = notice_of(NoResult())
    assert (notice.failure, "info.json" in notice.reason) == ("no-result", False)
    assert notice.reason == "its evaluator ended with exit code 0 and has written no result"
