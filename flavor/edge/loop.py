"""The edge's loop: reacts to news from the bus and the trainer, one by one, until the run or the trainer ends."""

from __future__ import annotations

import queue
from collections.abc import Callable

from flavor.bus.connection import shown
from flavor.bus.events import ClientEvents
from flavor.edge.evaluating import Evaluating
from flavor.edge.idleness import Idleness
from flavor.edge.inbox import EVERYTHING, Broken, Ended, EvaluatorEnded, Inbox, News
from flavor.edge.joining import Site
from flavor.edge.part import Phase
from flavor.edge.run_identity import checked_continuity
from flavor.edge.standing import Standing
from flavor.edge.trainer import Trainer, died_of_error, how_it_left, where
from flavor.edge.updates import Updates
from flavor.edge.waiting import awaited
from flavor.edge.work import Work
from flavor.errors import RunFinishedEarly
from flavor.records.names import Event
from flavor.records.run import RunView
from flavor.view.site_events import TrainerLeft


class Loop:
    """Reacts to each item of the inbox. No news is lost with a connection: the loop reads all keys again after that.

    `run_ended` is called once, when the run is over.
    """

    def __init__(
        self,
        site: Site,
        inbox: Inbox,
        *,
        standing: Standing,
        trainer: Trainer,
        work: Work,
        updates: Updates,
        events: ClientEvents,
        evaluating: Evaluating | None = None,
        run_ended: Callable[[RunView], None],
    ) -> None:
        self._site, self._inbox, self._events = site, inbox, events
        self._standing, self._trainer, self._work, self._updates = standing, trainer, work, updates
        self._evaluating, self._run_ended = evaluating, run_ended
        self._keys = site.runs.keys.client(site.config.client)
        self._idleness = Idleness(site.observer)

    def run(self) -> None:
        """React to items until the run is over. Raises what `Edge.run` raises."""
        while not self._step():
            part, rounds = self._standing.part, self._site.run.rounds
            if part.has_left and not part.unjudged and part.behind < rounds:
                mine = f"this site's part in run {self._site.config.run!r} is finished"
                raise RunFinishedEarly(f"{mine}: early, after round {part.behind} of {rounds}")

    def _step(self) -> bool:
        """Wait for one item and react to it; returns whether the run is over."""
        part = self._standing.part
        is_starting = part.phase is Phase.STARTING
        is_judging = self._evaluating is not None and self._evaluating.is_busy
        quarantined, is_buffered = self._standing.quarantined, self._site.is_buffered
        waits_for = "" if is_judging else awaited(part, is_buffered=is_buffered, quarantined=quarantined)
        self._idleness.waits_for(waits_for, is_stalled=bool(part.stalled))
        if self._idleness.look() and part.stalled:
            self._standing.stall()
        try:
            item = self._inbox.get(timeout=self._trainer.unready_left_s() if is_starting else self._idleness.left_s())
        except queue.Empty:
            if is_starting:
                self._trainer.tell_unready()
            return False
        if isinstance(item, Broken):
            raise item.error
        if isinstance(item, Ended):
            return self._trainer_ended(item.code)
        if isinstance(item, EvaluatorEnded):
            assert self._evaluating is not None
            self._evaluating.ended(item)
            self._go_on()
            return False
        return self.hear(News.of(item, self._keys, self._site.runs.keys.state))

    def hear(self, news: News) -> bool:
        """React to news from the bus; returns whether the run is over."""
        if news.resync or news.run:
            view = self._read_run()
            if view.state.ended:
                self._run_ended(view)
                return True
            if news.resync:
                round_ = self._site.newest_task(view.round)
                self._work.repeat_if_forgotten(round_)
                self._updates.repeat_if_forgotten(round_)
                self._heard_of(round_)
            self._standing.announce()
        if news.resync or news.admission:
            self._standing.check_admitted()
        if self._standing.part.phase is Phase.STARTING and (news.resync or news.is_set(Event.TRAIN_INIT_DONE, 0)):
            self._check_ready()
        for round_ in news.rounds("task"):
            self._heard_of(round_)
        for round_ in news.rounds("verdict"):
            self._updates.read_verdict(round_)
        self._check_error(news)
        if news.resync and (unjudged := self._standing.part.unjudged):
            self._updates.read_verdict(unjudged)
        if self._evaluating is not None and (news.resync or news.evaluations):
            self._evaluating.read(resync=news.resync)
        self._work.look(news)
        self._go_on()
        return False

    def _go_on(self) -> None:
        """Begin what can begin now: first the evaluations that await this site, then the newest round."""
        if self._evaluating is not None:
            self._evaluating.look(self._standing.part)
            if self._evaluating.is_busy:
                return
        if self._standing.part.may_begin:
            self._begin(self._standing.part.newest)

    def _begin(self, round_: int) -> None:
        task = self._site.membership.task(round_)
        if task:  # else this client is not sampled in this round
            self._work.begin(round_, task)  # another kind of task: another `Work`, chosen here

    def _heard_of(self, round_: int) -> None:
        self._standing.part = self._standing.part.heard_of(round_)

    def _check_ready(self) -> None:
        if self._events.is_set(Event.TRAIN_INIT_DONE, 0):
            self._standing.part = self._standing.part.got_ready()
            self._standing.announce()

    def _check_error(self, news: News) -> None:
        """Raise `Died` if the trainer has set the event Error in a round that it may be in."""
        if news.rounds(f"event:{Event.ERROR}"):
            raise died_of_error()
        part = self._standing.part
        if news.resync and self._events.is_set(Event.ERROR, 0, part.round, part.behind, self._events.taken()):
            raise died_of_error()

    def _read_run(self) -> RunView:
        """Read the run; raises as `checked_continuity`."""
        config = self._site.config
        return checked_continuity(
            config.run,
            self._site.runs.find(),
            incarnation=self._site.run.incarnation,
            newest=self._standing.part.newest,
            where=shown(config.redis_url),
        )

    def _trainer_ended(self, code: int) -> bool:
        """React to the trainer's end; returns whether the run is over."""
        view = self._read_run()
        if view.state.ended:  # the trainer may have heard of that before this process did
            self._run_ended(view)
            return True
        if self._standing.part.round:
            self._work.look(EVERYTHING)  # the event may still be on its way here
        if code != 0:
            raise self._trainer.died(code, where(self._standing.part))
        if self._standing.part.phase is Phase.STARTING:
            self._check_ready()
        part = self._standing.part
        is_in_round = bool(part.round) and not (part.behind and self._events.taken() < part.round)
        if is_in_round or not part.behind:  # else a round was opened, at most, while the trainer was ending
            raise self._trainer.died(code, where(part))
        self._site.observer.hear(TrainerLeft(how_it_left(part, self._site.run.rounds)))
        self._standing.leave()
        return False
