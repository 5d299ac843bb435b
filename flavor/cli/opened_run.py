"""Opens the run that a command is about: on a Redis server, or in the result folder of `flavor run`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flavor.cli.lacking import naming_recover
from flavor.cli.options import is_of_environment, needed
from flavor.errors import MisuseError, RunNotFound

if TYPE_CHECKING:
    from flavor.bus.connection import Redis
    from flavor.bus.runs import RunStore

PATIENCE_S = 5.0


@dataclass(frozen=True)
class OpenedRun:
    """A run with its server and its store."""

    run: str
    redis: Redis
    url: str = field(repr=False)
    store: str | None
    """The URL of a local run's store; None for other runs, whose settings have it, and for the store of a package."""
    is_left: bool = False
    """Whether the `flavor run` of a local run has ended, so that none of its processes is there."""
    has_own_server: bool = False
    """Whether the server is that of a local run, which no other site reaches."""

    @property
    def runs(self) -> RunStore:
        """The state of the run in Redis."""
        from flavor.bus.runs import RunStore

        return RunStore(self.redis, self.run, self.url)


@contextlib.contextmanager
def opened_run(run: str, redis_url: str | None, *, patience_s: float = PATIENCE_S) -> Iterator[OpenedRun]:
    """Open the run of this name, or of this result folder, whose own server is started for the body if need be.

    A `RunNotFound` of the body names `flavor recover` too, if the store is known and holds the run.
    """
    from flavor.local.record import Record, is_folder, results_in, server_of
    from flavor.store.url import package_scheme

    with contextlib.ExitStack() as stack:
        name, store, runs, embedded = run, None, True, False
        if is_folder(run):
            out = Path(run).absolute()
            record = Record.of(out)
            name, embedded = record.run, record.embedded
            store = None if package_scheme(record.store) else record.store  # then `store_of_run` says what to do
            redis_url = record.server(Path(run), redis_url)
            if embedded:
                redis_url, runs = stack.enter_context(server_of(out))
        if not redis_url:
            _check_named(run)
        redis, url = connected(redis_url, patience_s=patience_s)
        found = OpenedRun(name, redis, url, store, not runs, embedded)
        try:
            with naming_recover(lambda: found.runs, store):
                yield found
        except RunNotFound as error:
            if (inside := results_in(Path(run))) is None:
                raise
            raise RunNotFound(f"{error}; {run} holds result folders: name one of them, such as {inside}") from None


def _check_named(run: str) -> None:
    """Raise `MisuseError`, with a hint, for a name without --redis-url that a folder has which is no result folder."""
    below = Path("flavor-runs") / run
    if below.is_dir():
        raise MisuseError(f"no --redis-url is given for run {run!r}: name its result folder, {below}, or pass one")
    from flavor.local.record import results_in

    if inside := results_in(Path(run)):
        raise MisuseError(f"{run} holds result folders, and is none itself: name one of them, such as {inside}")
    if Path(run).is_dir():
        raise MisuseError(f"{run} is no result folder of `flavor run` (flavor-runs/NAME), and no --redis-url is given")


def connected_to_all(redis_url: str | None, command: str, *, patience_s: float = PATIENCE_S) -> tuple[Redis, str]:
    """Connect for all runs on a server; where none is named, say how `command` shows a local run."""
    from flavor.local.record import results_in

    if not redis_url and (newest := results_in(Path("flavor-runs"))):
        raise MisuseError(
            "no --redis-url is given: pass --redis-url or set FLAVOR_REDIS_URL for all runs on a Redis, or name the "
            f"result folder of a local run: {command} {shlex.quote(str(newest))}"
        )
    return connected(redis_url, patience_s=patience_s)


def connected(
    redis_url: str | None, *, patience_s: float = PATIENCE_S, client_name: str | None = None
) -> tuple[Redis, str]:
    """Connect to the server at `redis_url`, and return the connection and the URL once the server answers."""
    from flavor.bus.connection import connect, wait_for_server

    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    redis = connect(url, patience_s=patience_s, client_name=client_name)
    wait_for_server(redis, url)
    return redis, url


def store_of_run(run: str, config: Mapping[str, Any]) -> str:
    """Return the URL of the store in the settings of a run on Redis, for a command without --store.

    Raises `MisuseError` for the store of a package, whose code a party would choose that can write to Redis, or that
    has made the run's result folder.
    """
    from flavor.store.open import is_installed
    from flavor.store.url import package_scheme

    url = str(config["store"])
    if (scheme := package_scheme(url)) and is_installed(url):
        raise MisuseError(
            f"run {run!r} keeps its objects in a store {scheme + '://'!r}, which a package of this machine would open "
            "and this command has not named: pass --store URL if that is the run's"
        )
    return url


def named_store(run: str, store: str | None) -> tuple[str, str]:
    """Return the name of the run and the URL of its store, for a command that needs no server."""
    from flavor.local.record import Record, is_folder

    if not is_folder(run):
        return run, needed(store, "--store", "FLAVOR_STORE")
    record = Record.of(Path(run).absolute())
    if is_of_environment("store") or not store:
        store = store_of_run(record.run, {"store": record.store})
    return record.run, store
