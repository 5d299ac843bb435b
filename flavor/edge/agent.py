"""The edge's loop: hears from the bus and from its trainer through one inbox, and keeps no state it could not lose."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flavor.bus.connection import connect, shown, wait_for_server
from flavor.bus.events import ClientEvents
from flavor.bus.runs import RunStore, late
from flavor.bus.subscription import RESYNC, Subscription
from flavor.config import RunConfig
from flavor.disk import FULL, found_no_room
from flavor.edge.acknowledged import note_handed_in
from flavor.edge.arrival import ended_early, is_over, why_not_there
from flavor.edge.belongings import Belongings
from flavor.edge.config import EdgeConfig
from flavor.edge.consent import check_consent, check_rights, check_store, in_wait_for_share, told
from flavor.edge.exchange import Exchange, Submission
from flavor.edge.hold import Hold
from flavor.edge.idleness import Idleness
from flavor.edge.membership import Seat
from flavor.edge.notice import Died, Failure, Notice, notice_of
from flavor.edge.run_identity import checked_continuity
from flavor.edge.transfers import Transfers
from flavor.edge.trust import ModelTrust
from flavor.edge.workspace import Workspace
from flavor.errors import (
    FlavorError,
    MisuseError,
    NotAdmitted,
    RunError,
    RunFinishedEarly,
    RunRebuilt,
    RunRefused,
    RunStopped,
    StoreError,
    TrainerFailed,
    TransferStopped,
    UpdateRefused,
    WaitTimeout,
)
from flavor.failpoints import reach
from flavor.ledger.archive import Archive
from flavor.ledger.history import count_of
from flavor.ledger.keys import SigningKey
from flavor.ledger.statement import signature_fields
from flavor.programs.process import ChildProcess, obituary
from flavor.protocol import check_run
from flavor.records.names import Event, count
from flavor.records.states import ClientState, GlobalModel, RunState, RunView
from flavor.store.open import open_store
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import StoreHealth

_RELISTEN_S = 5.0
_REMIND_S = 60.0
_TOGETHER_S = 3.0
"""So much later its coordinator may be there that was started together with this edge, as in a local run."""
_UNREADY_S = 30.0
"""A trainer that has not set TrainInitDone for so long is spoken of, and again after each such time, doubled."""


_LOOP = (
    "; it has to go on until the run is over: SetEvent('TrainInitDone') once, then in each round "
    "WaitEvent('TrainStarted'), training, SetEvent('TrainFinished'); check-fl shows what is missing"
)
"""What to do about a script that ended with exit code 0 within a round, or before the first."""


@dataclass(frozen=True)
class _Woken:
    """The bus has news on these channels."""

    channels: tuple[str, ...]


@dataclass(frozen=True)
class _Ended:
    """The trainer has ended."""

    code: int


@dataclass(frozen=True)
class _Failure:
    """Something that the loop cannot go on after."""

    error: FlavorError


class Stopped(BaseException):
    """The edge was told to stop by a signal."""


def take_part(config: EdgeConfig, *, tell: Callable[[str], None]) -> None:
    """Be this client of this run until it ends. A run that is rebuilt from the store meanwhile is joined again.

    Raises what `Edge.run` raises.
    """
    while True:
        try:
            Edge(config, tell=tell).run()
        except RunRebuilt as news:
            tell(f"{news}: joining it again")
        else:
            return


class Edge:
    """One client of one run: `run()` joins, trains and leaves.

    Every failure of the trainer, and of what it wrote, is reported to the run as a class and an exit code; `run()` then
    raises `TrainerFailed` with the whole story. `RunFinishedEarly` when the run, or the trainer by itself, ended before
    the last round, `RunRefused` when the site does not take what the run asks, `RunError` when the run is over or ends
    badly, `StateLost` when Redis no longer has what this edge has seen of it, `RunRebuilt` when it is to be joined
    again, `LeaseHeld` when this client is already running.
    """

    def __init__(self, config: EdgeConfig, *, tell: Callable[[str], None]) -> None:
        self._config, self._tell = config, tell
        self._redis = connect(config.redis_url, patience_s=config.patience_s, client_name=f"flavor-fl:{config.client}")
        self._runs = RunStore(self._redis, config.run, config.redis_url)
        self._keys = self._runs.keys.client(config.client)
        self._seat = Seat(self._redis, config.redis_url, self._runs.keys, config.client)
        self._events = ClientEvents(config.redis_url, config.run, config.client, redis=self._redis)
        self._inbox: queue.SimpleQueue[_Woken | _Ended | _Failure] = queue.SimpleQueue()
        self._trust = ModelTrust.parse(config.trust)
        self._transfers = Transfers(
            self._inbox,
            broken=lambda item: isinstance(item, _Failure),
            report=self._seat.report_transfer,
            tell=tell,
            patience_s=config.patience_s,
            awaits=self._tell_awaited,
        )
        self._closing = threading.Event()
        self._trainer: ChildProcess | None = None
        self._ready = False
        self._trained_from = ""  # digest of the global model that the trainer was given; '' for none
        self._training = 0  # the round the trainer is in; 0 between rounds
        self._newest = 0  # the newest round this client was given a task for
        self._behind = 0  # the newest round that is behind this client
        self._unjudged = 0  # the round of a submitted update without a verdict
        self._refused = 0  # the round whose update was refused, if another try may follow
        self._submitted: tuple[int, dict[str, str]] | None = None  # the newest update, as it was handed in
        self._left = False
        self._joined = False  # its user was told that the coordinator has admitted it
        self._noticed = False  # the run was told why this edge ends
        self._belongings: Belongings | None = None
        self._idleness = Idleness(tell)
        self._waits_unfinished = 0  # the round that the trainer has not finished, and waits for the next one
        self._stuck = ""  # what the run was told of that
        self._store_awaited = ""  # what of the store this edge waits for
        self._started_at = 0.0  # when the trainer was started (monotonic)
        self._spoken_s = _UNREADY_S  # how long it may go on without TrainInitDone until that is told

    # -- from start to end

    def run(self) -> None:
        """Join the run, train until it ends or the trainer does, leave."""
        config = self._config
        wait_for_server(self._redis, config.redis_url)
        subscription = self._subscribed()
        view = self._await_run(subscription)
        self._workspace = Workspace.prepare(
            config.workspace, environment=os.environ, input_path=config.input, format_=config.format
        )
        settings, self._rounds = RunConfig.of_run(config.run, view.config), view.rounds
        self._key = SigningKey.load_or_create(config.key_path, config.client)
        token = self._seat.take(ttl_s=settings.heartbeat_timeout_s, told=self._tell)
        view = self._runs.read()  # the wait for the seat may have been long
        self._incarnation, self._run_id = view.incarnation, view.run_id
        self._seat.keep(lost=lambda: self._inbox.put(_Failure(self._seat.replaced())))
        identity = f"{self._run_id}/{config.client}"
        hold = Hold(f"client {config.client!r} of run {config.run!r}", identity, tell=self._tell)
        try:
            hold.take(self._workspace)
            with self._giving_notice():
                self._take_part(view, settings, token, subscription)
        finally:
            self._closing.set()
            if self._trainer is not None:
                self._trainer.stop(2.0)
            if self._belongings is not None:
                self._belongings.leave()
            hold.leave()
            self._seat.leave(announce=not self._noticed)

    def _take_part(self, view: RunView, settings: RunConfig, token: str, subscription: Subscription) -> None:
        config = self._config
        check_consent(config.run, settings, opaque=config.opaque, allow_set=config.allow_set, store=config.store)
        self._furnish(view, settings)
        self._forget_past(view)
        self._report(ClientState.JOINED)
        self._tell_joining(settings)
        threading.Thread(target=self._listen, args=(subscription,), name="bus", daemon=True).start()
        self._hand_in_again()
        environment = self._workspace.trainer_environment(
            os.environ,
            rounds=view.rounds,
            run=config.run,
            client=config.client,
            url=config.redis_url,
            edge=token,
            settings=settings.settings,
        )
        self._preprocess(environment)
        self._trainer = self._start(config.command, environment, "trainer")
        self._started_at = time.monotonic()
        self._inbox.put(_Woken((RESYNC,)))
        self._loop()

    @contextlib.contextmanager
    def _giving_notice(self) -> Iterator[None]:
        """Tell the run of what ends this edge, unless it is the run's own end, or another process."""
        try:
            yield
        except (TrainerFailed, NotAdmitted, RunRefused, MisuseError, StoreError, UpdateRefused) as error:
            self._give_notice(notice_of(error), str(error))
            raise
        except (Stopped, KeyboardInterrupt) as error:
            self._give_notice(notice_of(error))
            raise
        except OSError as error:
            text = f"{error.filename or 'a file'}: {error.strerror}: check the disk and the paths"
            if error.errno in FULL:
                text = str(found_no_room(error))
            self._give_notice(notice_of(error), text)
            raise StoreError(text) from error

    def _furnish(self, view: RunView, settings: RunConfig) -> None:
        """Make the workspace this run's, and open its store."""
        config, workspace = self._config, self._workspace
        store = self._opened_store(config.store or settings.store, view.run_id)
        self._archive = Archive(store, config.run)
        self._belongings = Belongings.claim(workspace, view, config.client, config.command, tell=self._tell)
        self._exchange = Exchange(
            store,
            workspace,
            run=config.run,
            format_=config.format,
            compress=settings.compress,
            statistics=settings.statistics,
            opaque=settings.is_opaque,
            bare=config.strip_prefix,
            habits=self._belongings.habits,
            learned=self._belongings.learn,
            tell=self._tell,
        )

    def _opened_store(self, url: str, run_id: str) -> ObjectStore:
        """The run's store, once its share is mounted: after a reboot the edge may be there first."""
        config = self._config

        def opened() -> ObjectStore:
            with in_wait_for_share(url):
                return open_store(url)

        def checked() -> None:
            with in_wait_for_share(url):
                check_rights(store, config.run, config.client)
                check_store(store, config.run, run_id, tell=self._tell)

        store = self._transfers.carry(opened, quick=True)
        self._health = StoreHealth(store, config.run, run_id, self._workspace.global_model.parent)
        self._transfers.health = self._health
        self._transfers.carry(checked)
        return store

    def _subscribed(self) -> Subscription:
        config, keys = self._config, self._keys
        subscription = Subscription(
            connect(config.redis_url, patience_s=config.patience_s, client_name=f"flavor-fl:{config.client}:events"),
            config.redis_url,
            channels=[self._runs.keys.state],
            patterns=[keys.events_pattern, keys.to_pattern],
        )
        subscription.open()
        return subscription

    def _await_run(self, subscription: Subscription) -> RunView:
        deadline = None if self._config.join_timeout_s is None else time.monotonic() + self._config.join_timeout_s
        tell_at, told = time.monotonic(), ""
        quiet_until = tell_at + _TOGETHER_S
        while True:
            view = self._runs.find()
            if view is not None and not view.state.ended:
                break
            if view is not None and view.state is RunState.FINISHED:
                raise is_over(view, "ask its operator for another run")
            why = why_not_there(self._config.run, view)
            line = f"waiting for run {self._config.run!r}: {why}"
            now = time.monotonic()
            is_early = view is None and now < quiet_until
            if not is_early and (line != told or now >= tell_at):
                self._tell(line)
                told, tell_at = line, now + _REMIND_S
            left_s = quiet_until - now if is_early else _RELISTEN_S
            left_s = left_s if deadline is None else min(left_s, deadline - now)
            if left_s <= 0:
                within = f"within {self._config.join_timeout_s:g} s"
                if view is not None:
                    raise is_over(view, f"it did not go on {within}: start this again once its operator resumed it")
                raise WaitTimeout(f"run {self._config.run!r} did not appear {within}: {why}")
            subscription.wait(left_s)
        check_run(self._config.run, view.protocol)
        return view

    def _tell_joining(self, settings: RunConfig) -> None:
        signs = f"signing with key {self._key.public.fingerprint}, {self._config.key_path}"
        run = f"run {self._config.run!r} ({count_of(self._rounds, 'round')}, id {self._run_id})"
        self._tell(f"joining {run} as {self._config.client!r}, {signs}")
        if given := self._workspace.given:
            self._tell(f"taken from the environment: {', '.join(f'{name}={path}' for name, path in given.items())}")
        for line in told(settings):
            self._tell(line)

    def _forget_past(self, view: RunView) -> None:
        """Remove what an earlier process of this client left of the current round, so that it is trained again.

        A round whose training was finished is handed in as it is, if its trainer had taken it up and the files are
        still there: what the trainer was told to be set stays set. An update that was refused is taken back, and the
        round trained again.
        """
        round_ = view.round
        keys = [self._keys.started, self._keys.taken, self._keys.idle, self._keys.event(round_, Event.ERROR)]
        keys += [self._keys.event(other, event) for other in (0, round_ + 1) for event in Event]
        handed_in = round_ and self._seat.has_update(round_)
        verdict = self._seat.verdict(round_) if handed_in else {}
        if handed_in and verdict.get("accepted") == "0":
            self._tell(f"round {round_}: the update was refused ({verdict.get('reason', '')}): training it again")
            keys += [self._keys.update(round_), *(self._keys.event(round_, event) for event in Event)]
        elif handed_in:
            self._behind = round_  # it was submitted already: the next task is the one to do
            self._unjudged = 0 if verdict else round_
        elif round_ and self._is_finished(round_) and self._exchange.has_local():
            self._training = round_
            self._trained_from = self._seat.task(round_).get("global_digest", "")
            keys.remove(self._keys.taken)  # it stays taken up until it is handed in, perhaps by the process after this
        else:
            keys += [self._keys.event(round_, event) for event in Event]
        self._seat.clear(keys)

    def _hand_in_again(self) -> None:
        """Hand in what an earlier process of this client had trained."""
        if self._training:
            self._tell(f"round {self._training} was trained before: handing it in")
            self._submit(self._training)

    def _preprocess(self, environment: dict[str, str]) -> None:
        if self._config.preprocess is None:
            return
        self._tell("preprocessing")
        child = self._start(self._config.preprocess, environment, "preprocess", report_end=False)
        self._trainer = child
        code = child.wait()
        self._trainer = None
        if code != 0:
            notice = Notice(Failure.PREPROCESS, code)
            raise Died(obituary("the preprocess command", code or 0, child.last_lines), notice)

    def _start(
        self, command: tuple[str, ...], environment: dict[str, str], log: str, *, report_end: bool = True
    ) -> ChildProcess:
        return ChildProcess(
            command,
            environment=environment,
            log=self._workspace.log / f"{log}.log",
            prefix=f"[{self._config.client}] ",
            echo=sys.stdout,
            private=True,
            ended=(lambda code: self._inbox.put(_Ended(code))) if report_end else None,
        )

    # -- the loop

    def _loop(self) -> None:
        while True:
            self._idleness.waits_for(self._awaited())
            if self._idleness.look() and self._unfinished:
                self._stuck = (
                    f"its trainer waits for the next round, and has not set TrainFinished of round {self._unfinished}"
                )
                self._announce()
            try:
                item = self._inbox.get(timeout=self._idleness.left_s() if self._ready else self._unready_left_s())
            except queue.Empty:
                if not self._ready:
                    self._tell_unready()
                continue
            if isinstance(item, _Failure):
                raise item.error
            over = self._trainer_ended(item.code) if isinstance(item, _Ended) else self._news(item.channels)
            if over:
                return
            if self._left and not self._unjudged and self._behind < self._rounds:
                part = f"this site's part in run {self._config.run!r} is finished"
                raise RunFinishedEarly(f"{part}: early, after round {self._behind} of {self._rounds}")

    def _awaited(self) -> str:
        """What this site waits for while it has nothing to do; '' while it has."""
        if self._unfinished:
            return (
                f"TrainFinished of round {self._unfinished}: the trainer waits for the next round without having set "
                "it: call SetEvent('TrainFinished') at the end of every round, once both files are saved"
            )
        if not self._ready or self._training or self._left:
            return ""
        if not self._behind:
            return "the run's first round here: its coordinator opens it once enough sites are ready"
        if self._unjudged:
            return f"an aggregator to inspect its update of round {self._unjudged}, or the end of that round"
        if self._refused == self._behind:
            return (
                f"the run's next round, while the run may wait for this site: its update of round {self._refused} was "
                "refused; mend that, then end this (Ctrl-C) and start it again, and it trains that round again"
            )
        return f"the run's next round: this site's part in round {self._behind} is done"

    def _unready_left_s(self) -> float:
        return max(0.0, self._started_at + self._spoken_s - time.monotonic())

    def _tell_unready(self) -> None:
        self._tell(
            f"waiting for the trainer to call SetEvent('TrainInitDone'), for {self._spoken_s:.0f} s now: no round "
            "begins before it has"
        )
        self._spoken_s *= 2

    def _news(self, channels: tuple[str, ...]) -> bool:
        """React to the bus; True when the run is over."""
        resync = RESYNC in channels
        rests = {self._keys.rest(channel) for channel in channels}
        if resync or self._runs.keys.state in channels:
            view = self._read_run()
            if view.state.ended:
                self._run_ended(view)
                return True
            if resync:
                self._repeat_what_is_forgotten(view.round)
                self._newest = max(self._newest, view.round)
                rests.add(f"round:{view.round}:task")
            self._announce()
        if resync or "admission" in rests:
            self._check_admitted()
        if not self._ready and (resync or f"round:0:event:{Event.TRAIN_INIT_DONE}" in rests):
            self._check_ready()
        for rest in rests:
            kind, _, tail = rest.partition(":")
            number, _, what = tail.partition(":")
            if kind != "round" or count(number) is None:
                continue
            if what == "task":
                self._newest = max(self._newest, int(number))
            elif what == "verdict":
                self._read_verdict(int(number))
            elif what == f"event:{Event.ERROR}":
                raise self._died_of_error()
        if resync and self._events.is_set(Event.ERROR, 0, self._training, self._behind, self._events.taken()):
            raise self._died_of_error()
        if self._unjudged and resync:
            self._read_verdict(self._unjudged)
        if self._training and f"round:{self._training}:event:{Event.TRAIN_FINISHED}" in rests:
            self._finished(self._training)
        elif self._training and resync:
            self._check_finished()
        if self._ready and not self._training and not self._left and self._newest > self._behind:
            self._begin(self._newest)
        return False

    def _died_of_error(self) -> Died:
        return Died("the trainer set the event Error", Notice(Failure.ERROR_EVENT))

    def _read_run(self) -> RunView:
        """The run, if this edge can go on with it."""
        return checked_continuity(
            self._config.run,
            self._runs.find(),
            incarnation=self._incarnation,
            newest=self._newest,
            where=shown(self._config.redis_url),
        )

    def _check_admitted(self) -> None:
        """Raise `NotAdmitted` when the coordinator does not let this edge take part, by the key that it has now."""
        told = self._seat.admission()
        if told.get("public_key", "") not in ("", str(self._key.public)):
            return
        if told.get("admitted") == "1" and not self._joined:
            self._joined = True
            self._tell(f"joined run {self._config.run!r}")
        if told.get("admitted") != "0":
            return
        signs = f"this edge signs with {self._config.key_path}"
        raise NotAdmitted(
            f"run {self._config.run!r} does not admit {self._config.client!r}: {told.get('reason', '')} ({signs})"
        )

    def _check_ready(self) -> None:
        if self._events.is_set(Event.TRAIN_INIT_DONE, 0):
            self._ready = True
            self._announce()

    def _announce(self) -> None:
        if not self._left:
            stuck = self._store_awaited or (self._stuck if self._unfinished else "")
            why = {"reason": stuck} if stuck else {}
            self._report(ClientState.READY if self._ready else ClientState.JOINED, why)

    def _tell_awaited(self, what: str) -> None:
        """Tell the run's operator that this edge waits for the store, or no longer."""
        self._store_awaited = what and f"it waits for {what}"
        if self._belongings is not None:  # before that it has not joined
            self._announce()

    def _begin(self, round_: int) -> None:
        task = self._seat.task(round_)
        if not task:  # not sampled in this round
            return
        model = self._trust.named(GlobalModel.of(task))
        self._workspace.clear_local()

        def fetch() -> None:
            self._trust.check(self._archive, self._run_id, round_ - 1, model, digest=self._manifest_digest)
            self._exchange.place_global(model)

        try:
            quick = model is None or self._exchange.is_quick(model.size_bytes)
            self._transfers.carry(fetch, quick=quick, over=self._is_past(round_))
        except TransferStopped:  # the run's end, or its next round, is what comes next
            self._behind = round_
            return
        self._trained_from = model.digest if model else ""
        self._training, self._waits_unfinished = round_, 0
        self._events.start_round(round_, anew=True, edge=self._seat.token)

    def _manifest_digest(self) -> str:
        """Of the newest closed round, as Redis has it."""
        view = self._runs.find()
        return view.manifest.digest if view is not None and view.manifest is not None else ""

    def _check_finished(self) -> None:
        if self._events.is_set(Event.TRAIN_FINISHED, self._training):
            self._finished(self._training)
        else:
            self._waits_unfinished = self._events.unfinished()

    @property
    def _unfinished(self) -> int:
        """The round that the trainer is in, if it waits for the next one without having finished it; 0 if not."""
        return self._training if self._training == self._waits_unfinished else 0

    def _is_finished(self, round_: int) -> bool:
        """Whether the trainer has taken up this round and finished it."""
        return self._events.is_set(Event.TRAIN_FINISHED, round_) and self._events.taken() >= round_

    def _finished(self, round_: int) -> None:
        """Hand in what the trainer made of the round, if it has taken it up: else it trained from something else."""
        if self._events.taken() >= round_:
            self._submit(round_)
            return
        self._training, self._behind = 0, round_
        self._refuse(
            round_,
            Notice(Failure.NOT_TAKEN_UP),
            f"the trainer set TrainFinished of round {round_} without having waited for its TrainStarted, so what it "
            "saved is of another global model: call WaitEvent('TrainStarted') at the beginning of every round",
        )

    def _submit(self, round_: int) -> None:
        """Hand in the trainer's files of this round, or say why they cannot be."""
        self._training, self._behind = 0, round_
        if self._newest > round_:
            self._tell(f"round {round_}: trained too late: round {self._newest} is open already")
            return
        reach("edge.trained")

        def collect() -> Submission:
            self._health.require()
            done = self._exchange.collect(self._config.run, round_, self._config.client)
            self._health.require()
            return done

        try:
            done = self._transfers.carry(
                collect,
                quick=self._exchange.is_collected_quickly(),
                writes=True,
                over=self._is_past(round_),
            )
        except TransferStopped:
            self._tell(f"round {round_}: the upload is ended: the run is no longer in it")
            return
        except (UpdateRefused, MisuseError) as error:
            self._refuse(round_, notice_of(error), str(error))
            return
        fields = done.fields()
        fields |= signature_fields(
            self._key,
            self._config.run,
            round_,
            self._config.client,
            fields,
            run_id=self._run_id,
            trained_from=self._trained_from,
        )
        reach("edge.stored")
        self._hand_in(round_, {**fields, **self._unread(round_), "try": secrets.token_hex(8)})
        reach("edge.submitted")

    def _unread(self, round_: int) -> dict[str, str]:
        """What to say of an update whose trainer has not looked at the global model."""
        if self._exchange.was_read() is not False:
            return {}
        self._tell(
            f"round {round_}: the trainer did not read the global model ({self._workspace.global_model}): it trains on "
            "from a model of its own; load $GLOBAL_MODEL_PATH after each WaitEvent (check-fl shows what a script does)"
        )
        return {"unread": "1"}

    def _refuse(self, round_: int, notice: Notice, text: str) -> None:
        """Say, in place of an update, that there is none that can be used; `text` is for this site."""
        self._tell(f"round {round_}: the update cannot be used: {text}")
        fields = {"refused": notice.reason, **notice.fields(self._shared(text))}
        self._hand_in(round_, {**fields, "try": secrets.token_hex(8)})

    def _shared(self, text: str) -> str | None:
        """What the site's own user shares with the run's operator of this text."""
        return text if self._config.report_output else None

    def _hand_in(self, round_: int, fields: dict[str, str]) -> None:
        if not self._seat.hand_in(round_, fields):
            self._tell(f"round {round_}: trained too late: the run is no longer in it")
            return
        note_handed_in(round_, self._config.client)
        if "refused" not in fields:
            self._unjudged = round_
            self._exchange.release_local()
        self._submitted = (round_, fields)

    def _repeat_what_is_forgotten(self, round_: int) -> None:
        """Write the start and the update of the run's current round again, if Redis has lost them in a failover."""
        if self._training == round_ and not self._events.is_set(Event.TRAIN_STARTED, round_):
            self._events.start_round(round_, edge=self._seat.token)
        if self._submitted is None or self._submitted[0] != round_:
            return
        if not self._seat.has_update(round_):
            self._tell(f"Redis has forgotten the update of round {round_}: handing it in again")
            self._hand_in(*self._submitted)

    def _read_verdict(self, round_: int) -> None:
        accepted = self._submitted is not None and self._submitted[0]  # which another structure may have undone
        if round_ not in (self._unjudged, accepted):
            return
        verdict = self._seat.verdict(round_)
        if not verdict:
            return
        if round_ == self._unjudged:
            self._unjudged = 0
        if verdict.get("accepted") == "1":
            return
        own = self._submitted is not None and self._submitted[0] == round_ and "refused" in self._submitted[1]
        reason = verdict.get("reason", "")
        told = [] if own else [f"the update was refused: {reason}"]  # why this edge itself refused it was told already
        if self._newest <= round_ and reason != late(round_).reason and self._refused != round_:
            self._refused = round_
            told.append(f"once that is mended start this again, and it trains round {round_} again while that is open")
        if told:
            self._tell(f"round {round_}: {'; '.join(told)}")

    def _is_past(self, round_: int) -> Callable[[object], bool]:
        """Whether what has come says that the run is no longer in this round."""

        def over(item: object) -> bool:
            telling = (RESYNC, self._runs.keys.state)
            if not isinstance(item, _Woken) or not any(
                channel in telling or channel.endswith(":task") for channel in item.channels
            ):
                return False
            view = self._runs.find()
            return view is None or view.state.ended or view.round != round_

        return over

    # -- ends

    def _trainer_ended(self, code: int) -> bool:
        """React to the trainer's end; True when the run is over."""
        trainer = self._trainer
        assert trainer is not None
        view = self._read_run()
        if view.state.ended:  # it may have heard of that before this process did
            self._run_ended(view)
            return True
        if self._training:
            self._check_finished()  # the event may still be on its way here
        if code != 0:
            raise self._died(trainer, code, self._where())
        if not self._ready:
            self._check_ready()
        if self._training and self._behind and self._events.taken() < self._training:
            self._training = 0  # a round was opened while it was leaving
        if self._training or not self._behind:
            raise self._died(trainer, code, self._where())
        self._left = True
        self._tell(self._how_it_left())
        self._report(ClientState.LEFT, {"reason": f"its trainer ended after round {self._behind}"})
        return False

    def _how_it_left(self) -> str:
        """What the end of the trainer means for the run."""
        more = self._rounds - self._behind
        if more <= 0:
            return f"the trainer is done after round {self._behind}"
        return (
            f"the trainer ended by itself after round {self._behind} of {self._rounds}: this site takes no part in the "
            f"{count_of(more, 'round')} to come, and the run waits for it, or goes on or ends without it; start this "
            "again to take part again, and let the script loop until WaitEvent says that the run is over"
        )

    def _died(self, trainer: ChildProcess, code: int, where: str) -> Died:
        story = obituary("the trainer", code, trainer.last_lines, where)
        return Died(f"{story}{'' if code else _LOOP}", Notice(Failure.ENDED, code, where))

    def _where(self) -> str:
        if self._training:
            return f"in round {self._training}, before TrainFinished"
        if not self._ready:
            return "before TrainInitDone"
        return f"after round {self._behind}" if self._behind else "before its first round"

    def _run_ended(self, view: RunView) -> None:
        trainer = self._trainer
        finished, missed = view.state is RunState.FINISHED, None
        if finished:

            def fetch() -> None:
                model = self._trust.named(view.global_model)
                self._trust.check_final(self._archive, self._run_id, view.round, model, digest=self._manifest_digest)
                self._exchange.place_global(model)

            try:
                self._transfers.carry(fetch)
            except (UpdateRefused, StoreError) as error:
                missed = error
        elif trainer is not None and trainer.exit_code is None:
            trainer.stop(2.0)
        if trainer is not None:
            code = trainer.wait(self._config.grace_s)
            if code is None:
                self._tell(
                    f"the trainer is still running {self._config.grace_s:g} s after the end of the run: stopping it"
                )
                trainer.stop(2.0)
            elif code != 0 and finished and not self._left:
                raise self._died(trainer, code, "after the last round")
        if view.state is RunState.STOPPED:
            raise RunStopped(f"run {self._config.run!r} is {view.state}: {view.reason}")
        if not finished:
            raise RunError(f"run {self._config.run!r} is {view.state}: {view.reason}")
        if missed is not None:
            raise type(missed)(
                f"run {self._config.run!r} is finished, and its final global model could not be fetched, so that "
                f"{self._workspace.global_model} holds the one before, if any: {missed}"
            )
        where = f"the final global model is at {self._workspace.global_model}"
        if ended_early(view):
            raise RunFinishedEarly(f"run {self._config.run!r} is finished: {view.reason}; {where}")
        self._tell(f"run {self._config.run!r} is finished; {where}")

    def _give_notice(self, notice: Notice, text: str = "") -> None:
        self._noticed = True
        state = ClientState.STOPPED if notice.failure is Failure.SIGNAL else ClientState.FAILED
        with contextlib.suppress(Exception):  # an edge that cannot say goodbye is missed by its lease
            self._report(state, {"reason": notice.reason, **notice.fields(self._shared(text))})

    def _report(self, state: ClientState, why: Mapping[str, str] | None = None) -> None:
        self._seat.report(state, why or {}, behind=self._behind, public_key=str(self._key.public))

    # -- other threads

    def _listen(self, subscription: Subscription) -> None:
        own = f":event:{Event.TRAIN_STARTED}"
        try:
            while not self._closing.is_set():
                channels = subscription.wait(_RELISTEN_S) or [RESYNC]
                if any(not channel.endswith(own) for channel in channels):
                    self._inbox.put(_Woken(tuple(channels)))
        except FlavorError as error:
            self._inbox.put(_Failure(error))
        finally:
            subscription.close()
