"""Which variables a run sets for one site alone, and which a site sets itself."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from flavor.cli.run import run
from flavor.config import RunConfig
from flavor.coordinator.beginning import _change_by
from flavor.coordinator.set_for import not_joined
from flavor.errors import InvalidSetting
from flavor.resume import MAY_CHANGE, changes, resumed_config
from flavor.script_settings import parse_own_settings
from flavor.site_settings import MOST_CHARACTERS, MOST_CLIENTS, set_for_options, settings_of, unknown_clients

BASE = {"rounds": 1, "store": "s"}


def config(*pairs: tuple[str, str], **settings: str) -> RunConfig:
    return RunConfig.parse({**BASE, "settings": settings, "set_for": pairs})


def test_what_is_set_for_a_site_is_for_it_alone_and_counts_before_what_is_set_for_all() -> None:
    made = config(("site-2", "LR=0.5"), ("site-1", "URL=a=b"), ("site-2", "EMPTY="), LR="0.1")
    assert settings_of(made, "site-2") == {"LR": "0.5", "EMPTY": ""}
    assert settings_of(made, "site-1") == {"LR": "0.1", "URL": "a=b"}
    assert settings_of(made, "site-3") == {"LR": "0.1"}
    assert RunConfig.of_run("r", made.to_mapping()) == made
    assert "set_for" not in BASE
    assert RunConfig.of_run("r", BASE).set_for == {}, "that of an earlier release"


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([("site-1", "LR")], "'site-1' 'LR' cannot be used: write --set-for CLIENT NAME=VALUE"),
        ([("site-1", "lr=1")], "site-1: setting 'lr' cannot be used: a name is 1 to 64 of A-Z"),
        ([("site-1", "PATH=/x")], "site-1: setting 'PATH' cannot be used: *PATH is a site's own"),
        ([("../x", "LR=1")], "client '../x' cannot be used"),
        ([("LR=1", "site-1")], "write --set-for CLIENT NAME=VALUE"),
        ([("a", "LR=1"), ("a", "LR=2")], "'LR' is given twice for 'a'"),
        ([(f"c{i}", "LR=1") for i in range(MOST_CLIENTS + 1)], "clients are too many: at most"),
        ([("a", f"A{i}={'x' * 4096}") for i in range(MOST_CHARACTERS // 4096)], "too long: at most"),
    ],
)
def test_what_cannot_be_set_for_a_site_is_refused_in_a_line(pairs: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(InvalidSetting, match=r"^--set-for: ") as caught:
        config(*pairs)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value", ["x", 5, ["x"], [["a", "LR=1"]], {"a": "LR=1"}, {"a": {"LR": 1}}, {"a": {"PATH": ""}}]
)
def test_an_edge_refuses_anything_else_that_stands_in_redis(value: object) -> None:
    with pytest.raises(InvalidSetting, match=r"^--set-for: "):
        RunConfig.of_run("r", {**BASE, "set_for": value})


def test_a_run_that_is_resumed_takes_others_and_none_where_an_empty_text_says_so() -> None:
    before = config(("site-1", "LR=1"), ("site-2", "LR=2")).to_mapping()
    after, changed = resumed_config(before, {"set_for": (("site-1", "A=x y"),)}, closed=0)
    assert after.set_for == {"site-1": {"A": "x y"}}
    assert changed == ["set_for site-1 LR=1, site-2 LR=2 -> site-1 A=x y"]
    after, changed = resumed_config(before, {"set_for": (("site-1", ""),)}, closed=0)
    assert after.set_for == {}
    assert changed[0].endswith(" -> not set")
    assert "set_for" in MAY_CHANGE
    assert changes(BASE, RunConfig.parse(BASE).to_mapping(), ["set_for"]) == [], (
        "an earlier release had no such setting"
    )


def test_the_advice_to_change_it_can_be_pasted() -> None:
    assert _change_by("r", config(("a", "B=x y")), ["set_for"]).endswith(
        "`flavor resume r --set-for a 'B=x y'` changes that"
    )
    assert set_for_options({}) == "--set-for CLIENT ''"


def test_clients_that_are_not_there_are_named_with_those_that_may_be_meant() -> None:
    made = config(("Site1", "LR=1"), ("site-1", "LR=1"), ("other", "LR=1"))
    sites = [f"site-{number}" for number in range(1, 9)]
    found = dict(unknown_clients(made, sites))
    assert found == {
        "Site1": "the nearest of 8 are site-1, site-8, site-7",
        "other": "there are site-1, site-2, site-3, site-4, site-5 and 3 more",
    }
    assert dict(unknown_clients(made, ["site-1"]))["other"] == "there is only site-1"
    assert dict(unknown_clients(made, []))["other"] == "there are none"
    assert [line.split(":")[0] for line in not_joined(made, sites)] == ["--set-for Site1", "--set-for other"]
    assert not_joined(config(LR="1"), []) == []


@pytest.mark.parametrize("command", [["--edges", "2"], ["--input-glob", "site*/"]])
def test_flavor_run_knows_its_clients_and_starts_nothing_for_another(command: list[str], tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLAVOR_REDIS_URL", raising=False)
    for name in ("site1", "site2"):
        (tmp_path / name).mkdir()
    done = CliRunner().invoke(run, ["-m", "true", *command, "--set-for", "site-3", "LR=1"])
    assert done.exit_code == 2
    assert "--set-for site-3: this run has no client of this name: there are " in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site1", "site2"]


def test_a_site_sets_what_a_run_may_set_and_is_told_where_the_rest_belongs() -> None:
    assert parse_own_settings(["LR=1", "KUBECONFIG=/x"]) == {"LR": "1", "KUBECONFIG": "/x"}
    for text, said in (
        ("CUDA_VISIBLE_DEVICES=1", "--set CUDA_VISIBLE_DEVICES: no run can set this variable"),
        ("PATH", "set it in the environment of this program"),
        ("LR", "write --set NAME=VALUE"),
        ("lr=1", "a name is"),
    ):
        with pytest.raises(InvalidSetting, match="--set") as caught:
            parse_own_settings([text])
        assert said in str(caught.value)
