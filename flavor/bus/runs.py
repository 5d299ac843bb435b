"""A run in Redis: `RunStore` reads and changes a run, its rounds, verdicts, evaluations and clients.

Each Lua transition has one method, in the file of its noun: runs in this file, `rounds`, `verdicts`, `evaluations`
and `clients`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flavor.bus.connection import Redis, shown, translated
from flavor.bus.evaluations import Evaluations
from flavor.bus.keys import REMOVED, RUNS, RunKeys
from flavor.bus.removal import remove_keys
from flavor.bus.rounds import Rounds
from flavor.bus.scripts import flat
from flavor.bus.verdicts import Verdicts
from flavor.counted import counted
from flavor.errors import IllegalMove, RunNotFound
from flavor.protocol import check_run, new_run_id, version_fields
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState, RunState


class RunStore(Rounds, Verdicts, Evaluations):
    """One run's state. Every transition is atomic and checks the state it starts from.

    Raises `LeaseLost` when the caller's token is no longer the holder's, `IllegalMove` when the state is not the one
    the transition starts from (nothing has changed then), `BusUnavailable` when the server is gone.
    """

    # -- transitions

    def create(
        self,
        *,
        rounds: int,
        config: Mapping[str, Any],
        initial: GlobalModel | None = None,
        record: ObjectRef | None = None,
        run_id: str = "",
        begun_from: str = "",
    ) -> bool:
        """Create the run, whose record in the store is `record`. Returns False, and changes nothing, when it exists.

        `run_id` is the id in its record; without one a new id is made. `begun_from` says from which model of
        another run it begins.
        """
        fields = flat({"run_id": run_id or new_run_id(), **version_fields(config)})
        fields += flat(initial.to_hash()) if initial else []
        fields += flat(record.to_hash("manifest_")) if record else []
        fields += ["begun_from", begun_from] if begun_from else []
        reason = counted(rounds, "round") + (f"; it begins from {begun_from}" if begun_from else "")
        keys = [self.keys.state, self.keys.log, RUNS, self.keys.replaced, REMOVED]
        return bool(self.call("create_run", keys, [self.run, rounds, json.dumps(config), reason, *fields]))

    def end(
        self,
        state: RunState,
        reason: str,
        *,
        detail: str = "",
        token: str = "",
        seen: RoundView | None = None,
        is_met: bool = False,
    ) -> None:
        """End the run; `IllegalMove` when it has ended already.

        Every site can read `reason`; the log, which no site reads, has `detail` in its place. A coordinator gives its
        lease's `token`, and `LeaseLost` is raised when it is no longer the holder's; and the current round as it was
        `seen` when that was decided: `IllegalMove`, when it has gone on since. `is_met` says that the run has reached
        its goal, and does not end early although it has fewer rounds than planned.
        """
        basis, accepted = "", list[str]()
        if seen is not None:
            basis = f"{seen.state.value} {seen.attempt}"
            accepted = [client for client, verdict in seen.verdicts.items() if verdict.accepted]
        while True:
            round_ = seen.round if seen is not None else self.read().round
            keys = [self.keys.state, self.keys.log, self.keys.round(round_), self.keys.coordinator]
            args: list[str | int] = [state, reason, round_, token, detail or reason, basis, json.dumps(accepted)]
            args.append("1" if is_met else "")
            try:
                self.move("end_run", [*keys, self.keys.verdicts(round_)], args)
            except IllegalMove:
                if seen is not None or self.read().round == round_:
                    raise
            else:
                return

    def resume(
        self,
        token: str,
        round_: int,
        *,
        config: Mapping[str, Any],
        changed: Sequence[str],
        closed: int,
        spoiled: Sequence[str],
        timeout_s: float,
        reason: str,
        since: Mapping[str, int] | None = None,
    ) -> None:
        """Let an ended run go on from its round `round_`, with these settings; see `flavor.coordinator.resume`.

        `token` is that of the coordinator's lease. The updates of `spoiled` and the verdicts on them are forgotten, so
        that they are handed in again. Evaluations of its model that the end of the run has cut off are removed where
        the round is closed. `since` is that of the round.
        """
        keys = [self.keys.coordinator, self.keys.state, self.keys.log, self.keys.round(round_)]
        keys.append(self.keys.verdicts(round_))
        keys += [self.keys.evaluation(round_, number) for number in (AUTOMATIC, CENTRAL)]
        for client in spoiled:
            of_client, task = self.keys.client(client), (since or {}).get(client, round_)
            keys += [of_client.update(task), of_client.verdict(task)]
        args: list[str | int] = [token, round_, json.dumps(config), int(config["rounds"]), reason]
        args += [json.dumps(list(changed)), int(timeout_s * 1000), closed, *spoiled]
        self.move("resume_run", keys, args)

    # -- reads

    def find(self) -> RunView | None:
        """Return the run; None when there is no run of this name. Raises `DamagedRecord`."""
        fields = self.hash_at(self.keys.state)
        if not fields:
            return None
        with self.damage_at(self.keys.state):
            return RunView.from_hash(self.run, fields)

    def read(self) -> RunView:
        """Return the run. Raises `RunNotFound` and `DamagedRecord`."""
        view = self.find()
        if view is None:
            raise RunNotFound(f"there is no run {self.run!r} on Redis at {self.where}: `flavor status` lists the runs")
        return view

    def read_own(self) -> RunView:
        """Return the run, to take part in it. Raises `RunNotFound`; `OtherProtocol` if this release cannot do so."""
        view = self.read()
        check_run(self.run, view.protocol, view.release, view.needs)
        return view

    def closed(self, view: RunView) -> tuple[int, RoundView | None]:
        """Return the number of the newest closed round, 0 before the first, and the current round, closed or not."""
        current = self.read_round(view.round) if view.round else None
        if current is not None and current.state is RoundState.CLOSED:
            return view.round, current
        return max(0, view.round - 1), current

    def how_it_ended(self) -> str:
        """Return why the run ended last, from the log, which only operators read; '' when the log no longer has it."""
        with translated(self.where):
            return ending_in(self.redis.xrevrange(self.keys.log, count=ENDING_WITHIN))

    def now_ms(self) -> int:
        """Return the server's time in milliseconds."""
        with translated(self.where):
            seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    # -- its end

    def remove_keys(self, pattern: str = "") -> int:
        """Remove every key of the run that begins with `pattern`, also names that are no text, as clients can make.

        Returns how many there were.
        """
        with translated(self.where):
            return remove_keys(self.redis, f"{self.keys.prefix}{pattern}")


ENDING_WITHIN = 100
"""How many of the newest entries of a log are searched for a run's end."""
_ENDINGS = frozenset(f"run.{state}" for state in RunState if state.ended)


def ending_in(entries: Iterable[tuple[str, Mapping[str, str]]]) -> str:
    """Return why a run ended last, from the entries of its log, newest first; '' when they do not tell."""
    return next((fields.get("reason", "") for _, fields in entries if fields.get("event") in _ENDINGS), "")


def list_runs(redis: Redis, url: str = "") -> list[str]:
    """Return the names of all runs, oldest first."""
    with translated(shown(url)):
        return [str(name) for name in redis.zrange(RUNS, 0, -1)]


def are_there(redis: Redis, runs: Sequence[str], url: str = "") -> list[str]:
    """Return those of the runs that have a record: somebody may have deleted the keys of others by hand."""
    keys = [RunKeys(run).state for run in runs]
    with translated(shown(url)):
        if not keys or redis.exists(*keys) == len(keys):
            return list(runs)
        with redis.pipeline(transaction=False) as reads:
            for key in keys:
                reads.exists(key)
            return [run for run, is_there in zip(runs, reads.execute(), strict=True) if is_there]
