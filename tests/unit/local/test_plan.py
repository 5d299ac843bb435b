"""What a local run is called, and its sites."""

from __future__ import annotations

import pytest

from flavor.errors import InvalidSetting
from flavor.local.plan import Layout, sites


def test_folders_name_their_sites_as_far_as_they_can(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("site 0", "Zürich (Süd)", "b_1", "3"):
        (tmp_path / name).mkdir()
    assert {site.client: site.input.name for site in sites(None, None, "*")} == {
        "site-0": "site 0",
        "Zurich-Sud": "Zürich (Süd)",
        "b_1": "b_1",
        "3": "3",
    }


def test_folders_that_would_have_one_name_are_told_apart_by_their_parents(tmp_path):
    for parent in ("a x", "b"):
        (tmp_path / parent / "site 0").mkdir(parents=True)
    assert [site.client for site in sites(None, None, str(tmp_path / "*" / "*"))] == ["a-x-site-0", "b-site-0"]
    for name in ("c c", "c-c"):
        (tmp_path / "one" / name).mkdir(parents=True)
    with pytest.raises(InvalidSetting, match="several folders would be called 'one-c-c'"):
        sites(None, None, str(tmp_path / "one" / "*"))


def test_a_folder_without_a_name_that_can_be_used_is_refused(tmp_path):
    (tmp_path / "数据").mkdir()
    with pytest.raises(InvalidSetting, match="'数据' cannot be used"):
        sites(None, None, str(tmp_path / "*"))


def test_results_that_are_there_are_named_with_both_ways_on(tmp_path):
    out = tmp_path / "my run"
    out.mkdir()
    (out / "federation.json").touch()
    with pytest.raises(InvalidSetting, match=r"--run.*--out.*flavor run --resume '.*my run'"):
        Layout(out).check_unused()
