"""The file in a local run's folder that says enough to look at the run, to read its model, and to go on with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flavor import __version__
from flavor.atomic import write_json
from flavor.bus.append_only_file import check_links
from flavor.bus.connection import connect, shown
from flavor.bus.embedded import embedded_server
from flavor.errors import BusUnavailable, FlavorError, InvalidSetting, RunError
from flavor.locks import locked
from flavor.plain_file import read_plain
from flavor.protocol import here, needs_of, release_of

_FILE = "federation.json"
_VERSION = 2
_SINCE_0_1_0 = ("devices",)
"""Fields of a federation that release 0.1.0 does not know: they are written where they are in use alone."""
_FLAGS = ("--share-names", "--require-signatures")
_ANSWER_S = 10.0
_KINDS = {"run": str, "store": str, "embedded": bool, "federation": dict, "redis_url": str}
"""What the fields of the file are in Python."""


@dataclass(frozen=True)
class Record:
    """`federation.json`: how `flavor run` was called, and where its server and its store are."""

    run: str
    store: str
    embedded: bool
    """Whether the run has a server of its own, whose data lie in the folder."""
    federation: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the `Federation`, for `Federation.of`."""
    redis_url: str = ""
    """URL of the user's Redis on which the run is; '' for a server of its own, and for a URL with secrets or files."""
    release: str = ""
    """The release of flavor that wrote it, where it has anything that release 0.1.0 does not know; else ''."""

    def write(self, out: Path) -> None:
        """Write the file, which only this user can read, because a setting may be a secret."""
        path = out / _FILE
        written = {name: value for name, value in self.__dict__.items() if name != "release"}
        later = {name for name in _SINCE_0_1_0 if self.federation.get(name)}
        written["federation"] = {
            name: value for name, value in self.federation.items() if name in later or name not in _SINCE_0_1_0
        }
        if later or needs_of(self.federation.get("config", {})):
            written["release"] = __version__
        write_json(path, {"version": _VERSION, **written})
        path.chmod(0o600)

    def fields_of(self, out: Path, federation: type[Any]) -> dict[str, Any]:
        """Return the fields of the `Federation`. Raises `InvalidSetting` for one that this release does not know."""
        _check_known(out, self.federation, federation, self.release)
        return dict(self.federation)

    def server(self, out: Path, given: str | None) -> str | None:
        """Return the URL of the run's Redis, which may be `given`; None for a server of its own.

        Raises `InvalidSetting` where the URL is not known.
        """
        if self.embedded:
            return None
        if url := given or self.redis_url:
            return url
        raise InvalidSetting(f"{out}: the run is on a Redis of yours: name it by --redis-url, or set FLAVOR_REDIS_URL")

    @staticmethod
    def is_in(out: Path) -> bool:
        """Whether a folder has a record, readable or not."""
        return (out / _FILE).exists()

    @classmethod
    def of(cls, out: Path) -> Record:
        """Read the record of a folder. Raises `InvalidSetting` where there is none."""
        with told_if_damaged(out):
            try:
                fields = json.loads(read_plain(out / _FILE))
            except FileNotFoundError:
                raise InvalidSetting(
                    f"{out} is no result folder of `flavor run`: it has no {_FILE} (a run's name has no slash)"
                ) from None
            if (version := fields.pop("version")) == 1:
                fields["federation"] = _of_version_1(fields["federation"])
            elif version != _VERSION:
                raise InvalidSetting(f"{out / _FILE} was written by another release of flavor: use that one")
            release = release_of(fields.get("release"))
            _check_known(out, fields, cls, release)
            found = cls(**fields)
            for name, kind in _KINDS.items():
                if not isinstance(getattr(found, name), kind):
                    raise TypeError(f"its {name!r} is no {'text' if kind is str else 'JSON object or truth value'}")
            return found


def _check_known(out: Path, names: Iterable[str], known: type[Any], release: str) -> None:
    """Raise `InvalidSetting` for names in the record of `out` that are no fields of the class `known`.

    `release` is the one that wrote the record; '' where it is not named.
    """
    if unknown := sorted(set(names) - {each.name for each in dataclasses.fields(known)}):
        by = f"flavor {release}" if release else "another release of flavor"
        raise InvalidSetting(
            f"{out / _FILE} was written by {by}, and {here()} does not know what it has: {', '.join(unknown)[:200]}: "
            "use that release"
        )


