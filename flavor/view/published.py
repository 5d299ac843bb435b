"""What a `Board` shows: the newest documents, with the patches that lead to them. Safe to use by many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from flavor.view.document import Document
from flavor.view.patch import Ring, merge_patch

RUNS = ""
"""Stands for the list of runs where the name of a run is expected."""


class Published:
    """The documents of runs, the list of runs, and what keeps both from being newer."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._version = 1
        self._problem = ""
        self._documents: dict[str, Document] = {}
        self._rows: dict[str, Document] = {}
        self._damaged: dict[str, str] = {}
        self._lost: dict[str, str] = {}
        self._rings = {RUNS: Ring(1)}

    # -- for those who look

    @property
    def version(self) -> int:
        """The newest version."""
        with self.changed:
            return self._version

    @property
    def problem(self) -> str:
        """Why nothing newer can be read; '' where it can."""
        with self.changed:
            return self._problem

    def wait(self, after: int, timeout_s: float) -> int:
        """Return the newest version once it is greater than `after`, or the time is over."""
        with self.changed:
            self.changed.wait_for(lambda: self._version > after, timeout_s)
            return self._version

    def patches(self, run: str, after: int) -> list[tuple[int, dict[str, Any]]] | None:
        """Return what has changed in a document since this version; None where that is not known any more."""
        with self.changed:
            ring = self._rings.get(run)
            return ring.after(after) if ring is not None else None

    def rows(self) -> list[Document]:
        """Return the rows of all runs."""
        with self.changed:
            return list(self._rows.values())

    def document(self, run: str) -> Document | None:
        """Return the newest document of a run; None where there is none."""
        with self.changed:
            return self._documents.get(run)

    def damage(self, run: str) -> str:
        """Return why the run's record cannot be read; '' where it can."""
        with self.changed:
            return self._damaged.get(run, "")

    def loss(self, run: str) -> str:
        """Return what to say of a run that Redis has lost; '' for any other."""
        with self.changed:
            return self._lost.get(run, "")

    # -- for the reader

    def put(self, run: str, document: Document, row: Document, *, is_news: bool = False) -> None:
        """Publish a run as it is now. `is_news` says that there is something new beside the document."""
        with self.changed:
            before = self._documents.get(run)
            patch = merge_patch(before, document) if before is not None else {}
            of_rows = self._row_patch(run, row)
            self._damaged.pop(run, None)
            self._lost.pop(run, None)
            if before is not None and not patch and not of_rows and not is_news:
                return
            self._version += 1
            if before is None:
                self._rings[run] = Ring(self._version)
            elif patch:
                self._rings[run].add(self._version, patch)
            self._documents[run] = document if before is None or patch else before
            self._put_row(run, row, of_rows)
            self.changed.notify_all()

    def put_damaged(self, run: str, row: Document, reason: str) -> None:
        """Publish that a run's record cannot be read, and why."""
        self._put_reason(self._damaged, run, row, reason)

    def put_lost(self, run: str, reason: str, of: Callable[[Document, str], Document]) -> None:
        """Publish that Redis has lost a run, with what `of` makes of its row; nothing where it had none."""
        if (row := self._row(run)) is not None:
            self._put_reason(self._lost, run, of(row, reason), reason)

    def _put_reason(self, reasons: dict[str, str], run: str, row: Document, reason: str) -> None:
        with self.changed:
            if reasons.get(run) == reason:
                return
            self._version += 1
            for each in (self._documents, self._rings, self._damaged, self._lost):
                each.pop(run, None)
            reasons[run] = reason
            self._put_row(run, row, self._row_patch(run, row))
            self.changed.notify_all()

    def _row(self, run: str) -> Document | None:
        with self.changed:
            return self._rows.get(run)

    def drop(self, run: str) -> None:
        """Publish that there is no such run any more."""
        with self.changed:
            known = run in self._rows or run in self._damaged
            for each in (self._documents, self._rows, self._damaged, self._lost, self._rings):
                each.pop(run, None)
            if known:
                self._version += 1
                self._rings[RUNS].add(self._version, {run: None})
                self.changed.notify_all()

    def tell(self, problem: str) -> None:
        """Publish what keeps the reader from reading; '' for nothing."""
        with self.changed:
            if problem != self._problem:
                self._problem = problem
                self._version += 1
                self.changed.notify_all()

    def wake(self) -> None:
        """Have those who wait look again."""
        with self.changed:
            self._version += 1
            self.changed.notify_all()

    def _row_patch(self, run: str, row: Document) -> Document:
        before = self._rows.get(run)
        return row if before is None else merge_patch(before, row)

    def _put_row(self, run: str, row: Document, patch: Document) -> None:
        if patch:
            self._rows[run] = row
            self._rings[RUNS].add(self._version, {run: patch})
