"""Compiles what `make test` imports, on all cores, before the processes of pytest-xdist each compile it for themselves.

In a new clone, to rewrite the assertions of all test files and to compile flavor takes 7 s of processor time. To find
the constants that hypothesis tries as values takes 3 s, and to list the characters that it may put into a text 2 s.
Processes of pytest-xdist that start together would each do it.
"""

from __future__ import annotations

import compileall
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).parents[1]
PACKAGES = ("flavor", "workers", "aggregators", "aumai_fedtrain")


def sources() -> list[Path]:
    """All files that this compiles, the largest first."""
    found = [path for folder in (*PACKAGES, "tests") for path in (ROOT / folder).rglob("*.py")]
    return sorted(found, key=lambda path: -path.stat().st_size)


def is_rewritten(path: Path) -> bool:
    """Whether pytest rewrites the assertions of this file."""
    return path.name.startswith("test_") or path.name == "conftest.py"


def compile_(path: Path) -> None:
    """Write the bytecode of a file where the interpreter, or pytest, looks for it."""
    if not is_rewritten(path):
        compileall.compile_file(path, quiet=2)
        return
    from _pytest.assertion import rewrite

    cache = rewrite.get_cache_dir(path)
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / (path.name.removesuffix(".py") + rewrite.PYC_TAIL)
    if rewrite._read_pyc(path, place) is None:
        known, code = rewrite._rewrite_test(path, None)  # type: ignore[arg-type]
        rewrite._write_pyc(SimpleNamespace(trace=print), code, known, place)  # type: ignore[arg-type]


def collect_constants(path: Path) -> None:
    """Have hypothesis keep the constants of a file, in its folder."""
    from hypothesis.internal.constants_ast import constants_from_module

    module = ModuleType(path.stem)
    module.__file__ = str(path)
    constants_from_module(module)


def list_characters() -> None:
    """Have hypothesis keep which characters there are, and which of them UTF-8 has."""
    from hypothesis.internal import charmap

    charmap.charmap()
    charmap.intervals_from_codec("utf-8")


def main(paths: Iterable[Path]) -> None:
    """Compile the files, and leave out what fails: pytest says what is wrong with it."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        characters = pool.submit(list_characters)
        steps = [pool.submit(step, path) for path in paths for step in (compile_, collect_constants)]
        for done in (characters, *steps):
            done.exception()


if __name__ == "__main__":
    if not sys.dont_write_bytecode:
        main(sources())
