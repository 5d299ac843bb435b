"""Leases: a key that expires unless its owner renews it, so that the server's clock says who is alive.

Written without scripting (WATCH, MULTI), because an edge's user may be denied EVAL.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import redis

from flavor.bus.connection import Redis
from flavor.bus.countdown import told_if_silent
from flavor.bus.renewal import Renewal
from flavor.errors import LeaseHeld
from flavor.process_name import own_name

_GONE, _ENDLESS = -2, -1
"""What PTTL says of a key that is not there, and of one that never expires."""


class Lease:
    """Ownership of `key` by this process for `ttl_s` seconds at a time.

    The token names host and process, for people, and ends in a random part that fences: it shows what another process
    wrote under an older token.
    """

    def __init__(
        self,
        client: Redis,
        key: str,
        *,
        ttl_s: float,
        what: str,
        token: str = "",
        announce: str = "",
        advice: str = "stop that one, or choose another name",
    ) -> None:
        self._client, self.key, self.ttl_s, self._what = client, key, ttl_s, what
        self._advice = advice
        self.token = token or f"{own_name()}:{secrets.token_hex(8)}"
        self._renewal = Renewal(client, key, self.token, ttl_ms=int(ttl_s * 1000), announce=announce)

    def try_acquire(self) -> bool:
        """Take the lease if it is free. True also where this process has it already: an answer may have been lost."""
        taken = self._client.set(self.key, self.token, nx=True, px=int(self.ttl_s * 1000))
        return bool(taken) or self._client.get(self.key) == self.token

    def keep(self) -> bool:
        """Extend the lease, or take it again if it lapsed while the server was away; False when another process has it.

        Publishes each extension on the channel `announce`, if there is one.
        """
        return self.renew() or self.try_acquire()

    def acquire(self, *, told: Callable[[str], None]) -> None:
        """Take the lease; wait for the lease of a dead holder to expire.

        Raises `LeaseHeld`, with host and process, where the holder renews the lease during the wait: it is alive. Calls
        `told` once, with a line for the user, before the first wait. A lease that has longer left than this one lasts
        (the server's clock went back) is taken over once its holder has not renewed it for as long as this one lasts.
        """
        pause = threading.Event()
        before: tuple[str, int] | None = None
        waited_s = 0.0
        while not self.try_acquire():
            holder, left_ms = self._client.get(self.key), self._client.pttl(self.key)
            if holder is None or left_ms == _GONE:
                continue
            host, _, rest = holder.partition(":")
            pid = rest.partition(":")[0] or "unknown"
            if left_ms == _ENDLESS:  # no process of this project takes an endless lease
                raise LeaseHeld(f"{self._what} is held without end by {holder!r}: `DEL {self.key}` on Redis frees it")
            is_too_long = left_ms > self.ttl_s * 1000
            if before is None:
                told(
                    f"{self._what} is held by process {pid} on {host}; waiting up to "
                    f"{min(left_ms / 1000, self.ttl_s):.0f} s for a sign of life, and taking over if there is none"
                )
            elif before[0] != holder or left_ms > before[1]:
                raise LeaseHeld(f"{self._what} is already running as process {pid} on {host}: {self._advice}")
            before = (holder, left_ms)
            if is_too_long and waited_s >= self.ttl_s and self._take_over(holder):
                return
            look_s = min(self.ttl_s / 10, left_ms / 1000 + 0.001)
            waited_s += look_s
            pause.wait(look_s)

    def _take_over(self, holder: str) -> bool:
        """Take the lease from this holder; False where it was renewed or changed since."""
        with self._client.pipeline() as step:
            try:
                step.watch(self.key)
                if step.get(self.key) != holder or step.pttl(self.key) <= self.ttl_s * 1000:
                    return False
                step.multi()
                step.set(self.key, self.token, px=int(self.ttl_s * 1000))
                step.execute()
            except redis.exceptions.WatchError:
                return False
        return True

    def renew(self) -> bool:
        """Extend the lease, in one round trip; False where it has expired or another process has it."""
        return self._renewal.renew()

    def release(self) -> None:
        """Give the lease up, if this process still has it."""
        self._renewal.close()
        with self._client.pipeline() as step:
            try:
                step.watch(self.key)
                if step.get(self.key) != self.token:
                    return
                step.multi()
                step.delete(self.key)
                step.execute()
            except redis.exceptions.WatchError:
                return


class Renewable(Protocol):
    """What a `LeaseKeeper` renews: a `Lease`, or the claim on a round."""

    @property
    def ttl_s(self) -> float:
        """Lifetime in seconds, counted from each renewal."""
        ...

    def keep(self) -> bool:
        """Extend the lifetime; False when another process has taken it."""
        ...


class LeaseKeeper:
    """A thread that renews a lease each third of its lifetime, and calls `lost` when the lease is lost.

    `beat` is called after each renewal (an edge publishes its heartbeat there). An unreachable server is not a loss:
    the lease is lost when another process holds it, or when it expired and could not be taken again. After a renewal
    that took so long that this lease and others may have lapsed, `late` is called first. With `where`, the server as
    messages show it, a server that does not answer is reported on stderr.
    """

    def __init__(
        self,
        lease: Renewable,
        *,
        lost: Callable[[], None],
        beat: Callable[[], object] | None = None,
        late: Callable[[], None] | None = None,
        where: str = "",
    ) -> None:
        self._lease, self._lost, self._beat, self._late, self._where = lease, lost, beat, late, where
        self._renewed_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)

    @property
    def overdue(self) -> bool:
        """Whether a renewal is missing: the server or this process stands still, or did until just now.

        While this is True, another lease of the same lifetime may have lapsed for that reason alone.
        """
        return time.monotonic() - self._renewed_at > self._lease.ttl_s / 2

    def start(self) -> None:
        """Start the thread."""
        self._renewed_at = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; the lease itself stays as it is. `beat` may call this, too."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def _keep(self) -> None:
        while not self._stop.wait(self._lease.ttl_s / 3):
            try:
                with told_if_silent(self._where) if self._where else contextlib.nullcontext():
                    is_ours = self._lease.keep()
                if not is_ours:
                    self._lost()
                    return
                if self.overdue and self._late is not None:
                    self._late()
                self._renewed_at = time.monotonic()
                if self._beat is not None:
                    self._beat()
            except (redis.exceptions.RedisError, OSError, RuntimeError, MemoryError):
                continue  # also at a limit of threads or memory the next beat tries again; the server's clock decides


@contextlib.contextmanager
def held(
    lease: Lease, *, lost: Callable[[], None] = lambda: None, beat: Callable[[], object] | None = None
) -> Iterator[Lease]:
    """Renew a lease that was acquired, to the end of the body, and release it then.

    Where another process takes the lease, `lost` is called, and the body's next transition on the server finds out.
    `beat` is as in `LeaseKeeper`.
    """
    keeper = LeaseKeeper(lease, lost=lost, beat=beat)
    keeper.start()
    try:
        yield lease
    finally:
        keeper.stop()
        with contextlib.suppress(Exception):  # the lease runs out by itself
            lease.release()
