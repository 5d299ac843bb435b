"""Walk tensors in blocks: spans of elements, scratch that stays in cache, threads that share the work.

numpy releases the interpreter's lock inside every operation on a block, so threads use all cores. A block is large
enough that taking the lock back costs little beside the operation.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from aggregators.dtypes import Array

T = TypeVar("T")

SCRATCH_BYTES = 32 * 2**20
"""Bytes that the live rows of all threads' blocks may fill together."""

CACHE_BYTES = 8 * 2**20
"""Bytes that the live rows of one thread's block may fill: a share of a third-level cache."""

SHORT_BLOCK = 64 * 1024
"""Fewest elements of a block, even if it then leaves that share of the cache.

Shorter blocks make calls so short that threads wait for each other at the interpreter's lock. See "What was tried" in
benchmarks/README.md.
"""

STREAM_BYTES = 2560 * 1024
"""Bytes that a single live row may fill: each call then reads as much from memory as from a cache."""

SMALLEST_BLOCK = 2048
"""Elements below which the calls cost more than the arithmetic."""

SMALL_ELEMENTS = 256 * 1024
"""Elements of all models together below which starting threads costs more than they save."""


@dataclass(frozen=True, slots=True)
class Span:
    """Elements `start` to `stop` (exclusive) of the flattened tensor `name`."""

    name: str
    start: int
    stop: int


class Scratch:
    """The working memory of one thread: rows that are kept and returned again under the same label."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, np.dtype[Any]], Array] = {}
        self._kept: dict[Hashable, Any] = {}

    def rows(self, label: str, count: int, size: int, dtype: np.dtype[Any]) -> Array:
        """Return an uninitialised C-contiguous array `[count, size]` of `dtype`, reused for each `label`."""
        key = (label, dtype)
        held = self._held.get(key)
        if held is None or held.size < count * size:
            held = self._held[key] = np.empty(count * size, dtype)
        return held[: count * size].reshape(count, size)

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when this thread first asked for `key`, such as views of scratch rows.

        Rows may move when more of them are asked for, so all views of one label must have one size.
        """
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept

    def row(self, label: str, size: int, dtype: np.dtype[Any]) -> Array:
        """Return an uninitialised array `[size]` of `dtype`, reused for each `label`."""
        row: Array = self.rows(label, 1, size, dtype)[0]
        return row


def spans(sizes: Mapping[str, int], block_elems: Mapping[str, int]) -> Iterator[Span]:
    """Cut tensors of `sizes` elements into blocks of `block_elems`, in order; empty ones give none."""
    for name, size in sizes.items():
        step = block_elems[name]
        for start in range(0, size, step):
            yield Span(name, start, min(size, start + step))


def block_size(limit: int, live_rows: int, itemsize: int, threads: int) -> int:
    """Return how many elements a block takes, at most `limit`, with `live_rows` rows in each of `threads` threads."""
    row_bytes = max(1, live_rows) * itemsize
    if live_rows <= 1:
        fitting = STREAM_BYTES // row_bytes
    else:
        share = SCRATCH_BYTES // threads
        fitting = max(min(CACHE_BYTES, share) // row_bytes, min(SHORT_BLOCK, share // row_bytes))
    return max(1, min(limit, max(SMALLEST_BLOCK, fitting // 1024 * 1024)))


def threads_for(elements: int) -> int:
    """Return how many threads share the work on so many elements: one for each core this process may use, or one."""
    if elements < SMALL_ELEMENTS:
        return 1
    # Containers and taskset limit the affinity, not cpu_count; macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(items: Iterable[T], work: Callable[[int, T, Scratch], None], threads: int) -> None:
    """Call `work(index, item, scratch)` for every item, from `threads` threads that take items in order.

    Overflow and invalid operations raise nothing and give inf and NaN. The first exception stops the other threads
    after their current item, and is raised.
    """
    queue = iter(enumerate(items))
    lock = threading.Lock()
    failed = threading.Event()

    def loop() -> None:
        scratch = Scratch()
        with np.errstate(all="ignore"):
            while not failed.is_set():
                with lock:
                    pair = next(queue, None)
                if pair is None:
                    return
                try:
                    work(*pair, scratch)
                except BaseException:
                    failed.set()
                    raise

    if threads <= 1:
        loop()
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="aggregate") as pool:
        futures = [pool.submit(loop) for _ in range(threads)]
    for future in futures:
        future.result()


def ordered_sum(items: Iterable[T], part: Callable[[T, Scratch], Array], shape: tuple[int, ...], threads: int) -> Array:
    """Return the float64 sum of `part(item, scratch)` over all items, added in the order of the items.

    The sum is the same for any number of threads: parts that finish early wait for their turn.
    """
    total = np.zeros(shape, np.float64)
    waiting: dict[int, Array] = {}
    turn = 0
    lock = threading.Lock()

    def work(index: int, item: T, scratch: Scratch) -> None:
        nonlocal turn
        value = part(item, scratch)
        with lock:
            waiting[index] = value
            while turn in waiting:
                np.add(total, waiting.pop(turn), out=total)
                turn += 1

    for_each(items, work, threads)
    return total
