"""Follows a run in Redis: reads again only what has changed, so that a look costs what is new.

A subscription tells what has changed (`FactsReader.hear`), and the run's log tells the rest. What neither tells is read
every few seconds. `Credit` keeps the commands of the reader a small part of those of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import redis

from flavor.bus.connection import translated
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import BusUnavailable
from flavor.records.damage import field_of
from flavor.records.names import count
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.verdict import Verdict
from flavor.view.client_reader import MOST_CREDIT, ClientReader, Credit
from flavor.view.evaluations_reader import EvaluationsReader
from flavor.view.facts import Entry, Facts, read_facts
from flavor.view.run_log import RunLog

WHOLE_S = 4.0
"""After so many seconds, a look also reads what nothing announces."""
_ANEW = frozenset({"run.resumed", "run.recovered", "round.reopened", "round.returned", "round.structure"})
"""Events after which everything is read: they change what no publication tells."""


_ALL = frozenset({"time", "run", "served", "members", "round", "refusals"})
"""What may be old of a run: the time, its hash, its coordinator's lease, its members, its newest round, and so on."""


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
        self._credit = Credit(credit, clock=clock)
        self._clients = ClientReader(runs, self._credit, clock=clock)
        self._evaluations = EvaluationsReader(runs, self._credit)
        self._facts: Facts | None = None
        self._run_fields: Mapping[str, str] = {}
        self._round_fields: Mapping[str, str] = {}
        self._verdicts: set[str] = set()
        self._old: set[str] = set()
        self._whole_at = -WHOLE_S
        self._offset_ms = 0

    @property
    def is_behind(self) -> bool:
        """Whether the last look has left something unread for want of credit."""
        return self._clients.is_behind or self._evaluations.is_behind

    @property
    def is_poor(self) -> bool:
        """Whether looks are to be rarer, because their commands are more than a small part of those of the run."""
        return self._credit.value <= 0

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
        self._credit.earn()
        head, _, rest = channel.partition(":")
        client, _, what = rest.partition(":")
        if ":evaluation:" in channel:
            if head == "to":  # tells the site, and the log tells everybody
                return False
            if head == "client":
                self._evaluations.hear(client, what)
        elif head == "run":
            self._old |= {"run", "served"}
        elif head == "round":
            self._old.add("round")
        elif head == "to":  # no site writes there
            self._verdicts.add(client)
        elif self._facts is not None and client in self._facts.clients:
            known = self._facts.run.round
            return self._clients.hear(client, what, says=says, round_=known, now_ms=self.now_ms)
        elif says and what == "state":
            self._old.add("members")
        else:
            return False
        return True

    def look(self, *, anew: bool = False) -> tuple[Facts, list[Entry]]:
        """Read what has changed; returns the facts, and the new entries of the log.

        `anew` reads everything. Raises `RunNotFound`, `BusUnavailable` and `DamagedRecord`; the next look reads
        everything then.
        """
        before, self._facts = self._facts, None
        entries = self._log.load() if anew or before is None else self._log.read_on()
        self._credit.spend(1)
        if before is not None and not anew and not any(fields.get("event") in _ANEW for _, fields in entries):
            self._facts = self._look_on(before, entries)
        if self._facts is None:
            self._facts = self._read_all()
            if before is not None and self._facts.run.incarnation != before.run.incarnation:
                self._log.load()
                entries = list(self._log)[::-1]  # all that the log has is of the new run
        return self._facts, entries

    def _read_all(self) -> Facts:
        self._clients.forget()
        self._verdicts.clear()
        self._old = set()
        self._evaluations.forget()
        facts = read_facts(self._runs, self._log)
        self._run_fields, self._round_fields = {}, {}
        self._offset_ms = facts.now_ms - int(self._clock() * 1000)
        return facts

    def _look_on(self, before: Facts, entries: Iterable[Entry]) -> Facts | None:
        """Read what has changed since; None where everything is to be read."""
        number, has_verdicts = self._take_in(before, entries), bool(self._verdicts)
        if self._clock() - self._whole_at >= WHOLE_S:
            self._old |= _ALL
            self._evaluations.is_behind |= bool(before.evaluations.open)
        is_new = number != before.run.round or before.round is None
        found = self._read(number, is_new=is_new, is_opened=is_new and _tells_all(entries, number))
        if found is None or found.get("run") == {}:
            return None
        if "time" in found:
            self._whole_at, (seconds, micros) = self._clock(), found["time"]
            self._offset_ms = int(seconds) * 1000 + int(micros) // 1000 - int(self._clock() * 1000)
        view, config, run_fields = before.run, before.config, found.get("run", self._run_fields)
        if run_fields != self._run_fields:
            with self._runs.damage_at(self._runs.keys.state):
                view = RunView.from_hash(self._runs.run, run_fields)
            config = config if view.config == before.run.config else RunConfig.known(view.config)
        if view.incarnation != before.run.incarnation or view.state.ended != before.run.state.ended:
            return None
        round_, round_fields, news = self._round_of(before, view, number, found)
        is_refused = any(not verdict.accepted for verdict in news.values())
        refusals = before.refusals
        if "refusals" in self._old or is_refused or (has_verdicts and refusals):
            self._credit.spend(1)
            refusals = self._runs.refusals()
        names = list(before.clients)
        if found.get("members", len(names)) != len(names):
            self._credit.spend(1)
            names = self._runs.members()
        now_ms = self.now_ms
        clients = self._clients.read(before, names, view, round_, config, now_ms)
        self._run_fields, self._round_fields, self._old = run_fields, round_fields, set()
        is_served = bool(found.get("served", before.is_served))
        evaluations = self._evaluations.read(before.evaluations)
        return Facts(view, config, now_ms, round_, clients, refusals, is_served, evaluations, self._log)

    def _take_in(self, before: Facts, entries: Iterable[Entry]) -> int:
        """Note what the log tells; returns the number of the newest round, as far as the log has it."""
        number = before.run.round
        for _, fields in entries:
            event, client = fields.get("event", ""), fields.get("client", "")
            if event.startswith(("run.", "round.")):
                self._old |= {"run", "round"}
            self._evaluations.note(fields)
            if event == "round.opened":
                number = count(fields.get("round")) or number
            if event == "client.pardoned" or (event.startswith("update.") and event != "update.accepted"):
                self._old.add("refusals")
            if client and event.startswith("client."):
                if client in before.clients:
                    self._clients.note(client)
                else:
                    self._old.add("members")
            if client and event.startswith("update."):  # its publications may be lost
                self._verdicts.add(client)
            if client in before.clients and event.startswith("update."):
                update = f"round:{fields.get('round', '')}:update"
                self._clients.hear(client, update, says=True, round_=before.run.round, now_ms=self.now_ms)
        return number

    def _read(self, number: int, *, is_new: bool, is_opened: bool) -> dict[str, Any] | None:
        """Read in one round trip what may be old, of round `number`; None where some record is damaged.

        `is_opened`: the log tells that the round has begun, and so which verdicts there are.
        """
        keys, heard = self._runs.keys, sorted(self._verdicts)
        commands: dict[str, tuple[str, ...]] = {
            "time": ("TIME",),
            "run": ("HGETALL", keys.state),
            "served": ("EXISTS", keys.coordinator),
            "members": ("SCARD", keys.members),
        }
        commands = {what: words for what, words in commands.items() if what in self._old}
        if number and (is_new or "round" in self._old):
            commands["round"] = ("HGETALL", keys.round(number))
        if number and is_new and not is_opened:
            commands["verdicts"] = ("HGETALL", keys.verdicts(number))
            commands["again"] = ("HGETALL", keys.round(number))
        elif number and heard:
            commands["heard"] = ("HMGET", keys.verdicts(number), *heard)
        if not commands:
            return {}
        with self._runs.redis.pipeline(transaction=False) as reads:
            for words in commands.values():
                reads.execute_command(*words)
            try:
                with translated(self._runs.where):
                    found = dict(zip(commands, reads.execute(), strict=True))
            except BusUnavailable as error:
                if isinstance(error.__cause__, redis.exceptions.ResponseError):
                    return None  # to read everything tells which record is damaged
                raise
        self._credit.spend(len(commands))
        if "heard" in found:
            found["heard"] = dict(zip(heard, found["heard"], strict=True))
        self._verdicts.clear()
        return found

    def _round_of(
        self, before: Facts, view: RunView, number: int, found: Mapping[str, Any]
    ) -> tuple[RoundView | None, Mapping[str, str], Mapping[str, Verdict]]:
        """Return the newest round with its verdicts, its hash, and the verdicts that were read now."""
        if not view.round:
            return None, {}, {}
        known = before.round
        is_read = found.get("again") == found.get("round")
        if view.round != number or ("again" in found and not is_read):
            self._credit.spend(3)
            fields, texts = self._runs.read_round_fields(view.round)
        elif "again" in found:
            fields, texts = found["round"], found["verdicts"]
        elif known is None or known.round != number:  # it has just begun, without verdicts
            fields = found["round"]
            texts = {client: text for client, text in found.get("heard", {}).items() if text is not None}
        else:
            fields, texts = found.get("round", self._round_fields), found.get("heard", {})
            with self._runs.damage_at(self._runs.keys.round(number)):
                if known is not None and fields != self._round_fields:
                    known = (
                        replace(RoundView.from_hash(number, fields, {}), verdicts=known.verdicts) if fields else None
                    )
                there = {client: text for client, text in texts.items() if text is not None}
                news = {client: field_of(there, client, Verdict.from_json) for client in there}
            if known is not None and texts:
                kept = {client: each for client, each in known.verdicts.items() if client not in texts}
                known = replace(known, verdicts=kept | news)
            return known, fields, news
        with self._runs.damage_at(self._runs.keys.round(view.round)):
            round_ = RoundView.from_hash(view.round, fields, texts) if fields else None
        return round_, fields, round_.verdicts if round_ is not None else {}


def _tells_all(entries: Iterable[Entry], number: int) -> bool:
    """Whether these entries have the beginning of a round, and so all that has happened in it."""
    return any(fields.get("event") == "round.opened" and fields.get("round") == str(number) for _, fields in entries)
