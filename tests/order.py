"""Orders the tests so that no core is idle: some processes of pytest wait while others compute, and all end together.

pytest-xdist gives each process an equal share of the list, from the first test to the last. A process that has done its
share takes tests from the end of the longest one that is left. So:

- Some shares begin with the files whose tests wait most of their time, for a lease, a deadline or a server that is
  away. If all shares did, the cores would be idle at first. If one did, the others would wait for it in the end.
- The other shares begin with the files whose single tests compute for long.
- Each share ends with tests that take milliseconds, so that nothing long is left over.
- Of those, the ones that need a library which takes a second to import (`tests/lazy.py`) are in as few shares as
  possible, because each process would import it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lazy import library_of

HERE = Path(__file__).parent
WAITING = (
    "faults/test_all_in_turn.py",
    "faults/test_bus.py",
    "faults/test_server.py",
    "faults/test_edges.py",
    "faults/test_links.py",
    "faults/test_failpoints.py",
    "faults/test_doors.py",
    "integration/test_pods.py",
    "integration/test_alerts.py",
    "faults/test_own_faults.py",
    "faults/test_back_again.py",
    "faults/test_ledger.py",
    "faults/test_own_evaluator.py",
    "faults/test_store_away.py",
    "integration/test_store_remote.py",
    "integration/test_own_aggregator.py",
    "page/test_real.py",
    "integration/test_extend.py",
    "integration/test_status_watch.py",
    "faults/test_workers.py",
    "integration/test_judging_site.py",
    "faults/test_evaluations.py",
    "integration/test_waiting.py",
    "integration/test_notices.py",
    "faults/test_objects.py",
    "faults/test_reopened.py",
    "view/test_no_writes.py",
    "view/test_board_away.py",
    "integration/test_recover.py",
    "integration/test_quorum.py",
)
"""Those that take the longest first."""
COMPUTING = (
    "integration/test_examples_again.py",
    "integration/test_fedtrain_live.py",
    "integration/test_withheld.py",
    "integration/test_large_checkpoints.py",
    "integration/test_export.py",
    "integration/test_fedtrain_resume.py",
    "integration/test_examples.py",
    "integration/test_how_do_i.py",
    "integration/test_export_evaluations.py",
    "integration/test_fedtrain_http.py",
)
"""Those that have the longest tests."""
QUICK = HERE / "unit"


def ordered(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """Return the tests in the order for so many processes. The tests of one file keep theirs."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(processes)]
    waiting = (processes + 1) // 2
    for names, some in ((WAITING, shares[:waiting]), (COMPUTING, shares[waiting:] or shares)):
        for number, name in enumerate(names):
            some[number % len(some)] += files.pop(HERE / name, [])
    quick = [item for file in [*files] if QUICK in file.parents for item in files.pop(file)]
    libraries = {item.path: library_of(item.module) for item in quick}  # type: ignore[attr-defined]
    quick.sort(key=lambda item: (not libraries[item.path], libraries[item.path]))
    slow = [item for file in files.values() for item in file]
    for share, its_slow, size in zip(shares, _parts(slow, processes), _parts(items, processes), strict=True):
        share.extend(its_slow)
        missing = max(0, len(size) - len(share))
        share.extend(quick[:missing])
        del quick[:missing]
    return [item for share in shares for item in share] + quick


def _parts(items: Sequence[pytest.Item], number: int) -> list[Sequence[pytest.Item]]:
    """Cut the tests into so many parts of nearly equal length, as pytest-xdist does."""
    ends = [0]
    for left in range(number, 0, -1):
        ends.append(ends[-1] + (len(items) - ends[-1]) // left)
    return [items[start:end] for start, end in itertools.pairwise(ends)]
