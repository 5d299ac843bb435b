"""What is compiled before the tests is what pytest, and the interpreter, read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from _pytest.assertion import rewrite
from hypothesis.internal import charmap

from tests.precompile import compile_, is_rewritten, list_characters, sources


def test_pytest_reads_the_rewritten_assertions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "test_it.py").write_text("def test_it():\n    assert 1 == 2\n")
    compile_(path)
    (place,) = (tmp_path / "__pycache__").iterdir()
    assert place.name == f"test_it{rewrite.PYC_TAIL}"

    def rewritten(*arguments: object) -> None:
        raise AssertionError("pytest rewrites it once more")

    code = rewrite._read_pyc(path, place)
    assert code is not None
    assert "@pytest_ar" in code.co_names
    monkeypatch.setattr(rewrite, "_rewrite_test", rewritten)
    compile_(path)
    path.write_text("def test_it():\n    assert 1 == 3\n")
    with pytest.raises(AssertionError, match="once more"):
        compile_(path)


def test_the_interpreter_reads_the_rest(tmp_path: Path) -> None:
    (path := tmp_path / "it.py").write_text("x = 1\n")
    compile_(path)
    assert Path(importlib.util.cache_from_source(str(path))).is_file()


def test_all_that_the_tests_import_is_among_it() -> None:
    names = {path.name for path in sources()}
    assert {"test_precompile.py", "conftest.py", "warm.py", "serving.py", "fork_server.py"} <= names
    assert is_rewritten(Path("tests/conftest.py"))


def test_hypothesis_need_not_find_the_characters_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    list_characters()
    monkeypatch.setattr(charmap, "_charmap", None)
    monkeypatch.setattr(charmap, "chr", None, raising=False)  # it would look at each of a million
    assert charmap.charmap()["Lu"][0] == (65, 90)
    encodable, _ = charmap.intervals_from_codec("utf-8")
    assert 0xD800 not in encodable, "a surrogate"
