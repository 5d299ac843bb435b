"""What every fault is checked against: a run's recorded history, never the process that made it.

- I1 each round commits exactly one aggregate.
- I2 it equals the reference computed over exactly the recorded contributors.
- I3 no acknowledged event or update vanishes.
- I4 every wait ends, or errors, by its deadline, and says why: the tests wait for every process they start.
- I5 rounds only go up.

An event is acknowledged when Redis has answered the trainer that set it, an update when Redis has answered the edge
that handed it in. Both note that outside of Redis: the toy trainer in `acknowledged`, an edge in its `FLAVOR_JOURNAL`.
An edge that dies, or comes too late, after its trainer's TrainFinished and before that answer has been promised nothing
for its update: the event stays, and nothing else is asked. An update that was acknowledged must have a verdict once
its round is closed (a refused one has its reason there), and one that was accepted must count, unless the log says that
its object was spoiled afterwards. Who takes a server's data away on purpose starts the journals anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.records.names import Event
from flavor.records.objects import ObjectRef
from flavor.records.states import RoundState
from flavor.store.protocol import ObjectStore

KEEP = ("--keep-rounds", "0")
"""Options of `flavor serve` with which nothing of the history is removed."""


class Broken(AssertionError):
    """An invariant does not hold."""


class History:
    """A run as Redis, the store, the trainers' own journals and that of the edges record it.

    The journals are read before Redis is, so that what is noted and not there was lost.
    """

    def __init__(
        self, runs: RunStore, store: ObjectStore, journals: dict[str, Path] | None = None, handed_in: Path | None = None
    ) -> None:
        self._runs, self._store = runs, store
        self.events = {client: _lines(path) for client, path in (journals or {}).items()}
        self._handed_in = {(int(round_), client) for round_, client in (_lines(handed_in) if handed_in else ())}
        self.log = [fields for _, fields in runs.redis.xrange(runs.keys.log)]

    @property
    def since(self) -> int:
        """The round after which it was rebuilt from the store, if it was: this server knows no earlier one."""
        return max((int(entry["round"]) for entry in self.log if entry["event"] == "run.recovered"), default=0)

    def closed(self) -> list[int]:
        """The rounds that the log says were closed, in its order."""
        return [int(entry["round"]) for entry in self.log if entry["event"] == "round.closed"]

    def check(self, *, rounds: int | None = None) -> None:
        """Raise `Broken` unless all invariants hold, and (where given) exactly `rounds` rounds are closed."""
        self._i1(rounds)
        for number in self.closed():
            self._i2(number)
        self._i3()
        self._i5()

    def _i1(self, rounds: int | None) -> None:
        closed = self.closed()
        if len(set(closed)) != len(closed):
            raise Broken(f"I1: a round was committed twice: {closed}")
        if closed != list(range(self.since + 1, self.since + len(closed) + 1)):
            raise Broken(f"I1: rounds were skipped: {closed}")
        if rounds is not None and self.since + len(closed) != rounds:
            raise Broken(f"I1: {self.since + len(closed)} rounds are closed, not {rounds}")
        for number in closed:
            view = self._runs.read_round(number)
            if view is None or view.state is not RoundState.CLOSED or view.model is None:
                raise Broken(f"I1: round {number} is closed in the log, and in its hash {view}")

    def _i2(self, number: int) -> None:
        view = self._runs.read_round(number)
        assert view is not None
        if not view.contributors or set(view.contributors) - set(view.expected):
            raise Broken(f"I2: round {number}: contributors {view.contributors} of {view.expected}")
        total: dict[str, np.ndarray] = {}
        newest, factor = self._model_before(number), self._staleness()
        verdicts = [view.verdicts[client] for client in view.contributors]
        sizes = [verdict.inspected.num_examples for verdict in verdicts]
        for client, verdict, size in zip(view.contributors, verdicts, sizes, strict=True):
            if not verdict.accepted:
                raise Broken(f"I2: round {number}: a refused update counted: {verdict.reason}")
            for name, handed_in in self._object(verdict.inspected.object).items():
                array = handed_in.astype(np.float64)
                if client in view.since:
                    base = self._model_before(view.since[client])
                    array = newest[name] + factor(number - view.since[client]) * (array - base[name])
                total[name] = total.get(name, 0.0) + array * (size / sum(sizes))
        found = self._object(view.model)
        if found.keys() != total.keys():
            raise Broken(f"I2: round {number}: tensors {sorted(found)} of {sorted(total)}")
        for name, array in found.items():
            if not np.allclose(array, total[name], rtol=1e-5, atol=1e-6):
                raise Broken(f"I2: round {number}: {name} is {array.ravel()[:3]}, not {total[name].ravel()[:3]}")
        info = json.loads(self._store.local(view.info.path).read_text())
        if (info["metadata"]["sites"], info["metadata"]["datasetSize"]) != (len(sizes), [sum(sizes)]):
            raise Broken(f"I2: round {number}: merged info of {info['metadata']}")

    def _model_before(self, number: int) -> dict[str, np.ndarray]:
        """The global model that a round began from, in float64; empty where there was none."""
        view = self._runs.read_round(number - 1) if number > 1 else None
        if view is None or view.model is None:
            return {}
        return {name: array.astype(np.float64) for name, array in self._object(view.model).items()}

    def _staleness(self) -> Callable[[int], float]:
        """How much an update of the run counts that was begun so many rounds before."""
        mode = RunConfig.known(self._runs.read().config).buffered
        return mode.rule.factor if mode is not None else lambda _: 1.0

    def _object(self, ref: ObjectRef) -> dict[str, np.ndarray]:
        local = self._store.local(ref.path)
        if hashlib.sha256(local.read_bytes()).hexdigest() != ref.digest:
            raise Broken(f"I2: {ref.path} is not what was recorded")
        return load_file(local)

    def lost(self) -> list[str]:
        """All that was acknowledged and is gone, in words."""
        return [*self.lost_events(), *self.lost_updates()]

    def lost_events(self) -> list[str]:
        """Every acknowledged event that is gone."""
        found = []
        for client, events in self.events.items():
            keys = self._runs.keys.client(client)
            for round_, event in events:
                if int(round_) <= self.since:
                    continue  # the round is closed in the store
                if (client, round_) in self._refused:
                    continue  # it was told so, and may have begun to train the round again
                # A client that started anew forgets TrainInitDone; its rounds' events stay.
                if event != Event.TRAIN_INIT_DONE and not self._runs.redis.exists(
                    keys.event(int(round_), Event(event))
                ):
                    found.append(f"{client} set {event} of round {round_}, and it is gone")
        return found

    @cached_property
    def _refused(self) -> set[tuple[str, str]]:
        """Client and round of every update that was refused, also of those that were followed by a good one."""
        refusals = {"update.refused", "update.blameless"}
        entries = [entry for _, entry in self._runs.redis.xrange(self._runs.keys.log)]
        return {(entry["client"], entry["round"]) for entry in entries if entry["event"] in refusals}

    def acknowledged(self) -> list[tuple[int, str]]:
        """Round and client of every acknowledged update of a closed round."""
        closed = set(self.closed())
        return sorted(each for each in self._handed_in if each[0] in closed)

    def lost_updates(self) -> list[str]:
        """Every update of a closed round that has no verdict, and every accepted one that does not count."""
        found = []
        acknowledged, views = self.acknowledged(), {number: self._runs.read_round(number) for number in self.closed()}
        judged = {(view.task_round(client), client) for view in views.values() for client in view.verdicts}
        if views and (last := views[max(views)]).is_buffered:  # what comes after the last round counts in none
            judged |= {(last.task_round(client), client) for client in last.expected}
        for number, view in views.items():
            noted = {client for round_, client in acknowledged if round_ == number}
            there = self._runs.updates(number, {*view.expected, *noted}).keys()
            for client in sorted(each for each in there | noted if (number, each) not in judged):
                gone = "" if client in there else ", and it is gone"
                found.append(f"round {number}: handed in and never judged: {client}{gone}")
            accepted = {client for client, verdict in view.verdicts.items() if verdict.accepted}
            left_out = sorted(accepted - set(view.contributors) - self._spoiled(number))
            found += [f"round {number}: accepted and left out: {client}" for client in left_out]
        return found

    def _spoiled(self, number: int) -> set[str]:
        """Those whose objects were found spoiled after they had been accepted."""
        entries = [e for e in self.log if e["event"] == "round.attempt_failed" and int(e["round"]) == number]
        return {client for entry in entries for client in json.loads(entry.get("spoiled", "[]"))}

    def _i3(self) -> None:
        if lost := self.lost():
            raise Broken(f"I3: {'; '.join(lost)}")

    def _i5(self) -> None:
        opened = [int(entry["round"]) for entry in self.log if entry["event"] == "round.opened"]
        if opened != list(range(self.since + 1, self.since + len(opened) + 1)):
            raise Broken(f"I5: rounds were opened as {opened}")
        order = [int(entry["round"]) for entry in self.log if entry["event"] in ("round.opened", "round.closed")]
        if order != sorted(order):
            raise Broken(f"I5: the log goes back: {order}")


def _lines(journal: Path) -> list[tuple[str, str]]:
    """The lines of a journal: a round, and what was acknowledged in it."""
    pairs = [line.partition(" ") for line in journal.read_text().splitlines()] if journal.exists() else []
    return [(round_, what) for round_, _, what in pairs]
