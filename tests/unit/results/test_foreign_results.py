"""A result folder of somebody else: each thing that is wrong in it is one line that names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flavor.cli.results import results
from flavor.errors import InvalidRecord, InvalidSetting
from flavor.local.record import Record
from flavor.records.evaluation import AUTOMATIC
from flavor.results.claim import MARK, owner_of
from flavor.results.evaluated import Evaluated
from flavor.results.failed_evaluations import failed_in, write_failed
from flavor.results.kept import folder_of_round, kept_infos
from flavor.results.read_evaluated import BEST, FOLDER, OF_SITES, REPORTS, RULES, selected_in
from flavor.results.site_measures import SiteMeasures

FOUND = Evaluated(
    run="r",
    round=2,
    number=AUTOMATIC,
    model="f" * 64,
    opened_ms=1,
    closed_ms=2,
    expected=("a", "b"),
    sites={"a": SiteMeasures(10, {"acc": 0.5}, {"loss": "NaN"})},
    missing={"b": "it was late"},
    metrics={"acc": 0.5},
    few={"acc": 1},
    spread={"acc": (0.4, 0.6)},
    left_out={"a": {"count/x": "why"}},
    unread={"a": "why"},
)
GOOD_BEST = {"select": "acc:max", "round": 2, "value": 0.5, "sites": 1}
EVALUATION, REPORTED, FAILED = f"round-0002{OF_SITES}", f"round-0002{REPORTS}", "failed.json"
HUGE = 10**400
WRONG: dict[str, list[Any]] = {
    "run": [5, None],
    "round": ["x", -1, 1.5, HUGE, True],
    "number": ["x", 2**63],
    "model": [5],
    "opened_ms": ["x", 10**30],
    "closed_ms": ["x", 10**30, -(10**30)],
    "expected": [5, [5], "ab"],
    "sites": [5, [], {"s": 5}, {"s": {"metrics": {}}}, {"s": {"examples": HUGE, "metrics": {"acc": 1}}}],
    "missing": [5, {"a\n\x1b[31m": 5}, []],
    "skipped": [5],
    "metrics": [5, {"acc": HUGE}, {"acc": True}, {"acc": "1"}, {"acc": [1]}],
    "few": [5, {"pooled/accuracy": "x"}],
    "reporters": [5, {"acc": 5}],
    "spread": [5, {"acc": 5}, {"acc": [1]}],
    "central": [5, {"examples": "x"}],
    "left_out": [5, {"a": 5}],
    "unread": [5, {"a": []}],
    "subject": [5, {}, {"kind": "x"}, {"kind": "update", "round": "x", "site": "a"}],
    "version": [2, "1", None],
}
FILES: dict[str, list[str]] = {
    EVALUATION: [
        *("", "5", "[]", "{}", "[" * 100_000, "\xff"),
        *(json.dumps({**json.loads(FOUND.to_json()), name: value}) for name in WRONG for value in WRONG[name]),
    ],
    BEST: [
        *("", "5", "[1]", "{" * 100_000),
        *('{"select":"acc:max","round":1e999,"value":1,"sites":1}', '{"select":"acc:max","value":1,"sites":1}'),
        *('{"select":"acc:max","round":1,"value":NaN,"sites":1}', '{"select":"acc","round":1,"value":1,"sites":1}'),
        *('{"select":3,"round":1,"value":1,"sites":1}', '{"select":"acc:max","round":1,"value":null,"sites":1}'),
    ],
    REPORTED: [
        *("", "5", "{}", '{"sites":5,"merged":{}}', '{"sites":{"a":1},"merged":{}}', '{"sites":{}}'),
        *('{"sites":{},"merged":[],"missing":{}}', '{"sites":{},"merged":{},"missing":5}'),
    ],
    RULES: ["", "5", "{}", '{"metrics":5}', '{"metrics":[5]}', '{"metrics":"acc"}', "[" * 100_000],
    FAILED: ["", "5", "[5]", '{"a":1}', '[{"round":1e999}]', '[{"round":{}}]', "[" * 100_000],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of evaluations in a sound result folder."""
    found = tmp_path / FOLDER
    found.mkdir()
    (found / EVALUATION).write_text(FOUND.to_json())
    (found / BEST).write_text(json.dumps(GOOD_BEST))
    (found / RULES).write_text('{"metrics": ["acc"]}')
    (found / REPORTED).write_text(json.dumps({"sites": {"a": {}}, "merged": {}}))
    return found


