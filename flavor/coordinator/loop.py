"""The coordinator: acts on the decisions. Its state is in Redis; what it holds in memory it can read again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from flavor.bus.connection import ServerWatch, connect, shown, translated, wait_for_server
from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.persistence import persistence_warnings
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.config import SMALL_UPDATE_BYTES, RunConfig
from flavor.coordinator.advice import public
from flavor.coordinator.awaited import with_absent
from flavor.coordinator.decision import (
    Action,
    Standing,
    agreed_structure,
    begins_anew,
    close_round,
    next_round,
    reopened,
    standings,
    supervise,
)
from flavor.coordinator.heard import Heard
from flavor.coordinator.jobs import JobQueue, RqJobQueue
from flavor.coordinator.late_updates import LateUpdates
from flavor.coordinator.members import LONGEST, Members
from flavor.coordinator.pruning import Pruning
from flavor.disk import file_of
from flavor.errors import IllegalMove, LeaseLost, LocalFault, RunExists, RunNotFound, StoreError, StoreUnavailable
from flavor.failpoints import reach
from flavor.ledger.archive import Archive
from flavor.ledger.history import History
from flavor.ledger.manifest import Model, RunRecord
from flavor.protocol import new_run_id
from flavor.records.names import count
from flavor.records.states import (
    GlobalModel,
    ManifestRef,
    Reference,
    Refusal,
    RoundState,
    RoundView,
    RunState,
    RunView,
    Verdict,
    try_of,
)
from flavor.resume import MAY_CHANGE, goes_on_by
from flavor.resume import shown as shown_setting
from flavor.store.opening import once_usable
from flavor.store.paths import run_record_path
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import MOST_UNSURE, StoreHealth

_RESYNC_S = 5.0
_TICK_S = 1.0
_PATIENCE_S = 2.0
"""An update that waits for longer makes the coordinator look whether there is an aggregator at all."""
_SLOWEST_BYTES_PER_S = 50e6
"""An inspection is not asked for again before it would be done at this rate."""


@dataclass
class _Round:
    """The current round, as far as this process has read it."""

    view: RoundView
    updates: dict[str, dict[str, str]] = field(default_factory=dict)
    inspecting: dict[str, float] = field(default_factory=dict)  # client -> when to ask again (monotonic)
    asked: Counter[str] = field(default_factory=Counter)
    taken_back: Counter[str] = field(default_factory=Counter)  # how often a client's update was there no more
    jobs: dict[str, str] = field(default_factory=dict)  # client -> the newest that was to inspect its update
    inspections: int = 0
    enqueued_ms: int = 0
    unjudged_since: float = 0.0  # since when there is an update without a verdict (monotonic); 0 when there is none
    told: str = ""
    notes: int = 0  # of the view's, told so far
    held: str = ""

    @property
    def unjudged(self) -> list[str]:
        """Clients whose update, or whose newest try, has no verdict yet."""
        verdicts = self.view.verdicts
        return [c for c, fields in self.updates.items() if c not in verdicts or not verdicts[c].is_about(fields)]

    def forget_asking(self, client: str) -> None:
        """No inspection was asked for yet, of what is to be inspected now."""
        self.inspecting.pop(client, None)
        del self.asked[client]


def differences(view: RunView, config: RunConfig) -> dict[str, str]:
    """How the settings of the run that is there differ from `config`, a line for each name."""
    return {
        name: f"{name} is {_setting(view.config.get(name))}, not {_setting(value)}"
        for name, value in config.to_mapping().items()
        if view.config.get(name) != value
    }


def _change_by(run: str, config: RunConfig, names: Iterable[str]) -> str:
    """How an operator gives a run these settings, if it can have them."""
    if not MAY_CHANGE.issuperset(names):
        return ""
    options = [f"--{name.replace('_', '-')} {value}" for name in names if (value := getattr(config, name)) is not None]
    return f"; `flavor stop {run}`, then `flavor resume {' '.join([run, *options])}` changes that"


def _setting(value: object) -> str:
    return "not set" if value is None else repr(value)


def _refusals(view: RoundView) -> list[Refusal]:
    """What becomes of the updates that the last attempt has found spoiled."""
    changed = "its object was changed or removed in the store after it was accepted"
    return [
        Refusal(client, replace(verdict, accepted=False, reason=view.unfit.get(client, changed)), client in view.unfit)
        for client in view.spoiled
        if (verdict := view.verdicts.get(client)) is not None
    ]


class Coordinator:
    """One run's rounds, from waiting for clients to its end. `run()` returns the run as it ended.

    Killed at any point and started again, it carries on. Only the holder of the run's lease can change anything: a
    second coordinator waits for the lease, and `LeaseHeld` is raised when its holder is alive. `only` names the
    clients that may take part; everyone may when it is None. `warnings` gives what to warn of in the run's settings.

    `config` is how the run begins. The settings of a run that is there may have been changed by `flavor resume`, so
    nothing is made of `config` before the run was read.
    """

    def __init__(
        self,
        run: str,
        config: RunConfig,
        *,
        redis_url: str,
        store: ObjectStore,
        tell: Callable[[str], None],
        initial: GlobalModel | None = None,
        jobs: JobQueue | None = None,
        patience_s: float = 60.0,
        only: frozenset[str] | None = None,
        warnings: Callable[[RunConfig], Iterable[str]] = lambda _: (),
    ) -> None:
        self._name, self._config, self._url = run, config, redis_url
        self._stopped = threading.Event()
        self.closed = 0
        """Rounds that were closed when the run ended."""
        self._store, self._tell, self._initial, self._patience_s = store, tell, initial, patience_s
        self._redis = connect(redis_url, patience_s=patience_s, client_name=f"flavor-serve:{run}")
        self._runs = RunStore(self._redis, run, redis_url)
        self._heard = Heard(self._runs, tell)
        self._late = LateUpdates(self._runs, self._heard)
        self._only, self._given_jobs, self._warnings = only, jobs, warnings
        self._history = History(self._runs, Archive(store, run), tell)
        self._round: _Round | None = None
        self._run: RunView
        self._incarnation: tuple[str, int, int] | None = None
        self._waiting = ""
        self._store_trouble = ""  # why it cannot be used for now, as told
        self._unsure = 0  # faults in a row that may be the store's, and may not
        self._lost = False
        self._grace_until = 0.0  # monotonic; before that, clients that are missing may be on their way back
        self._watch = ServerWatch(self._redis, redis_url)
        self._clock_ms = 0.0  # the server's clock minus this process's monotonic one, in milliseconds

    # -- from start to end

    def stop(self) -> None:
        """Make `run` return within about a second, from another thread; the run itself goes on waiting for another."""
        self._stopped.set()

    def run(self) -> RunView:
        """Serve the run until it ends, or `stop` is called. The reason of one that ended is the operator's."""
        wait_for_server(self._redis, self._url)
        keys = self._runs.keys
        taken_over = not self._create()
        config = self._config  # that of the run, from here on
        for line in self._warnings(config):
            self._tell(line)
        self._pruning = Pruning(self._runs, self._store, config, self._tell)
        self._members = Members(
            self._runs,
            self._tell,
            self._heard,
            quarantine_after=config.quarantine_after,
            lease_s=config.heartbeat_timeout_s,
            only=self._only,
        )
        self._jobs = self._given_jobs or RqJobQueue(
            self._url,
            config.queue,
            timeout_s=config.aggregation_timeout_s,
            patience_s=self._patience_s,
            run=self._name,
        )
        lease = self._acquired()
        if taken_over:  # whatever ended the last coordinator may have ended the edges too
            view = self._runs.read()
            if self._runs.closed(view)[0] != view.resumed_round:  # of a run that was resumed the sites have ended
                self._give_grace()
            if not view.state.ended:
                self._tell(f"run {self._name!r} goes on from round {view.round}")
        keeper = self._keeper = LeaseKeeper(lease, lost=self._lease_lost, late=self._give_grace, where=self._runs.where)
        keeper.start()
        subscription = Subscription(
            connect(self._url, patience_s=self._patience_s, client_name=f"flavor-serve:{self._name}:events"),
            self._url,
            channels=[keys.state],
            patterns=[*keys.client_patterns, keys.rounds_pattern],
        )
        try:
            self._serve(lease, subscription)
            if self._run.state.ended:
                self._patiently(self._settle)
                self.closed = self._runs.closed(self._run)[0]
                self._run = replace(self._run, reason=self._runs.how_it_ended() or self._run.reason)
                self._tell(f"run {self._name!r} is {self._run.state}: {self._run.reason}")
            return self._run
        finally:
            self._pruning.close()
            keeper.stop()
            subscription.close()
            with contextlib.suppress(Exception):  # the lease runs out by itself
                lease.release()

    def _serve(self, lease: Lease, subscription: Subscription) -> None:
        """Act on what happens until the run ends, or `stop` is called."""
        with translated(shown(self._url)):
            self._run = self._runs.read()
            self._patiently(self._history.check)
            subscription.open()
            self._watch.was_away()  # from here on
            self._redis.publish(self._runs.keys.state, "serving")  # every edge announces itself
            self._read_everything()
            resync_at = time.monotonic() + _RESYNC_S
            woken: list[str] = []
            while not (self._run.state.ended or self._stopped.is_set()):
                try:
                    if RESYNC in woken or not resync_at:  # it may be another server, or have forgotten something
                        self._history.check()
                    if RESYNC in woken:
                        self._keep(lease)
                        if self._watch.was_away():  # and everybody's lease may have lapsed
                            self._give_grace()
                    if RESYNC in woken or time.monotonic() > resync_at:
                        self._read_everything()
                        resync_at = time.monotonic() + _RESYNC_S
                    self._step()
                    woken = [] if self._run.state.ended else subscription.wait(self._pause_s())
                    self._read(woken)
                    self._tell_store_is_back()
                except IllegalMove:  # somebody stopped it, or a repeated command had been carried out after all
                    resync_at = 0.0
                except LeaseLost:  # unless it only lapsed
                    self._keep(lease)
                    resync_at = 0.0
                except (StoreError, OSError) as error:
                    self._wait_for_store(error)
                    resync_at = 0.0
                except RunNotFound:
                    self._history.check()
                    raise
                if self._lost:
                    self._keep(lease)

    def _acquired(self) -> Lease:
        """The coordinator's lease, once it is ours."""
        reach("coordinator.created")
        with translated(shown(self._url)):
            lease = Lease(
                self._redis,
                self._runs.keys.coordinator,
                ttl_s=self._config.heartbeat_timeout_s,
                what=f"the coordinator of run {self._name!r}",
            )
            lease.acquire(told=self._tell)
        self._token, self._lease = lease.token, lease
        return lease

    def _keep(self, lease: Lease) -> None:
        if not lease.keep():
            raise LeaseLost(f"run {self._name!r} was taken over by another coordinator: this one ends")
        self._lost = False

    def _give_grace(self) -> None:
        """Whatever ended a coordinator, or kept the server away, did so to the edges: let them come back.

        For a lease time, and not again before another has passed: nobody can make it last.
        """
        now, lease_s = time.monotonic(), self._config.heartbeat_timeout_s
        if now >= self._grace_until + lease_s:
            self._grace_until = now + lease_s

    @property
    def _lenient(self) -> bool:
        """Whether a lease that is missing says nothing about who held it."""
        return time.monotonic() < self._grace_until or self._keeper.overdue

    def _create(self) -> bool:
        """Create the run; False when it is there already."""
        for line in persistence_warnings(self._redis, self._url):
            self._tell(line)
        config = self._config.to_mapping()
        if self._runs.find() is None:
            initial = Model.of(self._initial) if self._initial else None
            record = RunRecord(
                run=self._name, run_id=new_run_id(), rounds=self._config.rounds, config=config, initial=initial
            )
            begun = once_usable(
                self._store.url, lambda: self._history.begin(record), tell=self._tell, pause=self._stopped.wait
            )
            left = ManifestRef(run_record_path(self._name), begun.digest)
            if self._runs.create(
                rounds=begun.rounds, config=config, initial=self._initial, record=left, run_id=begun.run_id
            ):
                self._tell(f"run {self._name!r} is open for clients (id {begun.run_id})")
                return True
        view = self._runs.read_own()
        others = differences(view, self._config)
        if changed := [name for name in others if name in view.changed]:
            settings = ", ".join(f"{name} {shown_setting(view.config.get(name))}" for name in changed)
            self._tell(f"run {self._name!r} was resumed with {settings}: that stands")
            self._config = RunConfig.parse({**config, **{name: view.config.get(name) for name in changed}})
            others = {name: line for name, line in others.items() if name not in changed}
        if view.state is RunState.FINISHED and not others:
            self._tell(f"run {self._name!r} was finished before: {goes_on_by(view)}")
            return False
        if view.state.ended:
            raise RunExists(f"run {self._name!r} is over ({view.state}: {view.reason}): {goes_on_by(view)}")
        if others:
            raise RunExists(
                f"run {self._name!r} is there already with other settings: {'; '.join(others.values())}; "
                f"{goes_on_by(view)}{_change_by(view.run, self._config, others)}, or choose another name"
            )
        return False

    def _lease_lost(self) -> None:
        self._lost = True

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do it, also where the store is full or away for now."""
        while not self._stopped.is_set():
            try:
                work()
                self._tell_store_is_back()
                return
            except (StoreError, OSError) as error:
                self._wait_for_store(error)

    def _wait_for_store(self, error: StoreError | OSError) -> None:
        """Wait a moment if it is the store that cannot be used for now: full, away, read-only, unmounted; else raise.

        The coordinator has no other files in hand than the store's. What may be no fault of it is tried a few times.
        """
        passing = error if isinstance(error, StoreUnavailable) and error.passing else None
        if passing is None:
            trouble = StoreHealth(self._store, self._name, self._run.run_id).trouble(error, writes=True)
            if trouble is None or (not trouble.is_sure and self._unsure >= MOST_UNSURE):
                if not isinstance(error, OSError):
                    raise error
                where = file_of(error, "this machine")
                raise LocalFault(f"{where}: {error.strerror}: check this machine, its disks and its limits") from error
            passing = trouble.error if trouble.is_sure else None
        self._unsure = 0 if passing else self._unsure + 1
        if passing is not None and (why := str(passing)) != self._store_trouble and self._heard.may_tell_of_store():
            self._store_trouble = why
            self._tell(f"waiting: {why}; trying again until it can be used")
        self._stopped.wait(_TICK_S)

    def _tell_store_is_back(self) -> None:
        """What needed the store could be done."""
        self._unsure = 0
        if self._store_trouble:
            self._store_trouble = ""
            self._tell("the store can be used again: going on")

    def _settle(self) -> None:
        """See that the newest closed round has its manifest, also if its worker died right after the commit.

        And that nothing was handed in too late without an answer.
        """
        self._late.refuse_unheard()
        self._heard.run_is_over()
        view = self._runs.read_round(self._run.round) if self._run.round else None
        if view is not None and view.state is RoundState.CLOSED:
            self._history.settle(view.round, view.manifest)

    # -- reading

    def _read_everything(self) -> None:
        view = self._runs.read()
        if self._incarnation not in (None, view.incarnation):
            self._tell(f"run {self._name!r} was rebuilt from the store after round {view.round}")
            self._members.forget()
            self._round = None
        self._run, self._incarnation = view, view.incarnation
        self._heard.round = view.round
        self._clock_ms = self._runs.now_ms() - time.monotonic() * 1000
        self._members.read_all(token=self._admitting, lenient=self._lenient)
        if self._run.round:
            if self._round is None and (before := self._runs.read_round(self._run.round - 1)):  # another's round
                self._late.expect(before)
                self._late.refuse_unheard()
            self._read_round()
        self._late.refuse_unheard()

    @property
    def _admitting(self) -> str | None:
        """The token to admit clients by, while there is a run to admit them to."""
        return None if self._run.state.ended else self._token

    def _read_round(self) -> None:
        view = self._runs.read_round(self._run.round)
        if view is None:
            return
        if self._round is None or self._round.view.round != view.round:
            self._round = _Round(view, enqueued_ms=self._now_ms())
        self._round.view = view
        if view.state is RoundState.OPEN:
            self._read_updates(client for client in view.expected if self._may_hand_in(client))
        else:
            self._late.expect(view)

    def _taken_back(self, clients: set[str]) -> set[str]:
        """Those of them whose update was refused: an edge that came back removes it, and trains the round again."""
        if self._round is None or self._round.view.state is not RoundState.OPEN:
            return set()
        return {client for client in self._round.view.verdicts.keys() & clients if self._may_hand_in(client)}

    def _may_hand_in(self, client: str) -> bool:
        """Whether an update of this client may come in the open round: it has no verdict, or was refused."""
        assert self._round is not None
        verdict = self._round.view.verdicts.get(client)
        return verdict is None or not verdict.accepted

    def _read_updates(self, clients: Iterable[str]) -> None:
        round_, names = self._round, list(clients)
        assert round_ is not None
        found = self._runs.updates(round_.view.round, names)
        for client, fields in found.items():
            round_.updates[client] = fields
            self._ask_anew_if_refused(round_, client)
        for client in round_.updates.keys() & (set(names) - found.keys()):  # taken back, or lost in a failover
            del round_.updates[client]
            self._forget_taken_back(round_, client)

    def _forget_taken_back(self, round_: _Round, client: str) -> None:
        """What is handed in after that is inspected at once, unless that was so too often: then once a lease."""
        round_.taken_back[client] += 1
        if round_.taken_back[client] <= self._config.aggregation_attempts:
            round_.forget_asking(client)
        else:
            del round_.asked[client]

    def _ask_anew_if_refused(self, round_: _Round, client: str) -> None:
        """Have the newest try of a client inspected at once, where the one before has its verdict."""
        fields, verdict = round_.updates.get(client), round_.view.verdicts.get(client)
        if fields is not None and verdict is not None and not verdict.is_about(fields):
            round_.forget_asking(client)

    def _read(self, channels: list[str]) -> None:
        """Read what these channels say has changed."""
        clients: set[str] = set()
        updates: set[str] = set()
        judged: set[str] = set()
        round_ = self._round.view.round if self._round else 0
        for channel in channels:
            parsed = self._runs.keys.parse_client_channel(channel)
            if parsed is not None:
                client, rest = parsed
                if rest == "state":
                    clients.add(client)
                elif rest == f"round:{round_}:update":
                    updates.add(client)
                elif rest == f"round:{round_}:verdict":
                    judged.add(client)
                elif rest.endswith(":update") and (number := count(rest.split(":")[1])) is not None:
                    self._late.refuse(number, client)
        late = updates if self._round and self._round.view.state is not RoundState.OPEN else set()
        for client in late:
            self._late.refuse(round_, client)
        new = self._runs.verdicts(round_, judged) if self._round and judged else {}
        if self._members.recount(clients | judged, refused=self._heard.hears(round_, new.values())):
            clients |= judged  # perhaps quarantined now, or pardoned
        if clients:
            self._members.read(clients, token=self._admitting, lenient=self._lenient)
            updates |= self._taken_back(clients)
        if self._runs.keys.state in channels:
            self._run = self._runs.read()
        if self._round and new:
            self._round.view = replace(self._round.view, verdicts={**self._round.view.verdicts, **new})
            for client in new:
                self._ask_anew_if_refused(self._round, client)
        if self._round and self._runs.keys.round(round_) in channels:
            self._round.view = self._runs.read_round(round_) or self._round.view
            if self._round.view.state is RoundState.CLOSED:
                self._run = self._runs.read()
        if updates - late:
            self._read_updates(client for client in updates if self._round and client in self._round.view.expected)

    def _now_ms(self) -> int:
        return int(time.monotonic() * 1000 + self._clock_ms)

    def _pause_s(self) -> float:
        """How long to listen before looking at the clock again."""
        if self._round is None or self._round.view.state is not RoundState.OPEN:
            return _TICK_S
        left_ms = self._round.view.deadline_ms - self._now_ms()
        return min(_TICK_S, max(1, left_ms) / 1000) if left_ms > -1000 else _TICK_S

    # -- acting

    def _step(self) -> None:
        """Do everything that can be done now."""
        while not self._run.state.ended:
            round_ = self._round
            if round_ is None or round_.view.state is RoundState.CLOSED:
                if not self._between_rounds():
                    return
            elif round_.view.state is RoundState.OPEN:
                self._inspect(round_)
                if not self._in_open_round(round_):
                    return
            elif not self._in_aggregation(round_):
                return

    def _between_rounds(self) -> bool:
        closed = self._round.view.round if self._round else 0
        if self._round:
            self._history.settle(closed, self._round.view.manifest)
            while self._round.notes < len(self._round.view.notes):
                self._tell(f"round {closed}: {self._round.view.notes[self._round.notes]}")
                self._round.notes += 1
            self._heard.round_is_over(closed)
        anew = begins_anew(self._run, closed)
        clients = with_absent(self._members.names, self._members.clients)
        action, reason, expected = next_round(self._name, closed, clients, self._config, anew=anew)
        ends = action in (Action.FAIL, Action.FINISH) and closed < self._config.rounds
        if action is Action.WAIT or self._too_early(action) or (ends and self._just_resumed(closed)):
            self._tell_waiting(reason, logged=True)
            return False
        self._waiting = ""
        if action is Action.OPEN:
            self._open(closed + 1, expected, reason)
        else:
            self._end(RunState.FINISHED if action is Action.FINISH else RunState.FAILED, reason)
        return True

    def _too_early(self, action: Action) -> bool:
        """Whether `action` would end the run before its clients had the time to come back, too; a deadline stands."""
        view = self._round.view if self._round else None
        if view is not None and view.state is RoundState.OPEN and self._now_ms() >= view.deadline_ms:
            return False
        return action in (Action.FAIL, Action.REOPEN) and self._lenient

    def _just_resumed(self, closed: int) -> bool:
        """Whether the run was resumed and has closed no more than the round that was open: its sites are on the way."""
        run = self._run
        if run.resumed_round is None or closed > run.resumed_round + 1:
            return False
        return self._now_ms() < run.resumed_ms + self._config.round_timeout_s * 1000

    def _tell_waiting(self, reason: str, *, logged: bool = False) -> None:
        if reason == self._waiting or not self._heard.may_wait():
            return
        if logged:
            self._runs.log("run.waiting", reason=reason)
        self._tell(f"waiting: {reason}")
        self._waiting = reason

    def _open(self, number: int, expected: tuple[str, ...], reason: str) -> None:
        reach("coordinator.opening")
        opened_ms = self._runs.open_round(
            self._token, number, expected=expected, timeout_s=self._config.round_timeout_s, reason=reason
        )
        reach("coordinator.opened")
        self._late.refuse_unheard()
        self._clock_ms = opened_ms - time.monotonic() * 1000
        view = RoundView.of(
            number,
            {
                "state": RoundState.OPEN,
                "expected": "[]",
                "opened_ms": str(opened_ms),
                "deadline_ms": str(opened_ms + int(self._config.round_timeout_s * 1000)),
                "attempt": "0",
            },
            {},
        )
        self._round = _Round(replace(view, expected=expected))
        self._run = replace(self._run, round=number, state=RunState.RUNNING)
        self._heard.round = number
        self._tell(f"round {number} of {self._config.rounds}: {reason}")
        self._pruning.after(number - 1, self._members.names)

    def _inspect(self, round_: _Round) -> None:
        """Ask for the inspection of what has arrived: large updates each at once, small ones many in a job."""
        now = time.monotonic()
        number = round_.view.round
        small: list[str] = []
        small_in_flight = False
        unjudged = [client for client in round_.unjudged if not self._is_shut_out(round_, client)]
        for client in unjudged:
            fields = round_.updates[client]
            if "refused" in fields:
                reason = fields["refused"][:LONGEST]
                self._heard.refuse(number, client, Verdict(False, reason, try_id=try_of(fields)))
                round_.view = self._runs.read_round(number) or round_.view
                continue
            size = count(fields.get("size")) or 0
            ask_again = round_.inspecting.get(client)
            if ask_again is not None and now >= ask_again and self._jobs.waits(round_.jobs[client]):
                ask_again = round_.inspecting[client] = now + self._config.aggregation_lease_s  # it was not tried yet
            if (ask_again is None or now >= ask_again) and self._given_up(round_, client):
                continue
            if ask_again is not None and now < ask_again:
                small_in_flight |= size < SMALL_UPDATE_BYTES
            elif size < SMALL_UPDATE_BYTES and ask_again is None:
                small.append(client)
            else:
                self._ask(round_, [client], size)
        if small and not small_in_flight:
            self._ask(round_, small, SMALL_UPDATE_BYTES)
        if not any(client in unjudged for client in round_.unjudged):
            round_.unjudged_since = 0.0
        elif not round_.unjudged_since:
            round_.unjudged_since = now
        elif now - round_.unjudged_since > _PATIENCE_S and not round_.told and self._jobs.workers() == 0:
            round_.told = self._jobs.absence()
            self._tell(f"round {number}: {round_.told}")
            self._runs.log("round.waiting", round_=number, reason=round_.told)

    def _is_shut_out(self, round_: _Round, client: str) -> bool:
        """Whether it was refused in this round once too often: by one more try it would let itself in again."""
        return client in round_.view.verdicts and self._members.is_quarantined(client)

    def _given_up(self, round_: _Round, client: str) -> bool:
        """Refuse an update whose inspection never comes to an end although somebody inspects."""
        if round_.asked[client] < self._config.aggregation_attempts or not self._jobs.workers():
            return False
        away_ms = round_.view.away_ms
        if away_ms is not None and self._now_ms() - away_ms < 2000 * self._config.aggregation_lease_s:
            round_.forget_asking(client)
            self._tell_waiting("the aggregators cannot use the store for now: their own lines say why; trying again")
            return False
        reason = f"its inspection failed {round_.asked[client]} times"
        refused = Verdict(False, reason, try_id=try_of(round_.updates[client]))
        self._heard.refuse(round_.view.round, client, refused)
        round_.view = self._runs.read_round(round_.view.round) or round_.view
        return True

    def _ask(self, round_: _Round, clients: list[str], size_bytes: int) -> None:
        round_.inspections += 1
        round_.asked.update(clients)
        longest_s = min(size_bytes / _SLOWEST_BYTES_PER_S, self._config.aggregation_timeout_s)  # a site claims the size
        again = time.monotonic() + self._config.aggregation_lease_s + longest_s
        round_.inspecting.update(dict.fromkeys(clients, again))
        job = self._jobs.inspect(self._name, round_.view.round, clients, attempt=round_.inspections)
        round_.jobs.update(dict.fromkeys(clients, job))

    def _in_open_round(self, round_: _Round) -> bool:
        standing = standings(round_.view, round_.updates, self._members.clients)
        action, reason = close_round(self._name, self._now_ms(), round_.view, standing, self._config)
        if self._decide_structure(round_, standing, closing=action is Action.AGGREGATE):
            return True
        if action is Action.REOPEN and not self._too_early(action):
            action, how, expected = reopened(round_.view, standing, self._members.clients, self._config)
            if action is Action.REOPEN:
                self._reopen(round_, expected, f"{reason}; {how}")
                return True
            reason = f"{reason}; {how}"
        if action is Action.HOLD and reason != round_.held and self._heard.may_wait():
            round_.held = reason
            self._tell(f"round {round_.view.round}: {reason}")
            self._runs.log("round.waiting", round_=round_.view.round, reason=reason)
        if action in (Action.WAIT, Action.HOLD):
            return False
        if self._too_early(action):
            self._tell_waiting(reason)
            return False
        if action in (Action.FAIL, Action.FINISH):
            self._end(RunState.FAILED if action is Action.FAIL else RunState.FINISHED, reason)
            return True
        self._late.expect(round_.view)
        contributors = [
            client for client in round_.view.expected if (v := round_.view.verdicts.get(client)) and v.accepted
        ]
        complete = len(contributors) == len(round_.view.expected)
        self._attempt(round_, 1, contributors, reason, worth_telling=not complete)
        return True

    def _decide_structure(self, round_: _Round, standing: Mapping[str, tuple[Standing, str]], *, closing: bool) -> bool:
        """In a round from no model, fix the structure that most have; True when others' acceptance was taken back."""
        verdicts = round_.view.verdicts
        if self._run.global_model is not None or self._config.is_opaque:
            return False
        number, fixed = round_.view.round, round_.view.reference
        if fixed is None:
            open_ = sum(each in (Standing.PENDING, Standing.SUBMITTED) for each, _ in standing.values())
            needed = self._config.needed_of(len(round_.view.expected))
            agreed = agreed_structure(verdicts, open_=open_, needed=needed, closing=closing)
            if agreed is None:
                return False
            leader, others = verdicts[agreed[0]], agreed[1]
            reference = Reference(leader.path, leader.digest, leader.size_bytes, leader.structure)
        else:  # what was accepted at the same moment
            accepted = {client: verdict for client, verdict in verdicts.items() if verdict.accepted}
            of_its_site = next((each.structure for each in accepted.values() if each.path == fixed.path), None)
            known = fixed.structure or of_its_site
            others = tuple(sorted(client for client, each in accepted.items() if known not in (None, each.structure)))
            reference = fixed
            if not others:
                return False
        having = sum(verdict.accepted for verdict in verdicts.values()) - len(others)
        reason = f"the tensors' names, shapes and dtypes are those of {having} updates, and not those of {len(others)}"
        self._runs.decide_structure(self._token, number, reference, others=others, reason=reason)
        round_.view = self._runs.read_round(number) or round_.view
        for client in others:  # they are inspected again, which refuses them by what differs
            round_.forget_asking(client)
        if others:
            self._tell(f"round {number}: {reason}: {', '.join(others)}")
        return bool(others)

    def _reopen(self, round_: _Round, expected: tuple[str, ...], reason: str) -> None:
        """The round begins again, with a new deadline, for these clients; who is new in it gets its task."""
        number, opening, before = round_.view.round, round_.view.openings + 1, round_.view
        new = [client for client in expected if client not in before.expected]
        left_out = tuple(sorted({*before.expected, *before.left_out} - set(expected)))
        deadline_ms = self._runs.reopen_round(
            self._token,
            number,
            expected=expected,
            new=new,
            left_out=left_out,
            opening=opening,
            timeout_s=self._config.round_timeout_s,
            reason=reason,
        )
        round_.view = replace(before, expected=expected, left_out=left_out, openings=opening, deadline_ms=deadline_ms)
        self._read_updates(new)  # of one that was left out, and handed in meanwhile
        self._tell(f"round {number}: {reason}")

    def _attempt(
        self, round_: _Round, attempt: int, contributors: list[str], reason: str, *, worth_telling: bool
    ) -> None:
        number = round_.view.round
        reach("coordinator.closing")
        self._runs.begin_aggregation(
            self._token,
            number,
            attempt=attempt,
            contributors=contributors,
            reason=reason,
            refused=_refusals(round_.view),
        )
        reach("coordinator.aggregating")
        self._jobs.aggregate(self._name, number, attempt=attempt)
        reach("coordinator.enqueued")
        round_.enqueued_ms = self._now_ms()
        round_.view = self._runs.read_round(number) or round_.view
        if worth_telling:
            self._tell(f"round {number}: {reason}")

    def _in_aggregation(self, round_: _Round) -> bool:
        now_ms = self._now_ms()
        overdue = now_ms - round_.enqueued_ms > self._config.aggregation_lease_s * 1000
        if overdue:
            round_.view = self._runs.read_round(round_.view.round) or round_.view
            if round_.view.state is RoundState.CLOSED:
                self._run = self._runs.read()
                return True
        workers = self._jobs.workers() if overdue and round_.view.lease_ms is None else None
        action, reason = supervise(
            now_ms, round_.view, enqueued_ms=round_.enqueued_ms, workers=workers, config=self._config
        )
        if action is Action.WAIT and workers == 0:
            reason = self._jobs.absence()
        if ((overdue and action is Action.WAIT) or action is Action.HOLD) and reason != round_.told:
            self._tell(f"round {round_.view.round}: {reason}")
            round_.told = reason
        if action is Action.RETRY:
            spoiled = round_.view.spoiled
            contributors = [client for client in round_.view.contributors if client not in spoiled]
            self._attempt(round_, round_.view.attempt + 1, contributors, reason, worth_telling=True)
        elif action is Action.RETURN:
            self._return(round_, reason)
            return True
        elif action is Action.REQUEUE:
            self._jobs.aggregate(self._name, round_.view.round, attempt=round_.view.attempt)
            round_.enqueued_ms = now_ms
        elif action is Action.FAIL:
            self._end(RunState.FAILED, reason)
            return True
        return False

    def _return(self, round_: _Round, reason: str) -> None:
        """The round is open again, without the updates that were spoiled; its quorum decides what then."""
        number, view = round_.view.round, round_.view
        refused = _refusals(view)
        self._check_unchanged(view)  # else it would remove what was handed in again since
        with contextlib.suppress(StoreUnavailable, LocalFault):  # a worker refuses what it finds there
            self._store.delete([path for _, verdict, _ in refused for path in (verdict.path, verdict.info_path)])
        self._runs.return_round(self._token, number, attempt=view.attempt, refused=refused, reason=reason)
        self._tell(f"{reason}; the round is open again")
        self._round = None  # everything that was known of it is read again
        self._read_round()

    def _check_unchanged(self, seen: RoundView) -> None:
        """Raise `LeaseLost` or `IllegalMove` unless the run is still ours, and its round where it was `seen`.

        For what no script can do: this process may have been paused while another took over, and ended.
        """
        self._keep(self._lease)
        now = self._runs.read_round(seen.round)
        if now is None or (now.state, now.attempt, now.error) != (seen.state, seen.attempt, seen.error):
            raise IllegalMove(f"run {self._name!r}: round {seen.round} has gone on since it was looked at")

    def _end(self, state: RunState, reason: str) -> None:
        reach("coordinator.ending")
        seen = self._round.view if self._round else None
        try:
            self._runs.end(state, public(reason), detail=reason, token=self._token, seen=seen)
        except IllegalMove:
            self._run = self._runs.read()
            if not self._run.state.ended:  # the round has gone on since it was decided on
                raise
        reach("coordinator.ended")
        self._run = self._runs.read()
