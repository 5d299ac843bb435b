"""Some processes begin with tests that wait, some with those that compute, and each share ends with quick ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from order import COMPUTING, HERE, WAITING, ordered

OTHERS = [f"integration/test_{number}.py" for number in range(4)]
FILES = [*WAITING, *COMPUTING, *OTHERS, *(f"unit/some/test_{number}.py" for number in range(160))]


def session(files: list[str]) -> list[SimpleNamespace]:
    """Two tests of each file."""
    return [SimpleNamespace(path=HERE / name, number=number) for name in files for number in range(2)]


def in_order(files: list[str], processes: int) -> list[str]:
    """The files of the tests, each of which is there once, and those of a file in their order."""
    items = session(files)
    result = ordered(items, processes)  # type: ignore[arg-type,type-var]
    assert sorted(map(id, result)) == sorted(map(id, items))
    seen: dict[object, int] = {}
    for item in result:
        assert item.number == seen.setdefault(item.path, 0)
        seen[item.path] += 1
    return [str(item.path.relative_to(HERE)) for item in result]


def test_each_share_of_five_begins_with_what_takes_long_and_ends_with_what_is_quick() -> None:
    names = in_order(sorted(FILES), 5)
    size = len(names) // 5
    shares = [names[start : start + size] for start in range(0, len(names), size)]
    assert [share[0] for share in shares] == [*WAITING[:3], *COMPUTING[:2]]
    assert [share[2] for share in shares] == [*WAITING[3:6], *COMPUTING[2:4]]
    assert [sum(name in OTHERS for name in share) for share in shares] == [1, 1, 2, 2, 2]
    for share in shares:
        is_quick = [name.startswith("unit/") for name in share]
        assert is_quick == sorted(is_quick)
        assert is_quick[-1]


@pytest.mark.parametrize("processes", [1, 2, 3, 40])
@pytest.mark.parametrize("files", [FILES, OTHERS, [WAITING[3]], []])
def test_no_test_is_lost_with_few_files_or_other_numbers_of_processes(processes: int, files: list[str]) -> None:
    assert sorted(in_order(files, processes)) == sorted([*files, *files])


def test_each_of_the_files_exists_and_is_named_once() -> None:
    names = [*WAITING, *COMPUTING]
    assert all((HERE / name).is_file() for name in names)
    assert len({*names}) == len(names)
