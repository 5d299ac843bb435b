"""What a run asks of a site is declined unless the site's own user has agreed to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flavor.config import RunConfig
from flavor.edge.consent import check_consent, check_manifests, check_store, told
from flavor.errors import InvalidSetting, RunRefused
from flavor.script_settings import checked_pattern, settings_not_taken
from flavor.store.bucket import refusal
from flavor.store.local import LocalStore
from flavor.store.open import open_store
from flavor.store.paths import run_record_path

DANGEROUS = ["HF_ENDPOINT", "MAKEFLAGS", "INTEL_LIBITTNOTIFY64", "TORCH_HOME", "KUBECONFIG", "DATABASE_URL"]
DANGEROUS += ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TRITON_CACHE_DIR", "OMP_TOOL_LIBRARIES", "WANDB_BASE_URL"]


def config(**settings: str) -> RunConfig:
    return RunConfig.parse({"rounds": 1, "store": "s", "settings": settings})


@pytest.mark.parametrize("name", DANGEROUS)
def test_names_that_are_not_listed_are_declined_and_can_be_allowed(name: str) -> None:
    with pytest.raises(RunRefused, match=rf"{name}=x.*--allow-set {name}"):
        check_consent("r", config(**{name: "x"}), opaque=False, allow_set=(), store="s")
    check_consent("r", config(**{name: "x"}), opaque=False, allow_set=[name[:3] + "*"], store="s")


def test_what_is_set_for_another_site_or_replaced_by_this_one_needs_no_consent() -> None:
    run = RunConfig.parse(
        {"rounds": 1, "store": "s", "settings": {"DB": "x"}, "set_for": {"c1": {"KUBECONFIG": "/x"}, "c2": {"LR": "9"}}}
    )

    def lacks(client: str, *own: str) -> str:
        with pytest.raises(RunRefused, match="does not take") as caught:
            check_consent(
                "r", run, opaque=False, allow_set=["D?"] * ("DB" not in own), store="s", client=client, own=own
            )
        return str(caught.value.told)

    check_consent("r", run, opaque=False, allow_set=["DB"], store="s", client="c2")
    check_consent("r", run, opaque=False, allow_set=[], store="s", client="c2", own=["DB"])
    check_consent("r", run, opaque=False, allow_set=["DB"], store="s", client="c1", own=["KUBECONFIG"])
    assert lacks("c1") == "its user has not allowed a setting of --set-for (--allow-set KUBECONFIG)"
    assert lacks("c1", "DB") == lacks("c1"), "its other setting counts as before"
    assert told(run, "c2") == ["the run sets for its trainer: DB=x LR=9"]
    assert told(run, "c2", own=["LR", "NEW"])[1] == (
        "this site sets for its script itself: LR (in place of the run's), NEW"
    )


@pytest.mark.parametrize("value", ["0.01", "-1e-3", "64,64", "adam", "", "cosine:0.1"])
def test_plain_values_of_listed_names_are_taken(value: str) -> None:
    assert settings_not_taken({"LEARNING_RATE": value, "HP_WIDTH": value}) == []


@pytest.mark.parametrize("value", ["$(id)", "--out=x", "a/b", "x;y", "http://x", "`id`", "a\\nb"])
def test_other_values_are_not(value: str) -> None:
    assert settings_not_taken({"LEARNING_RATE": value}) == ["LEARNING_RATE"]


def test_opaque_checkpoints_need_the_sites_word() -> None:
    opaque = RunConfig.parse({"rounds": 1, "store": "s", "checkpoint": "opaque"})
    with pytest.raises(RunRefused, match="--opaque"):
        check_consent("r", opaque, opaque=False, allow_set=(), store="s")
    check_consent("r", opaque, opaque=True, allow_set=(), store="s")


@pytest.mark.parametrize(
    ("named", "typed"),
    [
        ("/srv/runs", "--store /srv/runs"),
        ("file:///srv/runs", "--store /srv/runs"),
        ("runs", "--store runs"),
        ("~/x; rm y", "--store '~/x; rm y'"),
    ],
)
def test_a_folder_that_the_run_names_needs_the_sites_word(named: str, typed: str) -> None:
    run = RunConfig.parse({"rounds": 1, "store": named})
    for silent in (None, ""):
        with pytest.raises(RunRefused) as refused:
            check_consent("r", run, opaque=False, allow_set=(), store=silent)
        assert f"start with {typed}" in str(refused.value)
        assert "flavor enroll --store" in str(refused.value)
    check_consent("r", run, opaque=False, allow_set=(), store="/mnt/elsewhere")


@pytest.mark.parametrize("named", ["s3://bucket/prefix", "gs://bucket", "az://container"])
def test_a_bucket_that_the_run_names_is_used(named: str) -> None:
    check_consent("r", RunConfig.parse({"rounds": 1, "store": named}), opaque=False, allow_set=(), store=None)


def test_a_store_of_a_package_needs_the_sites_word() -> None:
    run = RunConfig.parse({"rounds": 1, "store": "tape://host/run"})
    with pytest.raises(RunRefused, match=r"^run 'r' keeps its objects in a store 'tape://', which a package "):
        check_consent("r", run, opaque=False, allow_set=(), store=None)
    check_consent("r", run, opaque=False, allow_set=(), store="tape://host/run")


def test_a_package_s_kind_of_checkpoints_needs_the_sites_word_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "forest-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: forest\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[flavor.checkpoints]\nforest = forest_kind:Forest\n")
    (tmp_path / "forest_kind.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'imported')!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = RunConfig.of_run("r", {"rounds": 1, "store": "s", "checkpoint": "forest"})
    for named in (None, "trees"):
        with pytest.raises(RunRefused, match=r"a package of this machine would read .* start with --checkpoint forest"):
            check_consent("r", run, opaque=True, allow_set=(), store="s", checkpoint=named)
    assert not (tmp_path / "imported").exists()
    with pytest.raises(InvalidSetting, match="forest_kind"):  # it is imported now, and has no such class
        check_consent("r", run, opaque=True, allow_set=(), store="s", checkpoint="forest")
    assert (tmp_path / "imported").exists()
    with pytest.raises(InvalidSetting, match="no checkpoints of the kind 'oak' here"):
        RunConfig.of_run("r", {"rounds": 1, "store": "s", "checkpoint": "oak"})


def test_a_store_must_hold_the_record_of_this_very_run(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    with pytest.raises(RunRefused, match="not the store of run"):
        check_store(store, "r", "a" * 32, tell=print)
    record = tmp_path / run_record_path("r")
    record.parent.mkdir(parents=True)
    broken = ("{", "[" * 200_000, "[]", "5", "{}")
    for text, match in (
        *((text, "no run's record") for text in broken),
        (json.dumps({"run_id": "b" * 32}), "another run of the name"),
    ):
        record.write_text(text)
        with pytest.raises(RunRefused, match=match):
            check_store(store, "r", "a" * 32, tell=print)
    record.write_text(json.dumps({"run_id": "a" * 32}))
    check_store(store, "r", "a" * 32, tell=print)


@pytest.mark.parametrize(("status", "said"), [(403, "may not read the run's record"), (404, "answered 404")])
def test_a_site_that_may_not_read_the_record_is_not_told_that_something_is_wrong(
    tmp_path: Path, status: int, said: str
) -> None:
    """It is so with the policy that is printed for it."""

    class Closed(LocalStore):
        def read_unverified(self, path: str, **_: object) -> bytes:
            raise refusal("s3://b/p", path, status, "")

    told: list[str] = []
    check_store(Closed(tmp_path), "r", "a" * 32, tell=told.append)
    assert len(told) == 1
    assert said in told[0]
    assert "check the credentials" not in told[0]


def test_a_pattern_that_matches_no_name_is_refused() -> None:
    assert checked_pattern("LR_*") == "LR_*"
    with pytest.raises(ValueError, match="--allow-set"):
        checked_pattern("lr*")


def test_a_site_that_trusts_keys_needs_manifests_which_signed_urls_give_where_names_are_shared() -> None:
    shy, open_ = (RunConfig(rounds=1, store="s3://b", signed_urls=True, share_names=each) for each in (False, True))
    with pytest.raises(RunRefused, match=r"which name all sites.*--share-names"):
        check_manifests("r", shy, has_keys=True)
    check_manifests("r", shy, has_keys=False)
    check_manifests("r", open_, has_keys=True)
