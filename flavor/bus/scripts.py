"""Load and call the Lua scripts of a run: files of `flavor/bus/lua`, each with the parts that it uses."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import redis as redis_py

from flavor.bus.connection import Redis, shown, translated
from flavor.bus.keys import RunKeys
from flavor.errors import DamagedRecord, IllegalMove, LeaseLost

_LUA = files("flavor.bus") / "lua"
_PARTS = ("log_entry", "caused", "give_tasks", "refuse_spoiled")
"""Files with one function each that other scripts use, because Redis has no modules. A part may use earlier parts."""
LOG_LENGTH = 100_000
"""Approximate number of entries that a run's log keeps, for scripts and for Python."""


def script_text(verb: str) -> str:
    """Return the text of the script `verb`, after the parts that it uses."""
    text = _read(verb)
    for part in reversed(_PARTS):
        if f"{part}(" in text:
            text = _read(part) + text
    return f"local LOG_LENGTH = '{LOG_LENGTH}'\n{text}"


def _read(name: str) -> str:
    return (_LUA / f"{name}.lua").read_text(encoding="utf-8")


def flat(fields: Mapping[str, str]) -> list[str]:
    """Return field, value, field, value, …, as HSET takes them."""
    return [text for pair in fields.items() for text in pair]


class RunScripts:
    """The keys of one run on one server, its log, and the calls of its scripts."""

    def __init__(self, redis: Redis, run: str, url: str = "") -> None:
        self.redis, self.run, self.keys = redis, run, RunKeys(run)
        self.where = shown(url)
        self._scripts: dict[str, tuple[str, str]] = {}  # verb -> its text, and the SHA-1 by which the server knows it

    def hash_at(self, key: str) -> dict[str, str]:
        """Return the fields of the hash at `key`; empty for no key. Raises `DamagedRecord` for another type."""
        with translated(self.where), self.damage_at(key):
            try:
                found: dict[str, str] = self.redis.hgetall(key)
            except redis_py.exceptions.ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                raise DamagedRecord("it is no hash") from None
        return found

    @contextlib.contextmanager
    def damage_at(self, key: str) -> Iterator[None]:
        """Raise `DamagedRecord`, which names the key, for what the body cannot read of it."""
        try:
            yield
        except DamagedRecord as error:
            raise DamagedRecord(
                f"run {self.run!r}: the record {key} on Redis at {self.where} cannot be read: {error}: who administers "
                "the server may have changed it: `flavor recover --replace` rebuilds the run from the store, and "
                "`flavor rm` removes it from Redis"
            ) from None

    def call(self, verb: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Run the script `verb` and return its answer. Raises `BusUnavailable`.

        A server that does not have the script is sent its text, which it keeps. redis-py would send it by SCRIPT LOAD,
        which a managed server may deny, and which a server that restarts has forgotten by the time of the call.
        """
        if verb not in self._scripts:
            text = script_text(verb)
            self._scripts[verb] = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        text, sha = self._scripts[verb]
        with translated(self.where):
            try:
                return self.redis.evalsha(sha, len(keys), *keys, *args)
            except redis_py.exceptions.NoScriptError:
                return self.redis.eval(text, len(keys), *keys, *args)

    def move(self, verb: str, keys: Sequence[str], args: Sequence[str | int]) -> str:
        """Make the transition `verb`; return its detail. Raises `LeaseLost`, `IllegalMove`; nothing changes then."""
        status, detail = self.call(verb, keys, args)
        if status == "lease":
            raise LeaseLost(f"run {self.run!r}: {verb}: the lease is held by {detail or 'another process'}")
        if status == "state":
            raise IllegalMove(f"run {self.run!r}: {verb} is not possible: it is {detail}")
        return str(detail)

    def log(
        self,
        event: str,
        *,
        reason: str,
        client: str = "",
        round_: int | None = None,
        replaces: str = "",
        since_ms: int | None = None,
        is_held: bool = False,
    ) -> str:
        """Append an entry to the run's log; return its id.

        `replaces` is the id of an entry to remove with it, `since_ms` when that began which goes on. `is_held` says
        that the run cannot go on by itself.
        """
        fields = {"event": event, "reason": reason}
        if is_held:
            fields["held"] = "1"
        if since_ms is not None:
            fields["since_ms"] = str(since_ms)
        if client:
            fields["client"] = client
        if round_ is not None:
            fields["round"] = str(round_)
        with translated(self.where):
            if not replaces:
                return str(self.redis.xadd(self.keys.log, fields, maxlen=LOG_LENGTH, approximate=True))
            with self.redis.pipeline() as step:
                step.xadd(self.keys.log, fields, maxlen=LOG_LENGTH, approximate=True).xdel(self.keys.log, replaces)
                return str(step.execute()[0])
