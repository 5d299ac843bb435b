"""Follows a run in Redis: reads again only what has changed, so that a look costs what is new.

A subscription tells what has changed (`hear`), and the run's log tells the rest. Heartbeats, and what clients write
without a publication, are read as far as the credit goes, which grows with time and with what is published: so the
commands of the reader stay a small part of those of the run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import redis

from flavor.bus.connection import translated
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.records.damage import field_of, number
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.view.facts import ClientFacts, Entry, Facts, read_clients, read_facts
from flavor.view.run_log import RunLog

_ANEW = frozenset({"run.resumed", "run.recovered", "round.reopened", "round.returned", "round.structure"})
"""Events after which everything is read: they change what no publication tells."""
_CREDIT_A_SECOND, _CREDIT_A_PUBLICATION, MOST_CREDIT = 20.0, 0.15, 400.0
"""Commands to spend on clients. A publication stands for about 20 commands of the run, or more."""
_COST_OF_LOOK, _COST_OF_CLIENT = 8.0, 5.0
_MOST_URGENT = 500
"""Clients that one look reads at any credit, because something about them has changed."""
_LEAST_UPDATES = 2
_BEAT_MS, _BEAT_MS_A_CLIENT = 5000, 20
"""A heartbeat is shown once it is so much newer than the one that is shown; the more clients, the later."""


class FactsReader:
    """Reads the facts of one run. One thread may use it."""

    def __init__(
        self,
        runs: RunStore,
        log: RunLog,
        *,
        clock: Callable[[], float] = time.monotonic,
        credit: float = MOST_CREDIT,
    ) -> None:
        self._runs, self._log, self._clock = runs, log, clock
        self._facts: Facts | None = None
        self._run_fields: Mapping[str, str] = {}
        self._round_fields: Mapping[str, str] = {}
        self._urgent: dict[str, None] = {}
        self._routine: dict[str, None] = {}
        self._beats: dict[str, int] = {}
        self._updates: dict[str, None] = {}
        self._later: dict[str, int] = {}
        self._verdicts: set[str] = set()
        self._most_credit = self._credit = credit
        self._credited_at = clock()
        self._offset_ms = 0
        self.is_behind = False
        """Whether the last look has left something unread for want of credit."""

    @property
    def now_ms(self) -> int:
        """The time of the server's clock, as it was measured last."""
        return int(self._clock() * 1000) + self._offset_ms

    @property
    def next_ms(self) -> int | None:
        """When the next lease runs out unless its edge renews it, by the server's clock; None for no lease."""
        facts = self._facts
        if facts is None or facts.run.state.ended:
            return None
        return min((client.lease_ms for client in facts.clients.values() if client.lease_ms > 0), default=None)

    def hear(self, channel: str, *, says: bool) -> bool:
        """Note that something was published on a channel of the run; returns whether to look soon.

        `channel` lacks what names the run. `says` is whether a content was published: a heartbeat has none.
        """
        self._credit += _CREDIT_A_PUBLICATION
        head, _, rest = channel.partition(":")
        if head not in ("client", "to"):
            return True
        client, _, what = rest.partition(":")
        if head == "to":  # no site writes there
            self._verdicts.add(client)
            return True
        if self._facts is None or client not in self._facts.clients:
            return says and what == "state"
        if what == "state" and not says:
            self._beats[client] = self.now_ms
            self._routine[client] = None
            return False
        if what in ("state", "pulse"):
            (self._urgent if what == "state" else self._routine)[client] = None
            return True
        _, _, of_round = what.partition("round:")
        round_, _, what = of_round.partition(":")
        if not (round_.isascii() and round_.isdigit() and len(round_) < 10):
            return False
        if what == "update" and int(round_) > self._facts.run.round:
            self._later[client] = max(self._later.get(client, 0), int(round_))
        elif what == "update" and int(round_) == self._facts.run.round:
            self._updates[client] = None
        return True

    def look(self, *, anew: bool = False) -> tuple[Facts, list[Entry]]:
        """Read what has changed; returns the facts, and the new entries of the log.

        `anew` reads everything. Raises `RunNotFound`, `BusUnavailable` and `DamagedRecord`; the next look reads
        everything then.
        """
        before, self._facts = self._facts, None
        entries = self._log.load() if anew or before is None else self._log.read_on()
        self._earn()
        if before is not None and not anew and not any(fields.get("event") in _ANEW for _, fields in entries):
            self._note(entries, before)
            self._facts = self._look_on(before)
        if self._facts is None:
            self._facts = self._read_all()
            if before is not None and self._facts.run.incarnation != before.run.incarnation:
                entries = self._log.load()
        return self._facts, entries

    def _read_all(self) -> Facts:
        for each in (self._urgent, self._routine, self._beats, self._updates, self._later):
            each.clear()
        self._verdicts.clear()
        facts = read_facts(self._runs, self._log)
        self._run_fields, self._round_fields, self.is_behind = {}, {}, False
        self._offset_ms = facts.now_ms - int(self._clock() * 1000)
        return facts

    def _note(self, entries: Iterable[Entry], before: Facts) -> None:
        """Note the clients that the log tells of."""
        for _, fields in entries:
            client = fields.get("client", "")
            if client in before.clients and fields.get("event", "").startswith("client."):
                self._urgent[client] = None

    def _earn(self) -> None:
        now = self._clock()
        earned = (now - self._credited_at) * _CREDIT_A_SECOND - _COST_OF_LOOK
        self._credit = min(self._most_credit, max(0.0, self._credit + earned))
        self._credited_at = now

    def _look_on(self, before: Facts) -> Facts | None:
        """Read what has changed since; None where everything is to be read."""
        keys, round_number = self._runs.keys, before.run.round
        try:
            with self._runs.redis.pipeline(transaction=False) as reads:
                reads.time().hgetall(keys.state).hgetall(keys.round(round_number)).hgetall(keys.refusals)
                reads.exists(keys.coordinator).scard(keys.members)
                with translated(self._runs.where):
                    (seconds, micros), run_fields, round_fields, refusals, served, members = reads.execute()
        except Exception as error:
            if isinstance(error.__cause__, redis.exceptions.ResponseError):
                return None  # to read everything tells which record is damaged
            raise
        if not run_fields:
            return None
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        self._offset_ms = now_ms - int(self._clock() * 1000)
        view, config = before.run, before.config
        if run_fields != self._run_fields:
            with self._runs.damage_at(keys.state):
                view = RunView.from_hash(self._runs.run, run_fields)
            config = config if view.config == before.run.config else RunConfig.known(view.config)
        if view.incarnation != before.run.incarnation or view.state.ended != before.run.state.ended:
            return None
        with self._runs.damage_at(keys.refusals):
            counts = {client: field_of(refusals, client, number) for client in refusals}
        if view.round != round_number:
            round_, round_fields = self._new_round(view.round)
        else:
            round_ = self._same_round(before.round, round_number, round_fields)
        names = list(before.clients) if members == len(before.clients) else self._runs.members()
        clients = self._clients(before, names, view, round_, config, now_ms)
        self._run_fields, self._round_fields = run_fields, round_fields
        return Facts(view, config, now_ms, round_, clients, counts, bool(served), self._log)

    def _new_round(self, round_: int) -> tuple[RoundView | None, Mapping[str, str]]:
        self._verdicts.clear()
        fields, verdicts = self._runs.read_round_fields(round_) if round_ else ({}, {})
        with self._runs.damage_at(self._runs.keys.round(round_)):
            return RoundView.from_hash(round_, fields, verdicts) if fields else None, fields

    def _same_round(self, known: RoundView | None, round_: int, fields: Mapping[str, str]) -> RoundView | None:
        """Return the newest round, with the verdicts that were published since."""
        if not fields or known is None:
            return self._new_round(round_)[0] if fields else None
        heard, self._verdicts = sorted(self._verdicts), set()
        found = self._runs.verdicts(round_, heard)
        if fields != self._round_fields:
            with self._runs.damage_at(self._runs.keys.round(round_)):
                known = replace(RoundView.from_hash(round_, fields, {}), verdicts=known.verdicts)
        if not heard:
            return known
        kept = {client: verdict for client, verdict in known.verdicts.items() if client not in heard}
        return replace(known, verdicts=kept | found)

    def _clients(
        self, before: Facts, names: list[str], view: RunView, round_: RoundView | None, config: RunConfig, now_ms: int
    ) -> Mapping[str, ClientFacts]:
        """Return the members, of whom those were read that have something new."""
        accepted = round_.accepted if round_ is not None else {}
        is_new_round = view.round != before.run.round
        clients = {}
        for name in names:
            client = before.clients.get(name)
            if client is not None and client.update is not None and (is_new_round or name in accepted):
                client = replace(client, update=None)
            if client is not None:
                clients[name] = client
            elif name not in before.clients:
                self._urgent[name] = None
        self._believe_beats(clients, config)
        wanted = self._wanted(clients, names, now_ms, is_over=view.state.ended)
        read = read_clients(self._runs, wanted, view, config, now_ms)
        shown_ms = max(_BEAT_MS, _BEAT_MS_A_CLIENT * len(names))
        for name, client in read.items():
            clients[name] = _with_beat(client, clients.get(name), config, shown_ms)
        expected = round_.expected if round_ is not None else ()
        again = [name for name in read if (known := before.clients.get(name)) is not None and known.update is not None]
        heard = self._wanted_updates(view.round, is_new_round=is_new_round)
        updates = [name for name in (*heard, *again) if name not in accepted]
        if is_there := frozenset(expected).intersection(updates, clients):
            found = self._runs.updates(view.round, sorted(is_there))
            clients |= {name: replace(clients[name], update=found.get(name)) for name in is_there}
        return {name: clients[name] for name in names if name in clients}

    def _believe_beats(self, clients: dict[str, ClientFacts], config: RunConfig) -> None:
        """Prolong the leases of clients that were heard; one that had no lease is to be read."""
        lease_ms = int(config.heartbeat_timeout_s * 1000)
        shown_ms = max(_BEAT_MS, _BEAT_MS_A_CLIENT * len(clients))
        for name, beat_ms in self._beats.items():
            client = clients.get(name)
            if client is None:
                continue
            if client.lease_ms == 0:
                self._urgent[name] = None
            elif client.lease_ms > 0 and beat_ms + lease_ms > client.lease_ms:
                clients[name] = _with_beat(replace(client, lease_ms=beat_ms + lease_ms), client, config, shown_ms)
        self._beats.clear()

    def _wanted(self, clients: Mapping[str, ClientFacts], names: list[str], now_ms: int, *, is_over: bool) -> list[str]:
        """Return the clients to read: those with something new, and as many others as the credit allows."""
        there = frozenset(names)
        if not is_over:
            for name, client in clients.items():
                if 0 < client.lease_ms <= now_ms:
                    self._urgent[name] = None
        urgent = [name for name in itertools.islice(self._urgent, _MOST_URGENT) if name in there]
        for name in list(itertools.islice(self._urgent, _MOST_URGENT)):
            del self._urgent[name]
            self._routine.pop(name, None)
        self._credit = max(0.0, self._credit - len(urgent) * _COST_OF_CLIENT)
        most = int(self._credit / _COST_OF_CLIENT)
        routine = list(itertools.islice(self._routine, most))
        for name in routine:
            del self._routine[name]
        self._credit -= len(routine) * _COST_OF_CLIENT
        self.is_behind = bool(self._urgent or self._routine)
        return [*urgent, *(name for name in routine if name in there)]

    def _wanted_updates(self, round_: int, *, is_new_round: bool) -> list[str]:
        """Return the clients whose updates of the newest round are to be read."""
        if is_new_round:
            self._updates = {name: None for name, heard in self._later.items() if heard >= round_}
            self._later = {name: heard for name, heard in self._later.items() if heard > round_}
        most = max(_LEAST_UPDATES, int(self._credit / _COST_OF_CLIENT))
        wanted = list(itertools.islice(self._updates, most))
        for name in wanted:
            del self._updates[name]
        self._credit = max(0.0, self._credit - len(wanted) * _COST_OF_CLIENT)
        self.is_behind = self.is_behind or bool(self._updates)
        return wanted


def _with_beat(client: ClientFacts, before: ClientFacts | None, config: RunConfig, shown_ms: int) -> ClientFacts:
    """Return a client that shows the same sign of life as before, unless that is old."""
    seen_ms = replace(client, beat_ms=None).seen_ms(config.heartbeat_timeout_s)
    earlier_ms = before.seen_ms(config.heartbeat_timeout_s) if before is not None and before.lease_ms > 0 else None
    if seen_ms is not None and earlier_ms is not None and earlier_ms <= seen_ms < earlier_ms + shown_ms:
        seen_ms = earlier_ms
    return replace(client, beat_ms=seen_ms)
