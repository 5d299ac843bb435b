"""A digest computed by a thread while other threads fill the mapped file, so that it costs no time at the end."""

from __future__ import annotations

import hashlib
import mmap
import threading
from collections.abc import Sequence

from flavor.checkpoints.blocks import BLOCK_BYTES, RELEASE_BYTES
from flavor.checkpoints.mapped import release


class TrailingDigest:
    """The SHA-256 of a mapped file whose parts are completed in any order.

    `parts` are names and the offsets where each ends, in file order. A thread hashes every completed part whose
    predecessors are hashed; hashlib releases the GIL. The pages of completed and of hashed parts are released, so that
    a process that fills a large file stays small.
    """

    def __init__(self, mapped: mmap.mmap, parts: Sequence[tuple[str, int]]) -> None:
        self._mapped, self._view = mapped, memoryview(mapped)
        self._size, self._hashed = len(self._view), 0
        self._parts = list(parts)
        begins = (0, *(end for _, end in self._parts))
        self._places = {name: (begin, end) for (name, end), begin in zip(self._parts, begins, strict=False)}
        self._completed: set[str] = set()
        self._all = False
        self._cancelled = False
        self._changed = threading.Condition()
        self._digest = hashlib.sha256()
        self._thread = threading.Thread(target=self._follow, name="digest", daemon=True)
        self._thread.start()

    def completed(self, name: str) -> None:
        """Record that a part is complete: no thread writes to it any more."""
        release(self._mapped, *self._places[name])
        with self._changed:
            self._completed.add(name)
            self._changed.notify()

    def finish(self) -> str:
        """Return the digest (hex) of the whole file; no thread may write to it any more."""
        with self._changed:
            self._all = True
            self._changed.notify()
        self._thread.join()
        if self._hashed < self._size:
            raise RuntimeError("the digest stopped before the end of the file")
        return self._digest.hexdigest()

    def cancel(self) -> None:
        """End without a digest."""
        with self._changed:
            self._cancelled = True
            self._changed.notify()
        self._thread.join()

    def _follow(self) -> None:
        released = 0
        for name, end in [*self._parts, ("", len(self._view))]:
            with self._changed:
                self._changed.wait_for(lambda name=name: self._all or self._cancelled or name in self._completed)  # type: ignore[misc]
            while self._hashed < end and not self._cancelled:
                stop = min(self._hashed + BLOCK_BYTES, end)
                self._digest.update(self._view[self._hashed : stop])
                self._hashed = stop
                if stop - released >= RELEASE_BYTES:
                    release(self._mapped, released, stop)
                    released = stop
        self._view.release()
