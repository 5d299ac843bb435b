"""Scenarios that mostly wait: they run one after another beside the tests, and their own tests come last.

A scenario is a function of a factory of benches and a folder of its own. It raises what its test is to raise.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from pathlib import Path
from typing import Any

Scenario = Callable[[Callable[[str], Any], Path], None]
LONGEST_S = 110.0
"""Below the time that a test may take."""


class Meanwhile:
    """The scenarios that were begun."""

    def __init__(self, bench_class: type, folder: Callable[[str], Path]) -> None:
        self._bench_class, self._folder = bench_class, folder
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="meanwhile")
        self._begun: dict[Scenario, concurrent.futures.Future[None]] = {}

    def begin(self, scenario: Scenario) -> None:
        self._begun[scenario] = self._pool.submit(self._run, scenario, self._folder(scenario.__name__))

    def _run(self, scenario: Scenario, folder: Path) -> None:
        places: list[Any] = []

        def bench(url: str) -> Any:
            (folder / "bench").mkdir()
            places.append(self._bench_class(url, folder / "bench"))
            return places[-1]

        try:
            scenario(bench, folder)
        finally:
            for place in places:
                place.close()

    def outcome(self, scenario: Scenario) -> None:
        """Wait for its end, and raise what it raised."""
        self._begun[scenario].result(LONGEST_S)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
