"""The house: imports go down the list of rooms alone, no modules import each other in a circle, and no file is long.

What is not so yet stands in the three lists of exceptions. They only shrink: an exception that nothing needs any more
fails here, and is deleted.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("flavor", "workers", "aggregators", "aumai_fedtrain")
MOST_LINES = 400

LEAVES = (
    "flavor",  # the version alone
    "flavor.alive",
    "flavor.atomic",
    "flavor.certs",
    "flavor.disk",
    "flavor.counted",
    "flavor.durations",
    "flavor.errors",
    "flavor.exit_codes",
    "flavor.failpoints",
    "flavor.locks",
    "flavor.option_groups",
    "flavor.outage",
    "flavor.own_machine",
    "flavor.ownfolder",
    "flavor.parent_death",
    "flavor.parts",
    "flavor.patterns",
    "flavor.plain_file",
    "flavor.plugins",
    "flavor.printable",
    "flavor.process_name",
    "flavor.protocol",
    "flavor.proxy",
    "flavor.saved",
    "flavor.say",
    "flavor.send_buffer",
    "flavor.signals",
    "flavor.silence",
    "flavor.sizes",
    "flavor.spawn",
    "flavor.stamp",
    "flavor.tunnel",
    "flavor.watch",
)
FLOORS: tuple[tuple[str, ...], ...] = (
    LEAVES,
    ("flavor.records",),
    ("flavor.checkpoints", "flavor.programs", "flavor.store", "flavor.bus"),
    ("aggregators",),
    (
        "flavor.config",
        "flavor.credits",
        "flavor.ledger",
        "flavor.policy",
        "flavor.results",
        "flavor.resume",
        "flavor.script_settings",
        "flavor.site_settings",
        "flavor.setting",
        "flavor.evaluation_settings",
        "flavor.deadline_settings",
        "flavor.mode_settings",
        "flavor.tensor_settings",
        "flavor.store_settings",
        "flavor.rule_settings",
    ),
    ("flavor.view",),
    ("flavor.coordinator", "flavor.edge", "workers", "flavor.cook", "flavor.gadget"),
    ("flavor.check", "flavor.contributions", "flavor.local", "flavor.demo"),
    ("flavor.metrics", "flavor.notices", "flavor.trackers"),
    ("flavor.page",),
    ("flavor.cli",),
    ("aumai_fedtrain",),
)
"""Rooms, from the ground up. A room imports rooms of lower floors alone, wherever in a file the import stands."""
TOGETHER = (LEAVES, FLOORS[4], FLOORS[7])
"""The floors whose rooms may import each other, in no circle. The rooms of another floor are strangers."""
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

PLANNED: frozenset[str] = frozenset()
"""Rooms that are to come. Delete a room that is there."""
UPWARDS: frozenset[tuple[str, str]] = frozenset()
"""Pairs of rooms of which the first imports the second and should not. Delete a pair with its last import."""
CIRCLES: frozenset[str] = frozenset()
"""Modules that are in a circle of imports. Delete a module as it leaves the circle."""
LONG: frozenset[str] = frozenset()
"""Files of more than `MOST_LINES` lines. Delete a file as it gets shorter."""


def files() -> Mapping[str, Path]:
    """Every module by its name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = files()


def imports_of(source: str, known: Mapping[str, object]) -> Iterator[str]:
    """The modules among those known that this source imports, in functions and under TYPE_CHECKING, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import is absolute"
            module = node.module or ""
            inner = {f"{module}.{alias.name}" for alias in node.names}
            yield from sorted(inner & known.keys())
            if module in known and not inner <= known.keys():
                yield module


@cache
def imports() -> Mapping[str, frozenset[str]]:
    return {name: frozenset(imports_of(path.read_text(), FILES)) - {name} for name, path in FILES.items()}


def room_of(module: str) -> str:
    """The longest name of a room that the module's begins with."""
    if module in FLOOR_OF:
        return module
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
    return next((name for name in names if name in FLOOR_OF and name != "flavor"), "")


def is_upwards(room: str, imported: str) -> bool:
    floor, other = FLOOR_OF[room], FLOOR_OF[imported]
    return other > floor or (other == floor and room != imported and FLOORS[floor] not in TOGETHER)


def circles(graph: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_every_module_is_in_a_room() -> None:
    homeless = sorted(name for name in FILES if not room_of(name))
    assert homeless == [], "put each module into a room, or a new room on a floor of FLOORS"
    there = {room_of(name) for name in FILES}
    assert sorted(FLOOR_OF.keys() - PLANNED - there) == [], "FLOORS names rooms that are not there"
    assert sorted(PLANNED & there) == [], "these rooms are there now: delete them from PLANNED"


def test_imports_go_down() -> None:
    upwards: dict[tuple[str, str], list[str]] = {}
    for name, imported in imports().items():
        for other in imported:
            pair = room_of(name), room_of(other)
            if all(pair) and is_upwards(*pair):
                upwards.setdefault(pair, []).append(f"{name} imports {other}")
    wrong = sorted(line for pair, lines in upwards.items() if pair not in UPWARDS for line in lines)
    assert not wrong, "\n".join(["these imports go up, or into a room of the same floor", *wrong])
    assert sorted(UPWARDS - upwards.keys()) == [], "nothing needs these exceptions any more: delete them from UPWARDS"


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circles(imports())
    new = [circle for circle in found if not CIRCLES.issuperset(circle)]
    assert new == [], "these modules import each other in a circle"
    left = {name for circle in found for name in circle}
    assert sorted(CIRCLES - left) == [], "these are in no circle any more: delete them from CIRCLES"


def test_no_file_is_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES.values()}
    long = {path for path, count in lines.items() if count > MOST_LINES}
    assert sorted(long - LONG) == [], f"these files have more than {MOST_LINES} lines: look for the second noun"
    assert sorted(LONG - long) == [], "these files are short enough now: delete them from LONG"


@pytest.mark.parametrize(
    "source",
    [
        "import flavor.cli.main",
        "from flavor.cli import main",
        "from flavor.cli.main import main",
        "def later():\n    from flavor.cli.main import main",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flavor.cli.main import main",
        "try:\n    pass\nfinally:\n    import json, flavor.cli.main as m",
    ],
)
def test_an_import_is_seen_wherever_it_stands(source: str) -> None:
    assert [*imports_of(source, FILES)] == ["flavor.cli.main"]


def test_what_goes_up_and_what_is_a_circle() -> None:
    assert is_upwards("flavor.store", "flavor.cli")
    assert is_upwards("flavor.store", "flavor.bus")
    assert is_upwards("flavor.edge", "workers")
    assert not is_upwards("flavor.store", "flavor.records")
    assert not is_upwards("flavor.store", "flavor.store")
    assert not is_upwards("flavor.ledger", "flavor.config")
    one = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles({name: frozenset(others) for name, others in one.items()}) == [["a", "b", "c"]]
    assert circles({"a": frozenset({"b"}), "b": frozenset()}) == []


def test_no_two_test_files_have_the_same_name() -> None:
    """pytest collects them by their names alone, and fails where it collects both: a file by itself passes."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
