"""What a run of the tests says about itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from summary import PACKAGES, told

ROOT = Path(__file__).parents[2]


def test_one_line_says_what_was_skipped_and_how_to_get_it() -> None:
    line = told(["no faketime", "no faketime", "no redis-server"], ["faketime", "redis-server"])
    assert line == (
        "3 tests were skipped: no faketime (2); no redis-server (1). "
        "To run more of them: apt-get install faketime redis-server"
    )
    assert told(["a", "b", "c", "d"], []) == "4 tests were skipped: a (1); b (1); c (1); and 1 more reasons"


def test_ci_installs_what_it_names() -> None:
    wanted = re.findall(r"wanted\+=\((\S+)\)", (ROOT / ".ci" / "run").read_text())
    assert set(wanted) == set(PACKAGES.values())


def test_many_tests_are_a_line_for_each_tenth(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import summary\n"
        "def pytest_configure(config): config.pluginmanager.register(summary.Summary(config))\n"
    )
    (tmp_path / "test_many.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(600))\ndef test_it(n): assert n != 300\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert re.search(r"^   60 of 600 tests after 0:\d\d$", printed, re.MULTILINE)
    assert re.search(r"^  600 of 600 tests after 0:\d\d, 1 failed$", printed, re.MULTILINE)
    assert "....." not in printed
    assert "1 failed, 599 passed" in printed
