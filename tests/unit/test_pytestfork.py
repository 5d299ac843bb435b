"""The processes of pytest-xdist have the imported test files of the process that they were forked from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}, {str(ROOT)!r}]
import pytestfork

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        pytestfork.fork_workers(config)
"""
TESTS = """
import os
import pytest
IMPORTED_BY = os.getpid()

@pytest.mark.parametrize("number", range(20))
def test_it(number):
    process = "forked" if os.getppid() == IMPORTED_BY else "started"
    print("SEEN", process, os.environ["PYTEST_XDIST_WORKER"], os.environ["XDG_CACHE_HOME"])
    assert number != 7

def test_that_ends_its_process():
    os._exit(3)
"""
BROKEN = {"test_raises.py": "raise ValueError('broken')", "test_warns.py": "import warnings; warnings.warn('careful')"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="all programs start cold")
def test_they_are_forked_and_one_that_takes_the_place_of_another_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLAVOR_TEST_COLD", raising=False)
    for name, text in {"conftest.py": CONFTEST, "test_it.py": TESTS, **BROKEN}.items():
        (tmp_path / name).write_text(text)
    words = ["-p", "no:cacheprovider", "-W", "error", "-n2", "-rA", "--continue-on-collection-errors"]
    command = [sys.executable, "-m", "pytest", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "2 failed, 19 passed, 6 errors" in done.stdout, "the errors come from each process"
    assert "ValueError: broken" in done.stdout
    assert "UserWarning: careful" in done.stdout
    assert re.search(r"worker 'gw[01]' crashed", done.stdout)
    seen = {tuple(words) for words in re.findall(r"^SEEN (\w+) (\w+) (\S+) *$", done.stdout, re.MULTILINE)}
    assert {(process, worker) for process, worker, _ in seen} >= {("forked", "gw0"), ("forked", "gw1")}
    assert {worker for process, worker, _ in seen if process == "started"} <= {"gw2"}
    assert len({cache for process, _, cache in seen if process == "forked"}) == 2
