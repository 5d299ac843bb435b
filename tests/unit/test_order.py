"""The longest tests begin first."""

from __future__ import annotations

from types import SimpleNamespace

from order import HERE, LONG, longest_first


def test_files_with_long_tests_come_first_and_the_others_keep_their_order() -> None:
    names = ["compat/test_a.py", LONG[1], "unit/test_b.py", "unit/test_a.py", LONG[0]]
    items = [SimpleNamespace(path=HERE / name) for name in names]
    longest_first(items)  # type: ignore[arg-type]
    assert [str(item.path.relative_to(HERE)) for item in items] == [*LONG[:2], *names[0:1], *names[2:4]]


def test_each_of_them_exists() -> None:
    assert all((HERE / name).is_file() for name in LONG)
