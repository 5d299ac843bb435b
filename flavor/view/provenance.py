"""The signed records of a run for people who look at it: read once, and on from there, a bounded time in each look."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flavor.errors import FlavorError, RunNotFound
from flavor.ledger.archive import Archive, Listing
from flavor.ledger.audit import audit
from flavor.ledger.chain import Chain, ChainReader, Link, Problem
from flavor.ledger.trust import Trust
from flavor.view.document import Document

MOST_ROUNDS = 200
"""Rounds that are shown, the newest ones."""
_MOST_SITES = 20
"""Contributors that are named of each round."""
_MOST_TOLD = 200
"""Problems, and notices, that are told in words; all are counted."""
_PATIENCE_S = 1.0
"""How long one look reads manifests; the next look goes on."""
_AGAIN_S, _AGAIN_WRONG_S = 600.0, 60.0
"""After so many seconds all is read again, as the store may have changed; sooner where something was wrong."""


class Records:
    """The chain of one run. Keeps of each round what is shown, and no manifest. May be called by several threads."""

    def __init__(self, archive: Archive, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.archive, self._clock = archive, clock
        self._lock = threading.Lock()
        self._listed = 0  # manifests in the last listing
        self._forget()

    def _forget(self) -> None:
        self._reader: ChainReader | None = None
        self._taken: list[int] = []  # the rounds whose manifests were read
        self._began, self._is_complete = self._clock(), False
        self._rows: deque[str] = deque(maxlen=MOST_ROUNDS)  # as JSON, which takes a tenth of the memory
        self._number = self._wrong = self._noticed = 0
        self._problems, self._notices = list[Problem](), list[Problem]()

    def read(self) -> Document:
        """Read on, and return what is known. Raises nothing: `silent` says what the store answers."""
        with self._lock:
            try:
                listing = self.archive.listing_of_records()
                self._listed = len(listing.manifests)
                is_complete = self._read_on(listing)
                missing = self._reader.missing(listing)[0] if is_complete and self._reader is not None else []
                return {**self._known(missing), "is_complete": is_complete}
            except (FlavorError, OSError) as error:
                known = {**self._known([]), "silent": str(error)}
                self._forget()
                return known

    def _read_on(self, listing: Listing) -> bool:
        """Take the next manifests; return whether all are taken."""
        if not listing.paths:
            raise RunNotFound(f"there is no run {self.archive.run!r} in the store {self.archive.store.url}")
        deadline = self._clock() + _PATIENCE_S
        rounds = sorted(listing.manifests)
        is_old = self._clock() - self._began > (_AGAIN_WRONG_S if self._wrong else _AGAIN_S)
        if rounds[: len(self._taken)] != self._taken or (is_old and self._is_complete):
            self._forget()
        if self._reader is None:
            self._reader = ChainReader(self.archive, Listing.of((), ()), Trust())
            self._reader.begin()
            self._take_told()
        reader = self._reader
        for round_ in rounds[len(self._taken) :]:
            before = len(reader.chain.links)
            reader.take(round_)
            self._taken.append(round_)
            wrong = self._take_told()
            for link in reader.chain.links[before:]:
                self._rows.append(json.dumps(_row(link, wrong), separators=(",", ":")))
                self._number += 1
            if reader.chain.links and reader.chain.links[-1].manifest is not None:
                del reader.chain.links[:-1]  # the next one is compared with this one alone
            if self._clock() >= deadline:
                break
        self._is_complete = len(self._taken) == len(rounds)
        return self._is_complete

    def _take_told(self) -> set[int]:
        """Move what the reader tells of the last record here; return the rounds with problems."""
        assert self._reader is not None
        self._reader.tell_signers()
        chain = self._reader.chain
        wrong = {problem.round for problem in chain.problems}
        self._wrong, self._noticed = self._wrong + len(chain.problems), self._noticed + len(chain.notices)
        self._problems = (self._problems + chain.problems)[:_MOST_TOLD]
        self._notices = (self._notices + chain.notices)[:_MOST_TOLD]
        chain.problems.clear()
        chain.notices.clear()
        return wrong

    def _known(self, missing: Sequence[Problem]) -> dict[str, Any]:
        chain = self._reader.chain if self._reader is not None else None
        return {
            **_of_run(chain),
            "chain": [json.loads(row) for row in self._rows],
            "earlier": self._number - len(self._rows),
            **_told([*self._problems, *missing], self._notices),
            "wrong": self._wrong + len(missing),
            "noticed": self._noticed,
            "read": len(self._taken),
            "manifests": max(self._listed, len(self._taken)),
            "is_complete": False,
        }


def verified(archive: Archive) -> Document:
    """Check every object that the records name, and return what is shown of them. Raises nothing, as `Records.read`."""
    try:
        found = audit(archive)
    except (FlavorError, OSError) as error:
        return nothing(str(error))
    chain, wrong = found.chain, {problem.round for problem in found.problems}
    return {
        **_of_run(chain),
        "objects_read": found.checked,
        "bytes_read": found.bytes,
        "verified": True,
        "chain": [_row(link, wrong, found.gone.get(link.round, ())) for link in chain.links[-MOST_ROUNDS:]],
        "earlier": max(0, len(chain.links) - MOST_ROUNDS),
        **_told(found.problems, found.notices),
        "wrong": len(found.problems),
        "noticed": len(found.notices),
        "read": len(chain.manifests),
        "manifests": len(chain.manifests),
        "is_complete": True,
    }


def nothing(silent: str) -> Document:
    """Return the answer where a run's records cannot be read."""
    counts = {"earlier": 0, "read": 0, "manifests": 0}
    return {**_of_run(None), "chain": [], **counts, **_told((), ()), "silent": silent, "is_complete": False}


def _of_run(chain: Chain | None) -> dict[str, Any]:
    return {
        "run": chain.run if chain else None,
        "run_id": chain.record.run_id if chain and chain.record else None,
        "rounds": chain.rounds or None if chain else None,
        "closed": chain.closed if chain else 0,
        "head": chain.head if chain else "",
        "objects_read": None,
        "bytes_read": None,
        "verified": False,
        "silent": "",
    }


def _told(problems: Sequence[Problem], notices: Sequence[Problem]) -> dict[str, Any]:
    return {
        "problems": [dict(vars(each)) for each in problems[:_MOST_TOLD]],
        "notices": [dict(vars(each)) for each in notices[:_MOST_TOLD]],
        "wrong": len(problems),
        "noticed": len(notices),
    }


def _row(link: Link, wrong: Iterable[int], gone: Sequence[str] = ()) -> dict[str, Any]:
    manifest = link.manifest
    contributors = manifest.contributors if manifest is not None else ()
    return {
        "round": link.round,
        "digest": link.digest,
        "verdict": "wrong" if link.round in wrong else "ok",
        "gone": list(gone),
        "closed_ms": manifest.closed_ms if manifest is not None else None,
        "model": manifest.global_model.digest if manifest is not None else "",
        "public_key": manifest.public_key if manifest is not None else "",
        "sites": [each.client for each in contributors[:_MOST_SITES]],
        "contributors": len(contributors),
        "examples": sum(each.num_examples for each in contributors),
    }
