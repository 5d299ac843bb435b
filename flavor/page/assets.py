"""The files of the page, which lie in the folder `static`: as they are, compressed once, and kept by browsers.

The shell, `index.html`, names them below `/static/`. It is given out with `/static/DIGEST/` in its place, where DIGEST
is made of the contents of all files: a browser may keep what it finds there for good, and a new release has other
addresses. Files that name each other by relative paths stay below the same DIGEST.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from flavor.page.answer import refused, takes_gzip

FOLDER = Path(__file__).parent / "static"
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_PREFIX = "/static/"
_LOOK_S = 1.0
"""How long files count as unchanged: anyone can ask for them, without a token too, and a look takes milliseconds."""
_FOR_GOOD, _ASK_AGAIN = "public, max-age=31536000, immutable", "no-cache"


@dataclass(frozen=True)
class _File:
    stamp: tuple[int, int]
    """When it was changed (ns), and its size in bytes: where they are as before, the file is."""
    body: bytes
    packed: bytes | None
    """Compressed; None where that is no shorter."""
    digest: str
    kind: str

    @classmethod
    def of(cls, path: Path, name: str, stamp: tuple[int, int], prefix: str = "") -> _File:
        body = path.read_bytes()
        if prefix:
            body = body.replace(_PREFIX.encode(), prefix.encode())
        packed = gzip.compress(body, 9, mtime=0)
        return cls(
            stamp=stamp,
            body=body,
            packed=packed if len(packed) < len(body) else None,
            digest=hashlib.sha256(body).hexdigest()[:32],
            kind=_KINDS.get(Path(name).suffix, "application/octet-stream"),
        )


class Assets:
    """The files of one folder. A file that is changed there is read again, `_LOOK_S` seconds later at most."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._files: dict[str, _File] = {}
        self._shells: dict[str, tuple[str, _File]] = {}
        self._of_all = ""
        self._looked = 0.0

    @property
    def digest(self) -> str:
        """Made of the names and the contents of all files."""
        with self._lock:
            return self._digest()

    def _digest(self) -> str:
        if self._of_all and time.monotonic() - self._looked < _LOOK_S:
            return self._of_all
        files = {}
        for path in sorted(self._folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                name = path.relative_to(self._folder).as_posix()
                files[name] = self._file(path, name)
        self._files = files
        words = "\n".join(f"{name} {file.digest}" for name, file in files.items())
        self._of_all, self._looked = hashlib.sha256(words.encode()).hexdigest()[:16], time.monotonic()
        return self._of_all

    def _file(self, path: Path, name: str) -> _File:
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        kept = self._files.get(name)
        return kept if kept is not None and kept.stamp == stamp else _File.of(path, name, stamp)

    def shell(self, request: Request, name: str = "index.html", *, status: int = 200) -> Response:
        """Answer with a page whose addresses are those of the files as they are now."""
        with self._lock:
            digest = self._digest()
            made_of, file = self._shells.get(name, ("", None))
            if file is None or made_of != digest:
                file = _File.of(self._folder / name, name, (0, 0), f"{_PREFIX}{digest}/")
                self._shells[name] = (digest, file)
        return _given(request, file, _ASK_AGAIN, status)

    def answer(self, request: Request) -> Response:
        """Answer with the file of a path below `/static/`, with or without a digest in front of its name."""
        name: str = request.path_params["path"]
        with self._lock:
            digest = self._digest()
            first, _, rest = name.partition("/")
            file, lasting = self._files.get(name), _ASK_AGAIN
            if file is None and len(first) == len(digest) and rest:
                file, lasting = self._files.get(rest), _FOR_GOOD if first == digest else _ASK_AGAIN
        if file is None:
            return refused(404, f"the page has no file {name[:100]!r}")
        return _given(request, file, lasting, 200)


def _given(request: Request, file: _File, lasting: str, status: int) -> Response:
    packed = file.packed if takes_gzip(request.headers.get("accept-encoding", "")) else None
    tag = f'"{file.digest}{"-gzip" if packed is not None else ""}"'
    headers = {"etag": tag, "cache-control": lasting, "vary": "accept-encoding"}
    if status == 200 and tag in [each.strip().removeprefix("W/") for each in _tags(request)]:
        return Response(None, 304, headers)
    if packed is not None:
        headers["content-encoding"] = "gzip"
    return Response(file.body if packed is None else packed, status, headers, media_type=file.kind)


def _tags(request: Request) -> list[str]:
    return request.headers.get("if-none-match", "").split(",")