@contextlib.contextmanager
def told_if_damaged(out: Path) -> Iterator[None]:
    """Raise `InvalidSetting` where what is read within from the record of `out` lacks a field, or has a wrong one."""
    try:
        yield
    except FlavorError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidSetting(f"{out / _FILE} cannot be read: {why}") from None


def recorded_url(url: str | None) -> str:
    """Return what the record keeps of the URL of a user's Redis: nothing of one with a password or other settings."""
    return url if url and url == shown(url) else ""


def _of_version_1(federation: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a record of version 1, which has the run's settings as words of the command line of `flavor serve`."""
    from flavor.config import RunConfig
    from flavor.patterns import with_known
    from flavor.script_settings import parse_settings

    fields = dict(federation)
    words, values = iter(fields.pop("serve_options")), defaultdict[str, list[str]](list)
    for option in words:
        values[option.removeprefix("--").replace("-", "_")].append("" if option in _FLAGS else next(words))
    settings: dict[str, Any] = {name: given[-1] for name, given in values.items() if name not in ("set", "init_model")}
    settings |= {name: True for name in settings if f"--{name.replace('_', '-')}" in _FLAGS}
    settings |= {name: tuple(values[name]) for name in ("keep", "equal")}
    fields["config"] = RunConfig.parse(
        {
            "on_quorum_lost": "wait",  # the default of `flavor serve`
            **settings,
            "rounds": fields.pop("rounds"),
            "statistics": with_known(values["statistics"]),
            "settings": parse_settings(values["set"]),
            "store": fields["store"] or "store",
        }
    ).to_mapping()
    fields["init_model"] = values["init_model"][-1] if values["init_model"] else None
    fields["strip_prefix"] = "--strip-prefix" in fields.pop("edge_options")
    return fields


def is_folder(run: str) -> bool:
    """Whether an argument that names a run is the folder of a local run: a run's name has no slash."""
    return os.sep in run or (Path(run) / _FILE).is_file()


def results_in(folder: Path) -> Path | None:
    """Return the newest result folder of a local run in a folder; None for none, or a folder that cannot be read."""
    with contextlib.suppress(OSError):
        found = [each for each in folder.iterdir() if (each / _FILE).is_file()]
        return max(found, key=lambda each: (each.stat().st_mtime, each), default=None)
    return None


@contextlib.contextmanager
def own_server(folder: Path) -> Iterator[str]:
    """Start a server whose data stay in `folder`, and give its URL.

    Raises `RunError` when another process runs it, and `InvalidSetting` for a folder that holds more than values.
    """
    check_links(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder / "lock") as is_mine:
        if not is_mine:
            raise RunError(
                f"{folder.parent}: another process is at this run now, perhaps a `flavor ui`: wait for it, or stop it"
            )
        with embedded_server(append_only=True, folder=folder) as url:
            (folder / "url").write_text(url, encoding="utf-8")
            try:
                yield url
            finally:
                (folder / "url").unlink(missing_ok=True)


@contextlib.contextmanager
def server_of(out: Path) -> Iterator[tuple[str, bool]]:
    """The URL of a local run's server, and whether it ran already; otherwise one runs as long as the context."""
    folder = out / "redis"
    if not folder.is_dir():
        raise InvalidSetting(f"{out}: what its server kept is not there (redis/)")
    deadline = time.monotonic() + _ANSWER_S
    while True:
        with contextlib.ExitStack() as stack:
            runs = False
            try:
                url = stack.enter_context(own_server(folder))
            except RunError:
                running = _running(folder)
                if running is None and time.monotonic() > deadline:
                    raise
                url, runs = running or "", True
            if url:
                yield url, runs
                return
        time.sleep(0.05)


def is_served(out: Path) -> bool:
    """Whether a process runs the server of this local run. Raises `InvalidSetting` where the folder has links."""
    check_links(out / "redis")
    with locked(out / "redis" / "lock") as is_mine:
        return not is_mine


def _running(folder: Path) -> str | None:
    """The URL of the server that another process runs, as soon as the server answers."""
    with contextlib.suppress(OSError, FlavorError, BusUnavailable):
        url = (folder / "url").read_text(encoding="utf-8")
        if not url.startswith("unix://"):  # the embedded server has no other
            return None
        client = connect(url, patience_s=1.0)
        with contextlib.closing(client):
            client.time()  # PING is refused where its disk is full
        return url
    return None