def shown(folder: Path, *options: str) -> tuple[int, str]:
    """Run `flavor results`; fail for any other end than by itself or by one line."""
    done = CliRunner().invoke(results, [str(folder.parent), *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stderr


def odd_files(path: Path) -> Iterator[Callable[[], object]]:
    yield lambda: os.mkfifo(path)
    yield lambda: path.symlink_to("/etc/passwd")
    yield lambda: path.symlink_to("/dev/zero")
    yield path.mkdir


def test_a_sound_folder_is_shown_and_what_a_later_release_adds_is_not(folder: Path) -> None:
    assert Evaluated.from_json(FOUND.to_json(), "x.json") == FOUND
    assert shown(folder, "--round", "best") == shown(folder) == (0, "")
    (folder / EVALUATION).write_text(json.dumps({**json.loads(FOUND.to_json()), "later": 1}))
    assert shown(folder, "--json") == (0, "")


def test_the_metrics_of_the_run_s_rules_come_first(folder: Path) -> None:
    metrics = {f"m{number}": 0.5 for number in range(9)}
    many = replace(FOUND, sites={"a": SiteMeasures(10, metrics)}, metrics=metrics, few={}, spread={}, left_out={})
    (folder / EVALUATION).write_text(many.to_json())
    (folder / BEST).unlink()
    for rules, first in (('{"metrics": ["m8"]}', "m8"), (None, "m0")):
        (folder / RULES).write_text(rules) if rules else (folder / RULES).unlink()
        done = CliRunner().invoke(results, [str(folder.parent)])
        assert f"SITE EXAMPLES {first} " in " ".join(done.stdout.split())
        assert json.loads(CliRunner().invoke(results, [str(folder.parent), "--json"]).stdout)["metric"] == first


@pytest.mark.parametrize("name", FILES)
def test_what_is_wrong_is_one_line_that_names_the_file(folder: Path, name: str, subtests: Any) -> None:
    path = folder / name
    for text in FILES[name]:
        path.write_text(text, encoding="latin-1")
        with subtests.test(text[:100]):
            code, said = shown(folder)
            assert code == 1
            assert said.startswith(f"Error: {path} ")
            assert (said.count("\n"), len(said) < 1000) == (1, True)


@pytest.mark.parametrize("name", [*FILES, "round-0009-sites.json"])
def test_only_plain_files_are_opened(folder: Path, name: str) -> None:
    path = folder / name
    for make in odd_files(path):
        path.unlink(missing_ok=True)
        make()
        code, said = shown(folder)
        assert (code, f"Error: {path} is " in said, "a plain file is needed" in said) == (1, True, True)


def test_a_damaged_file_of_failed_evaluations_is_written_again(folder: Path) -> None:
    (folder / FAILED).write_text("5")
    with pytest.raises(InvalidRecord):
        failed_in(folder)
    (folder / FAILED).unlink()
    os.mkfifo(folder / FAILED)
    write_failed(folder, [])
    assert selected_in(folder.parent) is not None


def test_the_marks_of_a_folder_are_plain_files_of_the_right_types(tmp_path: Path, subtests: Any) -> None:
    record = {"version": 2, "run": "r", "store": "s", "embedded": True, "federation": {}, "redis_url": ""}
    path = tmp_path / "federation.json"
    for name in ("run", "store", "embedded", "federation", "redis_url"):
        path.write_text(json.dumps({**record, name: 5}))
        with subtests.test(name), pytest.raises(InvalidSetting, match=rf"^{path} cannot be read: its '{name}' is no"):
            Record.of(tmp_path)
    path.write_text(json.dumps(record))
    assert Record.of(tmp_path).run == "r"
    for made, read in ((path, Record.of), (tmp_path / MARK, owner_of)):
        for make in list(odd_files(made))[:3]:
            made.unlink(missing_ok=True)
            make()
            with pytest.raises((InvalidRecord, InvalidSetting), match=f"{made.name} is (a link|no file)"):
                read(tmp_path)


def test_what_sites_have_reported_is_read_of_plain_files(tmp_path: Path) -> None:
    folder = folder_of_round(tmp_path, 1)
    folder.mkdir(parents=True)
    os.mkfifo(folder / "a.json")
    (folder / "b.json").symlink_to("/dev/zero")
    assert kept_infos(folder) == {}
