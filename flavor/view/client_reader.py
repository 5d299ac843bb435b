"""Follows the clients of a run: reads again those that have something new.

What changes how a run stands is read at once. The rest, such as how far a site's script is, is read as far as a credit
goes, and without credit when it has waited for too long (see `flavor.view.turns`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.records.names import count
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.view.facts import ClientFacts, Facts, read_clients
from flavor.view.turns import Turns

_A_SECOND, _A_PUBLICATION, MOST_CREDIT = 5.0, 0.15, 400.0
"""Commands that may be spent: for the time or for what is published, whichever is more.

A publication stands for about 25 commands of the run.
"""
_SETTLED_S = 1.0
_FIRST_CREDIT = 100.0
"""What may be spent at first: everything has just been read."""
_COST = 4.0
"""Commands that reading one client takes, with those in a script."""
_ROUTINE_COST = 3.0
"""The same without a look for its lease: heartbeats tell of it."""
_RESERVE = 10.0
"""What is kept for the next looks."""
_MOST_URGENT = 500
"""Clients that one look reads at any credit, because something about them has changed."""
_LEAST_UPDATES = 1
_BEAT_MS, _BEAT_MS_A_CLIENT = 5000, 20
"""A heartbeat is shown once it is so much newer than the one that is shown; the more clients, the later."""


class Credit:
    """How many commands may be spent: more with time, and with what is published."""

    def __init__(self, most: float = MOST_CREDIT, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._value, self._at = min(most, _FIRST_CREDIT), clock()
        self._earned = 0.0  # by publications since `_at`

    def earn(self) -> None:
        """Something was published."""
        self._earned += _A_PUBLICATION

    def spend(self, commands: float) -> None:
        """Note that commands were sent. The credit does not fall so low that it takes long to rise again."""
        self._value = max(-_COST, self._value - commands)

    @property
    def value(self) -> float:
        """What may be spent now."""
        now = self._clock()
        if now - self._at >= _SETTLED_S:
            self._value = min(self._most, self._value + max((now - self._at) * _A_SECOND, self._earned))
            self._at, self._earned = now, 0.0
        return self._value

    def clients(self) -> int:
        """How many clients may be read now."""
        return max(0, int((self.value - _RESERVE) / _COST))


class ClientReader:
    """What was heard of the clients of one run, and is to be read."""

    def __init__(self, runs: RunStore, credit: Credit, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._runs, self._credit = runs, credit
        self._urgent: dict[str, None] = {}
        self._routine = Turns(clock=clock)
        self._beats: dict[str, int] = {}
        self._updates: dict[str, None] = {}
        self._later: dict[str, int] = {}
        self.is_behind = False
        """Whether something is left unread, because it can wait, or for want of credit."""

    def forget(self) -> None:
        """Everything is read now."""
        for each in (self._urgent, self._beats, self._updates, self._later):
            each.clear()
        self._routine.read_all()
        self.is_behind = False

    def note(self, client: str) -> None:
        """Have a client read, because something about it has changed."""
        self._urgent[client] = None

    def hear(self, client: str, channel: str, *, says: bool, round_: int, now_ms: int) -> bool:
        """Note that a client has published on a channel of its own; returns whether to look soon.

        `round_` is the newest round that is known.
        """
        if channel == "state" and not says:
            self._beats[client] = now_ms
            self._routine.note(client)
            return False
        if channel in ("state", "pulse"):
            (self.note if channel == "state" else self._routine.note)(client)
            return True
        words = channel.split(":")
        number = count(words[1]) if len(words) == 3 and words[2] == "update" else None
        if number is None:
            return False
        self._routine.note(client, is_early=False)  # it has written what it has moved
        if number > round_:
            self._later[client] = max(self._later.get(client, 0), number)
        elif number == round_:
            self._updates[client] = None
        return True

    def read(
        self,
        before: Facts,
        names: Sequence[str],
        view: RunView,
        round_: RoundView | None,
        config: RunConfig,
        now_ms: int,
    ) -> dict[str, ClientFacts]:
        """Return the members with these names, of whom those were read that have something new."""
        accepted = round_.accepted if round_ is not None else {}
        is_new_round = view.round != before.run.round
        clients = {}
        for name in names:
            client = before.clients.get(name)
            if client is None:
                self._urgent[name] = None
            elif client.update is not None and (is_new_round or name in accepted):
                clients[name] = replace(client, update=None)
            else:
                clients[name] = client
        shown_ms = max(_BEAT_MS, _BEAT_MS_A_CLIENT * len(names))
        self._believe_beats(clients, config, shown_ms)
        urgent, routine = self._wanted(clients, frozenset(names), 0 if view.state.ended else now_ms)
        leases = {name: lease_ms for name in routine if (lease_ms := clients[name].lease_ms) > 0}
        read = read_clients(self._runs, [*urgent, *routine], view, config, now_ms, leases=leases)
        for name, client in read.items():
            clients[name] = _with_beat(client, clients.get(name), config, shown_ms)
        again = [name for name in read if (known := before.clients.get(name)) is None or known.update is not None]
        heard = self._wanted_updates(view.round, accepted, is_new_round=is_new_round)
        expected = frozenset(round_.expected if round_ is not None else ())
        if updates := sorted(name for name in {*heard, *again} - accepted.keys() if name in expected):
            found = self._runs.updates(view.round, updates, since=round_.since if round_ is not None else None)
            self._credit.spend(1 + len(updates) * (_COST - 1))
            for name in updates:
                if name in clients:
                    clients[name] = replace(clients[name], update=found.get(name))
        return {name: clients[name] for name in names if name in clients}

    def _believe_beats(self, clients: dict[str, ClientFacts], config: RunConfig, shown_ms: int) -> None:
        """Prolong the leases of clients that were heard; one that had no lease is to be read."""
        lease_ms = int(config.heartbeat_timeout_s * 1000)
        for name, beat_ms in self._beats.items():
            client = clients.get(name)
            if client is None:
                continue
            if client.lease_ms == 0:
                self._urgent[name] = None
            elif client.lease_ms > 0 and beat_ms + lease_ms > client.lease_ms:
                clients[name] = _with_beat(replace(client, lease_ms=beat_ms + lease_ms), client, config, shown_ms)
        self._beats.clear()

    def _wanted(
        self, clients: Mapping[str, ClientFacts], there: frozenset[str], now_ms: int
    ) -> tuple[list[str], list[str]]:
        """Return the clients to read: those of whom it cannot wait; and the others.

        The others are those of whom it has waited for too long, and as many as the credit allows.
        """
        for name, client in clients.items():
            if 0 < client.lease_ms <= now_ms:
                self._urgent[name] = None
        urgent = list(itertools.islice(self._urgent, _MOST_URGENT))
        for name in urgent:
            del self._urgent[name]
        self._routine.read(urgent)
        self._routine.read(routine := self._routine.due(len(clients)))
        self._credit.spend(len(urgent) * _COST + len(routine) * _ROUTINE_COST)
        self._routine.read(early := self._routine.early(self._credit.clients()))
        self._credit.spend(len(early) * _ROUTINE_COST + bool(urgent or routine or early))
        self.is_behind = bool(self._urgent or self._routine)
        return [name for name in urgent if name in there], [name for name in (*routine, *early) if name in there]

    def _wanted_updates(self, round_: int, accepted: Mapping[str, object], *, is_new_round: bool) -> list[str]:
        """Return the clients whose updates of the newest round are to be read."""
        if is_new_round:
            self._updates = {name: None for name, heard in self._later.items() if heard >= round_}
            self._later = {name: heard for name, heard in self._later.items() if heard > round_}
        for name in self._updates.keys() & accepted.keys():
            del self._updates[name]
        wanted = list(itertools.islice(self._updates, max(_LEAST_UPDATES, self._credit.clients())))
        for name in wanted:
            del self._updates[name]
        self.is_behind = self.is_behind or bool(self._updates)
        return wanted


def _with_beat(client: ClientFacts, before: ClientFacts | None, config: RunConfig, shown_ms: int) -> ClientFacts:
    """Return a client that shows the same sign of life as before, unless that is old."""
    seen_ms = replace(client, beat_ms=None).seen_ms(config.heartbeat_timeout_s)
    earlier_ms = before.seen_ms(config.heartbeat_timeout_s) if before is not None and before.lease_ms > 0 else None
    if seen_ms is not None and earlier_ms is not None and earlier_ms <= seen_ms < earlier_ms + shown_ms:
        seen_ms = earlier_ms
    return replace(client, beat_ms=seen_ms)
