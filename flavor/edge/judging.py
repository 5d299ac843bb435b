"""A site that judges models and trains nothing (`flavor-fv`): its edge, and the loop of it.

It is a client as any other, with a key, a lease and an inbox. It says of itself that it is an evaluator, so that no
round expects it, waits for it or counts it. A run that is over can still be evaluated, so it stays by default.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys

from flavor.bus.connection import shown
from flavor.bus.subscription import RESYNC, Subscription
from flavor.edge.agent import Edge
from flavor.edge.arrival import ended_early
from flavor.edge.evaluating import Evaluating
from flavor.edge.idleness import Idleness
from flavor.edge.inbox import Broken, EvaluatorEnded, Inbox, News, Woken
from flavor.edge.joining import Site, tell_joining
from flavor.edge.notice import Died, Failure, Notice
from flavor.edge.run_identity import checked_continuity
from flavor.edge.standing import Standing
from flavor.edge.workspace import Workspace
from flavor.errors import RunError, RunFinishedEarly, RunStopped
from flavor.programs.evaluator_environment import evaluator_environment, folders_named
from flavor.programs.process import ChildProcess, obituary
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.view.site_events import JudgesAfterEnd, PreprocessBegun

_STOP_S = 2.0
_AWAITED = "a model to judge: the run's coordinator says when (--evaluate)"
_AWAITED_AFTER_END = "a model to judge: the run is over, and its operator can have its models judged"


class JudgingEdge(Edge):
    """One client of one run that judges models. `run` raises what `Edge.run` raises."""

    def _workspace(self) -> Workspace:
        """Make the folders. `WEIGHT_PATH` of the environment names the model's file, as for the ancestor's images."""
        own, config = folders_named(os.environ), self._config
        return Workspace.prepare(config.workspace, environment=own, input_path=config.input, format_=config.format)

    def _take_part(
        self, site: Site, standing: Standing, subscription: Subscription, leaving: contextlib.ExitStack
    ) -> None:
        """Judge models until this process is stopped, or with `until_end` until the run ends."""
        command = site.config.evaluator
        assert command is not None
        transfers, store, belongings = self._begun(site, standing, leaving, command)
        standing.join()
        tell_joining(site)
        self._keep_pulse(site, standing, transfers, leaving)
        self._listen(subscription, leaving)
        _preprocess(site, leaving)
        standing.part = standing.part.got_ready()
        evaluating = self._evaluating(site, store, transfers, belongings, site.workspace)
        assert evaluating is not None
        leaving.callback(evaluating.stop)
        self._inbox.put(Woken((RESYNC,)))
        JudgingLoop(site, self._inbox, standing=standing, evaluating=evaluating).run()


class JudgingLoop:
    """Reacts to each item of the inbox, as `flavor.edge.loop.Loop` does at a site that trains."""

    def __init__(self, site: Site, inbox: Inbox, *, standing: Standing, evaluating: Evaluating) -> None:
        self._site, self._inbox, self._standing, self._evaluating = site, inbox, standing, evaluating
        self._keys = site.runs.keys.client(site.config.client)
        self._idleness = Idleness(site.observer)
        self._run = site.run
        self._told_end = False  # whether this site's user was told that the run is over

    def run(self) -> None:
        """React to items until this process is stopped, or the run is over. Raises what `Edge.run` raises."""
        while not self._step():
            pass

    def _step(self) -> bool:
        """Wait for one item and react to it; returns whether this site's part is over."""
        awaited = _AWAITED_AFTER_END if self._run.state.ended else _AWAITED
        if self._standing.quarantined:
            awaited = f"the run's operator: this site is {self._standing.quarantined}"
        self._idleness.waits_for("" if self._evaluating.is_busy else awaited)
        self._idleness.look()
        try:
            item = self._inbox.get(timeout=self._idleness.left_s())
        except queue.Empty:
            return False
        if isinstance(item, Broken):
            raise item.error
        if isinstance(item, EvaluatorEnded):
            self._evaluating.ended(item)
        elif isinstance(item, Woken) and self._hear(News.of(item, self._keys, self._site.runs.keys.state)):
            return True
        self._evaluating.look(self._standing.part)
        return False

    def _hear(self, news: News) -> bool:
        """React to news from the bus; returns whether this site's part is over."""
        if news.resync or news.run:
            self._run = self._read_run()
            if self._run.state.ended and not self._site.config.stays:
                self._evaluating.stop()
                self._end(self._run)
                return True
            self._standing.announce()
            self._tell_end()
        if news.resync or news.admission:
            self._standing.check_admitted()
        if news.resync or news.evaluations:
            self._evaluating.read(resync=news.resync)
        return False

    def _read_run(self) -> RunView:
        """Read the run; raises as `checked_continuity`."""
        site = self._site
        return checked_continuity(
            site.config.run,
            site.runs.find(),
            incarnation=site.run.incarnation,
            newest=self._run.round,
            where=shown(site.config.redis_url),
        )

    def _tell_end(self) -> None:
        """Tell this site's user once that the run is over, and why this site does not end with it."""
        has_ended = self._run.state.ended
        if has_ended and not self._told_end:
            how = f"{self._run.state}: {self._run.reason}"
            self._site.observer.hear(JudgesAfterEnd(how, run=self._site.config.run))
        self._told_end = has_ended

    def _end(self, view: RunView) -> None:
        """Raise what fits the end of a run that has not finished as planned."""
        told = f"run {self._site.config.run!r} {view.state.is_now}: {view.reason}"
        if view.state is RunState.STOPPED:
            raise RunStopped(told)
        if view.state is not RunState.FINISHED:
            raise RunError(told)
        if ended_early(view):
            raise RunFinishedEarly(told)
        self._site.observer.hear(JudgesAfterEnd(f"{view.state}: {view.reason}", run=view.run, leaves=True))


def _preprocess(site: Site, leaving: contextlib.ExitStack) -> None:
    """Run the preprocess command, if there is one, to its end. Raises `Died`."""
    config = site.config
    if config.preprocess is None:
        return
    site.observer.hear(PreprocessBegun())
    environment = evaluator_environment(
        os.environ,
        site.workspace,
        round_=0,
        rounds=site.run.rounds,
        run=config.run,
        client=config.client,
        settings=site.script_settings,
    )
    child = ChildProcess(
        config.preprocess,
        environment=environment,
        log=site.workspace.log / "preprocess.log",
        prefix=f"[{config.client}] ",
        echo=sys.stdout,
        private=True,
    )
    leaving.callback(child.stop, _STOP_S)
    code = child.wait()
    if code != 0:
        story = obituary("the preprocess command", code or 0, child.last_lines)
        raise Died(story, Notice(Failure.PREPROCESS, code))
