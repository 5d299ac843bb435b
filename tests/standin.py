"""What a page shows in a test: made-up runs, which the test changes as it likes, in place of a Board and its Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

from flavor.errors import RunNotFound
from flavor.page.source import Patch
from flavor.view.history import History

KEPT = 50
"""How many patches the stand-in keeps, as a Board keeps a bounded number."""


class Standin:
    """A `flavor.page.source.Source`."""

    def __init__(self, **documents: Mapping[str, Any]) -> None:
        self.documents: dict[str, dict[str, Any]] = {name: dict(document) for name, document in documents.items()}
        self.log: dict[str, list[dict[str, Any]]] = {name: [] for name in documents}
        self.patches_of: dict[str, list[Patch]] = {}
        self.histories: dict[str, History] = {}
        self.asked: list[str] = []
        """Documents that were asked for, in order."""
        self.fails: Exception | None = None
        """Raised in place of each answer that is no document."""
        self.removed_ms: dict[str, int] = {}
        self.ahead_ms = 0
        """How far the clock of the server is ahead."""
        self._changed = threading.Condition()
        self._version = 0
        self._problem = ""

    # -- what the test does

    def change(self, run: str, **patch: Any) -> None:
        """Change fields of a run; None takes one away."""
        with self._changed:
            self._version += 1
            for name, value in patch.items():
                if value is None:
                    self.documents[run].pop(name, None)
                else:
                    self.documents[run][name] = value
            for key, found in ((run, patch), ("", {run: patch})):
                self.patches_of[key] = [*self.patches_of.get(key, []), (self._version, found)][-KEPT:]
            self._changed.notify_all()

    def happens(self, run: str, event: str, **fields: Any) -> None:
        with self._changed:
            self._version += 1
            number = len(self.log[run]) + 1
            self.log[run].append({"id": f"{1000 + number}-0", "time_ms": 1000 + number, "event": event, **fields})
            self._changed.notify_all()

    def removes(self, run: str) -> None:
        """Somebody removes a run, or Redis loses it."""
        with self._changed:
            self._version += 1
            del self.documents[run], self.log[run]
            self._changed.notify_all()

    def breaks(self, problem: str) -> None:
        """Redis goes away, or, with '', comes back."""
        with self._changed:
            self._version += 1
            self._problem = problem
            self._changed.notify_all()

    # -- what the page asks

    def version(self) -> int:
        return self._version

    def wait(self, after_version: int, timeout_s: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._version > after_version, timeout_s)
            return self._version

    def problem(self) -> str:
        return self._problem

    def removed(self) -> dict[str, int]:
        return self.removed_ms

    def read_ms(self) -> int:
        return self.now_ms()

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.ahead_ms

    def runs(self) -> Sequence[Mapping[str, Any]]:
        return [deepcopy(document) for document in self.documents.values()]

    def document(self, run: str) -> Mapping[str, Any]:
        self.asked.append(run)
        with self._changed:
            if run not in self.documents:
                raise RunNotFound(f"there is no run {run!r} on this Redis")
            return deepcopy(self.documents[run])

    def patches(self, run: str, after_version: int) -> Sequence[Patch] | None:
        with self._changed:
            if run and run not in self.documents:
                return None
            kept = self.patches_of.get(run, [])
            if len(kept) == KEPT and kept[0][0] > after_version + 1:
                return None
            return [patch for patch in kept if patch[0] > after_version]

    def events(
        self, run: str, after_id: str = "", most: int = 500, client: str = "", kinds: Collection[str] = ()
    ) -> Sequence[Mapping[str, Any]]:
        with self._changed:
            if run not in self.log:
                raise RunNotFound(f"there is no run {run!r} on this Redis")
            return [entry for entry in self.log[run] if _number(entry["id"]) > _number(after_id)][-most:]

    def entries(
        self, run: str, *, before: str = "", most: int = 500, client: str = "", kinds: Collection[str] = ()
    ) -> Sequence[Mapping[str, Any]]:
        self._fail(run)
        found = [
            entry
            for entry in self.log[run]
            if (not before or _number(entry["id"]) < _number(before))
            and (not client or entry.get("client") == client)
            and (not kinds or entry["event"] in kinds)
        ]
        return found[-most:]

    def client(self, run: str, client: str) -> Mapping[str, Any]:
        self._fail(run)
        return {"client": client}

    def queue(self) -> Mapping[str, Any]:
        self._fail()
        return {"queues": []}

    def settings(self, run: str) -> Mapping[str, Any]:
        self._fail(run)
        return {"rounds": 3, "max_update_norm": float("inf"), "secret": "\ud800"}

    def contributions(self, run: str) -> Mapping[str, Any]:
        self._fail(run)
        return {"result": None}

    def provenance(self, run: str, *, verify: bool = False) -> Mapping[str, Any]:
        self._fail(run)
        return {"chain": [], "verified": verify}

    def history(self, run: str) -> History:
        self._fail(run)
        if run not in self.histories:
            raise RunNotFound(f"run {run!r} has no history in this test")
        return self.histories[run]

    def _fail(self, run: str = "") -> None:
        if self.fails is not None:
            raise self.fails
        if run and run not in self.documents:
            raise RunNotFound(f"there is no run {run!r} on this Redis")


def _number(entry: str) -> int:
    return int(entry.partition("-")[0] or 0)
