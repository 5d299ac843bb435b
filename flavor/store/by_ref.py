"""Objects opened and placed as a record names them: the same in every store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flavor.records.objects import ObjectRef


class _Paths(Protocol):
    def local(self, path: str, *, digest: str | None = None, seal: str = "", size_bytes: int | None = None) -> Path: ...

    def fetch(
        self,
        path: str,
        destination: Path,
        *,
        digest: str,
        seal: str = "",
        size_bytes: int | None = None,
        check: Callable[[Path], None] = lambda _: None,
    ) -> None: ...


class ByRef:
    """`ObjectStore.open` and `ObjectStore.place`, for a store that has `local` and `fetch`."""

    def open(self: _Paths, ref: ObjectRef) -> Path:
        """See `ObjectStore`."""
        return self.local(ref.path, digest=ref.digest, seal=ref.seal, size_bytes=ref.size_bytes)

    def place(
        self: _Paths, ref: ObjectRef, destination: Path, *, check: Callable[[Path], None] = lambda _: None
    ) -> None:
        """See `ObjectStore`."""
        self.fetch(ref.path, destination, digest=ref.digest, seal=ref.seal, size_bytes=ref.size_bytes, check=check)
