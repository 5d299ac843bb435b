"""What leaves a site about a failure: a class that says enough, and no word of the site's."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.edge.consent import check_store
from flavor.edge.notice import notice_of
from flavor.errors import InvalidSetting, OtherStore, RunRefused, UnusableStore
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
