"""What the page needs to know of runs. `flavor.view.board.Board` has it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from flavor.view.history import History

Document = Mapping[str, Any]
"""Plain values that JSON can hold."""
Patch = tuple[int, Mapping[str, Any]]
"""A version, and the merge patch (RFC 7396) that makes the document of that version of the one before."""


class Source(Protocol):
    """Everything that the page shows, read by one thread, however many pages are open. All methods are thread-safe."""

    def version(self) -> int:
        """The newest version. It grows with each change of a document, of the list of runs, or of `problem`."""

    def wait(self, after_version: int, timeout_s: float) -> int:
        """Return the newest version, once it is greater than `after_version` or the time is over."""

    def problem(self) -> str:
        """Why Redis cannot be read, and since when; '' while it can."""

    def now_ms(self) -> int:
        """The time of the Redis server, in ms since 1970."""

    def read_ms(self) -> int:
        """When Redis was read last, in milliseconds of its clock."""

    def runs(self) -> Sequence[Document]:
        """A row for each run."""

    def document(self, run: str) -> Document:
        """A run as it is. Raises `RunNotFound`."""

    def patches(self, run: str, after_version: int) -> Sequence[Patch] | None:
        """What has changed since, oldest first; None where that is not known any more. '' is the list of runs."""

    def events(
        self, run: str, after_id: str = "", most: int = 500, client: str = "", kinds: Collection[str] = ()
    ) -> Sequence[Document]:
        """The newest entries of the run's log after this one, at most so many, oldest first."""

    def entries(
        self, run: str, *, before: str = "", most: int = 500, client: str = "", kinds: Collection[str] = ()
    ) -> Sequence[Document]:
        """The newest entries of the run's log before this one, at most so many, oldest first."""

    def client(self, run: str, client: str) -> Document:
        """What is known of one client: its rounds, its refusals, and what its site shares of its script's output."""

    def queue(self) -> Document:
        """The queues of flavor's jobs, and the workers that serve them."""

    def settings(self, run: str) -> Document:
        """The settings of a run."""

    def contributions(self, run: str) -> Document:
        """The newest result of `flavor contributions` on a run."""

    def provenance(self, run: str, *, verify: bool = False) -> Document:
        """The signed records of a run's rounds; with `verify` every object that they name is checked."""

    def history(self, run: str) -> History:
        """What has happened in a run, round by round. Raises `RunNotFound`."""
