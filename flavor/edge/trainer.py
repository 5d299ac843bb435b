"""Runs the site's training script, from the preprocess command to the end of the trainer."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence

from flavor.bus.address import to_environment
from flavor.bus.variables import PATIENCE_VARIABLE
from flavor.counted import counted
from flavor.edge.inbox import Ended, Inbox
from flavor.edge.joining import Site
from flavor.edge.notice import Died, Failure, Notice
from flavor.edge.part import Part, Phase
from flavor.edge.relay import Relay
from flavor.programs.process import ChildProcess, obituary
from flavor.programs.trainer_environment import trainer_environment
from flavor.proxy import without_password
from flavor.view.site_events import PreprocessBegun, TrainerAwaited, TrainerStopped

_STOP_S = 2.0
_STOP_JOB_S = 10.0
"""Seconds that a command has to end whose script runs on another machine: it ends that script, too."""
_UNREADY_S = 30.0
"""Seconds without TrainInitDone after which the user is told; told again after twice that time, and so on."""
_LOOP = (
    "; it has to go on until the run is over: SetEvent('TrainInitDone') once, then in each round "
    "WaitEvent('TrainStarted'), training, SetEvent('TrainFinished'); check-fl shows what is missing"
)
"""Advice about a script that ended with exit code 0 within a round, or before the first."""

_UNASKED = (
    "; its script has not asked for anything: if it has begun, its job lacks the environment of this edge, which Slurm "
    "passes on with --export=ALL, or the script has failed before its first event"
)
"""Advice about a command with a relay whose script was not heard of."""


class Trainer:
    """Starts the user's commands, tells when the trainer is late to be ready, and ends them with the edge."""

    def __init__(self, site: Site, inbox: Inbox, relay: Relay | None = None) -> None:
        """`relay` is between the trainer and Redis; None for a trainer that asks Redis itself."""
        self._site, self._inbox, self._relay = site, inbox, relay
        self._stop_s = _STOP_S if relay is None else _STOP_JOB_S
        self._child: ChildProcess | None = None
        self._started_at = 0.0
        self._spoken_s = _UNREADY_S  # seconds without TrainInitDone until the user is told

    def start(self) -> None:
        """Run the preprocess command, if there is one, to its end; then start the trainer. Raises `TrainerFailed`."""
        site = self._site
        base = to_environment(os.environ, site.config.redis_url)
        if self._relay is None:  # else it has no use for a proxy
            base = without_password(base, site.workspace.root)
        environment = trainer_environment(
            base,
            site.workspace,
            rounds=site.run.rounds,
            run=site.config.run,
            client=site.config.client,
            edge=site.membership.token,
            settings=site.script_settings,
        )
        environment[PATIENCE_VARIABLE] = f"{site.patience_s:g}"  # a script waits for Redis as long as its edge does
        if self._relay is not None:
            self._relay.begin()
            environment = self._relay.environment(environment)
        self._preprocess(environment)
        self._child = self._started(site.config.command, environment, "trainer")
        self._started_at = time.monotonic()

    def _preprocess(self, environment: dict[str, str]) -> None:
        if self._site.config.preprocess is None:
            return
        self._site.observer.hear(PreprocessBegun())
        child = self._started(self._site.config.preprocess, environment, "preprocess", report_end=False)
        self._child = child
        code = child.wait()
        self._child = None
        if code != 0:
            notice = Notice(Failure.PREPROCESS, code)
            raise Died(obituary("the preprocess command", code or 0, child.last_lines), notice)

    def _started(
        self, command: tuple[str, ...], environment: dict[str, str], log: str, *, report_end: bool = True
    ) -> ChildProcess:
        return ChildProcess(
            command,
            environment=environment,
            log=self._site.workspace.log / f"{log}.log",
            prefix=f"[{self._site.config.client}] ",
            echo=sys.stdout,
            private=True,
            keep=self._site.config.share_log,
            ended=(lambda code: self._inbox.put(Ended(code))) if report_end else None,
        )

    # -- before it is ready

    def unready_left_s(self) -> float:
        """Seconds until `tell_unready` is due for a trainer that has not set TrainInitDone."""
        return max(0.0, self._started_at + self._spoken_s - time.monotonic())

    def tell_unready(self) -> None:
        """Tell the site's user that the trainer has not set TrainInitDone."""
        queued = ""
        if self._relay is not None and not self._relay.is_asked:
            queued = f"; its script has not asked for anything yet: {shlex.join(self._site.config.command)}; `squeue` "
            queued += "shows whether its job still waits for a node"
        self._site.observer.hear(TrainerAwaited(f"no round begins before it has{queued}", self._spoken_s))
        self._spoken_s *= 2

    def last_lines(self) -> Sequence[str]:
        """The last lines of the command that runs, or ran last, as many as the site shares."""
        return self._child.tail() if self._child is not None else ()

    # -- its end

    def stop(self) -> None:
        """End the trainer, if it was started, and all that it has started."""
        if self._child is not None:
            self._child.stop(self._stop_s)

    def stop_unless_ended(self) -> None:
        """End the trainer, if it has not ended by itself."""
        if self._child is not None and self._child.exit_code is None:
            self._child.stop(self._stop_s)

    def end_with_run(self) -> int:
        """Wait for the trainer to end after the run; returns its exit code, or 0 if the edge had to stop it."""
        if self._child is None:
            return 0
        grace_s = self._site.config.grace_s
        code = self._child.wait(grace_s)
        if code is None:
            reason = f"the trainer is still running {grace_s:g} s after the end of the run: stopping it"
            self._site.observer.hear(TrainerStopped(reason))
            self._child.stop(self._stop_s)
        return code or 0

    def died(self, code: int, where: str) -> Died:
        """The error to raise for a trainer that ended with this exit code, `where` in its round."""
        assert self._child is not None
        story = obituary("the trainer", code, self._child.last_lines, where)
        unasked = _UNASKED if code and self._relay is not None and not self._relay.is_asked else ""
        return Died(f"{story}{unasked}{'' if code else _LOOP}", Notice(Failure.ENDED, code, where))


def died_of_error() -> Died:
    """The error to raise for a trainer that has set the event Error."""
    return Died("the trainer set the event Error", Notice(Failure.ERROR_EVENT))


def where(part: Part) -> str:
    """Where in its rounds a trainer is, in words that quote nothing of the script."""
    if part.round:
        return f"in round {part.round}, before TrainFinished"
    if part.phase is Phase.STARTING:
        return "before TrainInitDone"
    return f"after round {part.behind}" if part.behind else "before its first round"


def how_it_left(part: Part, rounds: int) -> str:
    """What the successful end of the trainer means for a run of so many rounds."""
    more = rounds - part.behind
    if more <= 0:
        return f"the trainer is done after round {part.behind}"
    return (
        f"the trainer ended by itself after round {part.behind} of {rounds}: this site takes no part in the "
        f"{counted(more, 'round')} to come, and the run waits for it, or goes on or ends without it; start this "
        "again to take part again, and let the script loop until WaitEvent says that the run is over"
    )
