"""Some processes begin with tests that wait, some with those that compute, and each share ends with quick ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType, SimpleNamespace

import pytest
from order import COMPUTING, HERE, WAITING, ordered

from tests.lazy import Lazy

OTHERS = [f"integration/test_{number}.py" for number in range(4)]
SLOW = [*WAITING, *COMPUTING, *OTHERS]
FILES = [*SLOW, *(f"unit/some/test_{number}.py" for number in range(200 - len(SLOW)))]
"""So many that five shares of them have the same length."""


NO_NAMES: Mapping[str, object] = {}


def session(files: list[str], names: Mapping[str, Mapping[str, object]]) -> list[SimpleNamespace]:
    """Two tests of each file. Some files have `names`."""
    modules = {file: ModuleType(file) for file in files}
    for file, module in modules.items():
        vars(module).update(names.get(file, NO_NAMES))
    return [
        SimpleNamespace(path=HERE / file, number=number, module=modules[file]) for file in files for number in range(2)
    ]


def in_order(files: list[str], processes: int, names: Mapping[str, Mapping[str, object]] | None = None) -> list[str]:
    """The files of the tests, each of which is there once, and those of a file in their order."""
    items = session(files, names or {})
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


def test_quick_tests_that_need_a_slow_library_are_together() -> None:
    quick = [name for name in FILES if name.startswith("unit/")]
    names = {file: {"torch": Lazy("torch")} for file in quick[::40]}
    names |= {file: {"pytest": pytest, "reference": Lazy("sklearn.metrics")} for file in quick[1::80]}
    names[quick[40]] = {"functional": Lazy("torch.optim.sgd"), "given": Lazy("tests.tensors")}
    found = in_order(FILES, 5, names)
    of_slow = [found.index(file) for file in (*quick[1::80], *quick[::40])]
    assert of_slow == [*range(of_slow[0], of_slow[0] + 12, 2)]
    assert of_slow[-1] < len(found) // 5


@pytest.mark.parametrize("processes", [1, 2, 3, 40])
@pytest.mark.parametrize("files", [FILES, OTHERS, [WAITING[3]], []])
def test_no_test_is_lost_with_few_files_or_other_numbers_of_processes(processes: int, files: list[str]) -> None:
    assert sorted(in_order(files, processes)) == sorted([*files, *files])


def test_each_of_the_files_exists_and_is_named_once() -> None:
    names = [*WAITING, *COMPUTING]
    assert all((HERE / name).is_file() for name in names)
    assert len({*names}) == len(names)
