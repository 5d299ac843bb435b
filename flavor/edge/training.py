"""Trains one round at this site: take the task, let the trainer train, hand in its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flavor.bus.events import ClientEvents
from flavor.bus.subscription import RESYNC
from flavor.counted import counted
from flavor.edge.exchange import Exchange
from flavor.edge.inbox import News, Woken
from flavor.edge.joining import Site
from flavor.edge.models import GlobalModels
from flavor.edge.notice import Failure, Notice, notice_of
from flavor.edge.standing import Standing
from flavor.edge.transfers import Transfers
from flavor.edge.updates import Updates
from flavor.errors import InvalidUpdate, MisuseError, TransferStopped
from flavor.failpoints import reach
from flavor.ledger.statement import signed
from flavor.records.names import Event
from flavor.records.pulse import Doing
from flavor.records.task import Task
from flavor.records.update import Update
from flavor.store.trouble import StoreHealth
from flavor.view.site_events import ModelUnread, RoundMissed, TaskBegun


class Training:
    """Has the trainer train the tasks of this client. A `Work`.

    Raises `BusUnavailable`, `StoreError`, and `LeaseLost` when another process is this client. After an error the
    trainer's files stay, for the next process of this client.
    """

    def __init__(
        self,
        site: Site,
        standing: Standing,
        updates: Updates,
        *,
        events: ClientEvents,
        transfers: Transfers,
        exchange: Exchange,
        models: GlobalModels,
        health: StoreHealth,
    ) -> None:
        self._site, self._standing, self._updates, self._events = site, standing, updates, events
        self._transfers, self._exchange, self._models, self._health = transfers, exchange, models, health

    def begin(self, round_: int, task: Task) -> None:
        """Place the global model that the task names, and set TrainStarted; skip a round that is over before that."""
        model = self._models.of_task(task)
        if model is not None and round_ > 1:
            self._exchange.learn_own()
        self._site.workspace.clear_local()
        if model is not None:
            self._site.meter.begin(round_, Doing.DOWNLOADING)
        try:
            self._transfers.carry(
                lambda: self._models.place(round_, model),
                quick=self._models.is_quick(model),
                over=self._is_past(round_),
            )
        except TransferStopped:  # the news of the run's end, or of its next round, comes next
            self._standing.part = self._standing.part.skipped(round_)
            return
        self._standing.part = self._standing.part.began(round_, base=model.model if model else None)
        self._site.meter.begin(round_, Doing.TRAINING)
        self._events.start_round(round_, anew=True, edge=self._site.membership.token)
        self._site.observer.hear(TaskBegun("the trainer was given the task", round_))

    def repeat_if_forgotten(self, round_: int) -> None:
        """Set TrainStarted of the trainer's round again, if the run is in that round and Redis has lost the event."""
        if self._standing.part.round == round_ and not self._events.is_set(Event.TRAIN_STARTED, round_):
            self._events.start_round(round_, edge=self._site.membership.token)

    def look(self, news: News) -> None:
        """Hand in the trainer's round, if the trainer has finished it."""
        round_ = self._standing.part.round
        if round_ and news.is_set(Event.TRAIN_FINISHED, round_):
            self._finished(round_)
        elif round_ and news.resync:
            self._check_finished(round_)

    def _check_finished(self, round_: int) -> None:
        """Read whether the trainer has finished this round, and hand it in if so."""
        if self._events.is_set(Event.TRAIN_FINISHED, round_):
            self._finished(round_)
        else:
            self._standing.part = self._standing.part.waits_without_finishing(self._events.unfinished())

    def _finished(self, round_: int) -> None:
        """Hand in the round, if the trainer has taken it up; a trainer that has not trained from another model."""
        if self._events.taken() >= round_:
            self.hand_in(round_)
            return
        self._standing.part = self._standing.part.finished(round_)
        why = (
            f"the trainer set TrainFinished of round {round_} without having waited for its TrainStarted, so what it "
            "saved is of another global model: call WaitEvent('TrainStarted') at the beginning of every round"
        )
        if not self._events.is_set(Event.TRAIN_STARTED, round_):  # which this edge has set
            why = f"Redis came back empty or older, and no longer knows whether the trainer waited for round {round_}"
        self._updates.refuse(round_, Notice(Failure.NOT_TAKEN_UP), why)

    def hand_in(self, round_: int) -> None:
        """Hand in the trainer's files of this round, or the reason why they cannot be used."""
        self._standing.part = self._standing.part.finished(round_)
        if (newest := self._standing.part.newest) > round_:
            late = f"trained too late: round {newest} is open already"
            if (mode := self._site.settings.buffered) is not None:
                most = counted(mode.max_staleness, "round")
                late = (
                    f"trained too late: the task of round {newest} has taken its place, as an update counts at most "
                    f"{most} after its task"
                )
            self._site.observer.hear(RoundMissed(late, round_))
            return
        self._site.meter.begin(round_, Doing.UPLOADING)
        was_read = self._exchange.was_read(round_)  # before the trainer's next pass can read it
        reach("edge.trained")
        try:
            done = self._transfers.carry(
                lambda: self._collected(round_),
                quick=self._exchange.is_collected_quickly(),
                writes=True,
                over=self._is_past(round_),
            )
        except TransferStopped:
            self._site.observer.hear(RoundMissed("the upload is ended: the run is no longer in it", round_))
            return
        except (InvalidUpdate, MisuseError) as error:
            self._updates.refuse(round_, notice_of(error), str(error))
            return
        update = self._signed(round_, replace(done, base=self._standing.part.base))
        reach("edge.stored")
        self._standing.tell_remarks()
        if self._updates.hand_in(round_, replace(update, unread=self._is_unread(round_, was_read))):
            self._exchange.release_local()
        reach("edge.submitted")

    def _collected(self, round_: int) -> Update:
        with self._health.mounted():
            return self._exchange.collect(self._site.config.run, round_, self._site.config.client)

    def _signed(self, round_: int, update: Update) -> Update:
        site = self._site
        run = (site.config.run, site.run.run_id)
        return signed(update, site.key, run=run, round_=round_, client=site.config.client)

    def _is_unread(self, round_: int, was_read: bool | None) -> bool:
        """Whether the trainer has not read the global model; tells the site's user if so."""
        if was_read is not False:
            return False
        reason = (
            f"the trainer did not read the global model ({self._site.workspace.global_model}) between TrainStarted and "
            "TrainFinished: it trains on from a model of its own, or of an earlier round; load $GLOBAL_MODEL_PATH "
            "after each WaitEvent, not before (check-fl shows what a script does)"
        )
        self._site.observer.hear(ModelUnread(reason, round_))
        return True

    def _is_past(self, round_: int) -> Callable[[object], bool]:
        """A function that says whether an item of the inbox means that the run is no longer in this round."""
        runs = self._site.runs

        def over(item: object) -> bool:
            telling = (RESYNC, runs.keys.state)
            if not isinstance(item, Woken) or not any(
                channel in telling or channel.endswith(":task") for channel in item.channels
            ):
                return False
            view = runs.find()
            return view is None or view.state.ended or self._site.newest_task(view.round) != round_

        return over
