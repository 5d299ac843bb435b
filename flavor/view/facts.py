"""What Redis says of a run at one moment, before anything is made of it. `snapshot_of` makes a snapshot of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from flavor.bus.connection import translated
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.policy.standing import is_genuine
from flavor.records.client import ClientStatus
from flavor.records.pulse import Pulse
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.update import Refused, Update
from flavor.view.evaluations import NONE, KnownEvaluations, read_evaluations

Entry = tuple[str, Mapping[str, str]]
"""An entry of the log: its id and its fields."""
_AT_ONCE = 50
NO_PULSE = Pulse()
LOOKED_BACK = 500
"""How many of the newest entries of the log are searched for what the run waits for, and when clients left."""


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """One member, in the words of its edge."""

    status: ClientStatus
    lease_ms: int = 0
    """When its edge's lease runs out, by the server's clock; 0 for no lease, -1 for one that never ends."""
    pulse: Pulse = NO_PULSE
    update: Update | Refused | None = None
    """What it has handed in for the current round; None also where that is accepted: the verdict has the update."""
    beat_ms: int | None = None
    """When its edge has renewed the lease, as it is shown; None for what the lease tells."""

    def seen_ms(self, lease_s: float) -> int | None:
        """When its edge has renewed the lease last; None for no lease, and for one that never ends."""
        if self.beat_ms is not None:
            return self.beat_ms
        return self.lease_ms - int(lease_s * 1000) if self.lease_ms > 0 else None

    def left_ms(self, now_ms: int) -> int:
        """How many milliseconds the lease has left; -1 for one that never ends."""
        return -1 if self.lease_ms == -1 else max(0, self.lease_ms - now_ms)

    def is_alive(self, now_ms: int, lease_s: float) -> bool:
        """Whether its edge holds its lease. See `is_genuine`."""
        return is_genuine(self.left_ms(now_ms), lease_s)


@dataclass(frozen=True)
class Facts:
    """A run in Redis at one moment."""

    run: RunView
    config: RunConfig
    now_ms: int
    """By the server's clock."""
    round: RoundView | None = None
    """The newest round; None before the first, and for one that Redis no longer has."""
    clients: Mapping[str, ClientFacts] = field(default_factory=dict)
    """The members, sorted by name."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """The number of refused updates in a row, of clients whose last update was refused."""
    is_served: bool = False
    """Whether a coordinator has the run's lease."""
    evaluations: KnownEvaluations = NONE
    log: Iterable[Entry] = ()
    """The newest entries of the run's log, newest first. May be iterated again."""
    refusal: str = ""
    """Why Redis takes no writes, and what to do; '' where it takes writes, as far as it says."""
    is_settling: bool = False
    """Whether Redis was away, or took no writes, until less than a heartbeat timeout ago."""

    @property
    def is_blind(self) -> bool:
        """Whether a lease may be missing only because it could not be renewed."""
        return bool(self.refusal) or self.is_settling


def last_of(pulse: Pulse) -> Pulse:
    """Return what stays true of an edge that is gone: what it has moved."""
    return Pulse(moved=pulse.moved)


def time_of(identity: str) -> int:
    """When an entry was logged, in milliseconds of the server's clock."""
    return int(identity.partition("-")[0])


class LogTail:
    """The newest entries of a run's log, newest first, read when they are asked for, and once."""

    def __init__(self, runs: RunStore, most: int = LOOKED_BACK) -> None:
        self._runs, self._most = runs, most
        self._read: list[Entry] = []
        self._is_whole = False

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries. Raises `BusUnavailable`."""
        at = 0
        while at < self._most:
            if at == len(self._read) and not self._read_more():
                return
            yield self._read[at]
            at += 1

    def _read_more(self) -> bool:
        if self._is_whole:
            return False
        before = f"({self._read[-1][0]}" if self._read else "+"
        with translated(self._runs.where):
            entries = self._runs.redis.xrevrange(self._runs.keys.log, max=before, count=_AT_ONCE)
        self._read += entries
        self._is_whole = len(entries) < _AT_ONCE
        return bool(entries)


def read_facts(runs: RunStore, log: Iterable[Entry] | None = None) -> Facts:
    """Read a run as it is now. Raises `RunNotFound`, `BusUnavailable` and `DamagedRecord`.

    `log` has the newest entries of the run's log, if they were read already.
    """
    view, now_ms = runs.read(), runs.now_ms()
    round_ = runs.read_round(view.round) if view.round else None
    config = RunConfig.known(view.config)
    refusals, found = runs.refusals(), read_clients(runs, runs.members(), view, config, now_ms)
    accepted = round_.accepted if round_ is not None else {}
    awaited = [name for name in round_.expected if name in found and name not in accepted] if round_ is not None else []
    updates = runs.updates(view.round, awaited, since=round_.since if round_ is not None else None)
    clients = {name: replace(each, update=updates[name]) if name in updates else each for name, each in found.items()}
    with translated(runs.where):
        is_served = bool(runs.redis.exists(runs.keys.coordinator))
    return Facts(
        view,
        config,
        now_ms,
        round_,
        clients,
        refusals,
        is_served,
        read_evaluations(runs),
        LogTail(runs) if log is None else log,
    )


def read_clients(
    runs: RunStore,
    names: Iterable[str],
    view: RunView,
    config: RunConfig,
    now_ms: int,
    *,
    leases: Mapping[str, int] | None = None,
) -> dict[str, ClientFacts]:
    """Read these members, without what they have handed in.

    `leases` tells of some of them when their leases run out, in milliseconds by the server's clock: these are not read.
    """
    found, leases = {}, leases or {}
    for name, (status, left_ms, pulse) in runs.clients_and_pulses(names, without_lease=leases.keys()).items():
        lease_ms = leases.get(name, now_ms + left_ms if left_ms > 0 else left_ms)
        client = ClientFacts(status, lease_ms, pulse)
        lives = client.is_alive(now_ms, config.heartbeat_timeout_s) and not view.state.ended
        found[name] = client if lives else replace(client, pulse=last_of(pulse))
    return found
