"""What every fault is checked against: a run's recorded history, never the process that made it.

- I1 each round commits exactly one aggregate.
- I2 it equals the reference computed over exactly the recorded contributors.
- I3 no acknowledged event or update vanishes.
- I4 every wait ends, or errors, by its deadline, and says why: the tests wait for every process they start.
- I5 rounds only go up.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from flavor.bus.names import Event
from flavor.bus.runs import RunStore
from flavor.bus.state import RoundState
from flavor.store.objects import ObjectStore

KEEP = ("--keep-rounds", "0")
"""Options of `flavor serve` with which nothing of the history is removed."""


class Broken(AssertionError):
    """An invariant does not hold."""


class History:
    """A run as Redis, the store and the trainers' own journals record it."""

    def __init__(self, runs: RunStore, store: ObjectStore, journals: dict[str, Path] | None = None) -> None:
        self._runs, self._store, self._journals = runs, store, journals or {}
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
            if view is None or view.state is not RoundState.CLOSED or not view.path:
                raise Broken(f"I1: round {number} is closed in the log, and in its hash {view}")

    def _i2(self, number: int) -> None:
        view = self._runs.read_round(number)
        assert view is not None
        if not view.contributors or set(view.contributors) - set(view.expected):
            raise Broken(f"I2: round {number}: contributors {view.contributors} of {view.expected}")
        total: dict[str, np.ndarray] = {}
        verdicts = [view.verdicts[client] for client in view.contributors]
        sizes = [verdict.info["metadata"]["datasetSize"] for verdict in verdicts]
        for verdict, size in zip(verdicts, sizes, strict=True):
            if not verdict.accepted:
                raise Broken(f"I2: round {number}: a refused update counted: {verdict.reason}")
            for name, array in self._object(verdict.path, verdict.digest).items():
                total[name] = total.get(name, 0.0) + array.astype(np.float64) * (size / sum(sizes))
        found = self._object(view.path, view.digest)
        if found.keys() != total.keys():
            raise Broken(f"I2: round {number}: tensors {sorted(found)} of {sorted(total)}")
        for name, array in found.items():
            if not np.allclose(array, total[name], rtol=1e-5, atol=1e-6):
                raise Broken(f"I2: round {number}: {name} is {array.ravel()[:3]}, not {total[name].ravel()[:3]}")
        info = json.loads(self._store.local(view.info_path).read_text())
        if info["metadata"]["clients"] != list(view.contributors):
            raise Broken(f"I2: round {number}: merged info of {info['metadata']['clients']}")

    def _object(self, path: str, digest: str) -> dict[str, np.ndarray]:
        local = self._store.local(path)
        if hashlib.sha256(local.read_bytes()).hexdigest() != digest:
            raise Broken(f"I2: {path} is not what was recorded")
        return load_file(local)

    def lost(self) -> list[str]:
        """Every acknowledged event that is gone, and every update of a closed round that was never judged."""
        found = []
        for client, journal in self._journals.items():
            keys = self._runs.keys.client(client)
            for line in journal.read_text().splitlines() if journal.exists() else []:
                round_, _, event = line.partition(" ")
                if int(round_) <= self.since:
                    continue  # the round is closed in the store
                # A client that started anew forgets TrainInitDone; its rounds' events stay.
                if event != Event.TRAIN_INIT_DONE and not self._runs.redis.exists(
                    keys.event(int(round_), Event(event))
                ):
                    found.append(f"{client} set {event} of round {round_}, and it is gone")
        for number in self.closed():
            view = self._runs.read_round(number)
            assert view is not None
            unjudged = sorted(self._runs.updates(number, view.expected).keys() - view.verdicts.keys())
            found += [f"round {number}: handed in and never judged: {client}" for client in unjudged]
        return found

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
