"""Which version of the protocol a run has, what it needs, and what is written for releases that lack a feature."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from flavor import __version__, protocol
from flavor.config import RunConfig
from flavor.coordinator.beginning import standing
from flavor.errors import InvalidSetting, OtherProtocol
from flavor.ledger.manifest import RunRecord
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.resume import changes

ROOT = Path(__file__).parents[2]
LATER_OPTIONS = ("proxy", "devices", "relay-events")
"""Options of 0.2.0 that are no settings of a run."""
SETTINGS_OF_0_1_0 = frozenset(
    [
        "aggregation_attempts",
        "aggregation_lease_s",
        "aggregation_timeout_s",
        "aggregator",
        "checkpoint",
        "compress",
        "equal",
        "evaluate",
        "evaluation_timeout_s",
        "fraction",
        "heartbeat_timeout_s",
        "keep",
        "keep_globals",
        "keep_rounds",
        "local",
        "max_dataset_size",
        "max_update_bytes",
        "max_update_norm",
        "min_clients",
        "mode",
        "on_quorum_lost",
        "quarantine_after",
        "queue",
        "quorum",
        "require_signatures",
        "round_attempts",
        "round_timeout_s",
        "rounds",
        "seed",
        "select",
        "server_step",
        "set_for",
        "settings",
        "share",
        "share_names",
        "statistics",
        "stop_after_no_gain",
        "stop_when",
        "store",
        "weights",
    ]
)
"""All settings that protocol 2 has. This list never changes."""
PLAIN = RunConfig(rounds=1, store="-")


def test_each_later_setting_is_a_feature_with_a_version_of_its_own() -> None:
    later = set(RunConfig.model_fields) - SETTINGS_OF_0_1_0
    assert later == set(protocol.FEATURES), "add each new setting of a run to flavor.protocol.FEATURES"
    assert all(2 < version <= protocol.PROTOCOL for version in protocol.FEATURES.values())
    assert not any(RunConfig.model_fields[name].is_required() for name in later)


def test_the_changelog_has_each_later_setting_in_its_own_release() -> None:
    """A rebase may put a paragraph into the list of another release, and no conflict tells."""
    text = (ROOT / "CHANGELOG.md").read_text()
    newer, older = text.split("## 0.1.0 (", 1)
    for name in set(RunConfig.model_fields) - SETTINGS_OF_0_1_0:
        option = f"`[^`]*--{name.replace('_', '-')}\\b"
        assert re.search(option, newer), f"CHANGELOG.md does not have --{name.replace('_', '-')}"
        assert not re.search(option, older), name
    assert [option for option in LATER_OPTIONS if f"--{option}" not in newer or f"--{option}" in older] == []


def test_constraints_have_a_version_of_each_package_that_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [each for part in project["optional-dependencies"].values() for each in part] + project["dependencies"]
    here = {
        _plain(re.split(r"[\[>=;]", each)[0]) for each in needed if "darwin'" not in each.replace("!= 'darwin'", "")
    }
    pinned = re.findall(r"^([\w.-]+)(?:\[\w+\])?==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert sorted(here - {_plain(each) for each in pinned} - {"flavor"}) == []


def _plain(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package.strip()).lower()


def test_the_table_of_releases_has_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    spoken = protocol.here().partition("(protocol ")[2].rstrip(")")
    features = ", ".join(f"`{name}`" for name in sorted(protocol.FEATURES))
    assert " ".join(f"| {__version__} | {spoken} | {features} |".split()) in " ".join(text.split())


def test_a_run_without_features_is_one_of_protocol_2_that_release_0_1_0_reads() -> None:
    written = PLAIN.to_mapping()
    assert set(written) == SETTINGS_OF_0_1_0
    assert protocol.version_fields(written) == {"protocol": "2", "release": __version__}
    assert protocol.record_fields(written) == {"protocol": 2}
    record = RunRecord(run="r", run_id="0" * 32, rounds=1, config=written, **protocol.record_fields(written))
    assert json.loads(record.to_bytes()).keys() == {"kind", "protocol", "run", "run_id", "rounds", "config", "initial"}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two settings be features of later versions."""
    monkeypatch.setattr("flavor.protocol.FEATURES", {"share_log_lines": 3, "keep_rounds": 5, "mode": 4})
    monkeypatch.setattr("flavor.config.FEATURES", {"share_log_lines": 3, "keep_rounds": 5, "mode": 4})
    monkeypatch.setattr("flavor.protocol.PROTOCOL", 5)


@pytest.mark.usefixtures("later")
def test_a_run_has_the_lowest_version_that_has_all_its_features() -> None:
    plain, one, both = (
        RunConfig(rounds=1, store="-", **given).to_mapping()
        for given in ({}, {"mode": "async:buffer=1"}, {"mode": "async:buffer=1", "keep_rounds": 9})
    )
    assert {"mode", "keep_rounds"}.isdisjoint(plain), "an older release would refuse the names"
    assert "keep_rounds" not in one
    assert [protocol.protocol_of(each) for each in (plain, one, both)] == [2, 4, 5]
    assert protocol.version_fields(both) == {"protocol": "5", "release": __version__, "needs": "keep_rounds mode"}
    assert protocol.record_fields(one) == {"protocol": 4, "release": __version__, "needs": ("mode",)}
    assert RunConfig.of_run("r", plain) == PLAIN
    assert RunConfig.parse(both).every_setting().keys() == PLAIN.every_setting().keys()
    assert protocol.here() == f"flavor {__version__} (protocol 2 to 5)"
    protocol.check_run("r", 5, "0.3.0", ["mode"])
    assert protocol.client_refusal(4, "0.3.0", run=4) == ""
    assert protocol.client_refusal(2, run=4).startswith("its edge is flavor 0.1.0 or later (protocol 2), and this run")


@pytest.mark.usefixtures("later")
def test_a_resumed_run_keeps_its_version() -> None:
    protocol.check_features("r", 4, {"mode": "async"})
    with pytest.raises(InvalidSetting, match=r"--keep-rounds: run 'r' has protocol 4, which it keeps .*--from-run r"):
        protocol.check_features("r", 4, {"mode": "async", "keep_rounds": 3})


@pytest.mark.usefixtures("later")
def test_a_feature_that_a_resumed_run_no_longer_uses_is_at_its_default() -> None:
    given, resumed = RunConfig(rounds=1, store="-", keep_rounds=9), PLAIN.to_mapping()
    view = RunView("r", RunState.RUNNING, 1, 1, resumed, "", None, 0, None, changed=("keep_rounds",))
    told: list[str] = []
    assert standing(view, given, told.append) == PLAIN
    assert told == ["run 'r' was resumed with keep_rounds 2: that stands"]
    assert changes(given.to_mapping(), resumed) == ["keep_rounds 9 -> 2"]
    assert changes(resumed, PLAIN.every_setting()) == []


def test_what_a_hash_or_a_record_says_is_shown_only_where_it_can_be_such_a_thing() -> None:
    assert [protocol.release_of(text) for text in ("0.2.0", "1.0rc1+x", "", "\x1b[2J", 3, "9" * 99)] == [
        *("0.2.0", "1.0rc1+x", "", "", "", "")
    ]
    assert protocol.needs_in("masked signed_urls \x1b") == ("masked", "signed_urls")
    assert protocol.needs_in(["masked", 3, "A"]) == ("masked",)
    assert protocol.needs_in(None) == ()
    with pytest.raises(OtherProtocol, match=r"flavor 9\.1\.0"):
        protocol.check_run("r", 99, "9.1.0")
