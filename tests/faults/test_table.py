"""Every row of the table of faults has a test, and the README names it, and every test file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
FIRST = set(range(1, 39))
"""Rows that there must be; every later one in the README's table, too."""


def with_tests() -> dict[int, set[str]]:
    """Row to the tests whose docstring begins with its number: `Row 7: …`, `Rows 15 and 16: …`."""
    found: dict[int, set[str]] = {row: set() for row in FIRST | documented().keys()}
    for path in HERE.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                head = re.match(r"Rows? ([0-9, and]+):", ast.get_docstring(node) or "")
                for number in re.findall(r"[0-9]+", head[1]) if head else ():
                    found.setdefault(int(number), set()).add(f"{path.stem}.{node.name}")
    return found


def documented() -> dict[int, set[str]]:
    """Row to the tests that the README names for it."""
    lines = re.findall(r"^\| ([0-9]+) \|(.*)$", (HERE / "README.md").read_text(), flags=re.MULTILINE)
    return {int(row): set(re.findall(r"`(test_\w+\.test_\w+)`", rest)) for row, rest in lines}


def files() -> dict[str, set[int]]:
    """Test file to the rows that the README says it has tests of."""
    lines = re.findall(r"^\| `(test_\w+)\.py` \|.*\|(.*)\|$", (HERE / "README.md").read_text(), flags=re.MULTILINE)
    return {name: {int(row) for row in re.findall(r"[0-9]+", rows)} for name, rows in lines}


def test_the_readme_names_every_test_file_and_its_rows():
    rows: dict[str, set[int]] = {path.stem: set() for path in HERE.glob("test_*.py")}
    for row, tests in with_tests().items():
        for test in tests:
            rows[test.partition(".")[0]].add(row)
    assert files() == rows


def test_every_row_has_a_test():
    assert not [row for row, tests in with_tests().items() if not tests]


def test_the_readme_names_the_tests_of_every_row():
    assert documented() == with_tests()
