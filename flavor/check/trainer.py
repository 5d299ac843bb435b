"""Drive one script through a few rounds: the steps of `check-fl`, in their order.

This process plays every part but the script: the edge (its lease, files and events) and, by an `Aggregation`, the other
clients and the aggregator between the rounds. Each step waits for the script with a deadline and records what it saw. A
failure after which the run cannot go on ends it, and the checks that were not reached are skipped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from flavor.bus.address import to_environment
from flavor.check.again import Again, judge_first_round
from flavor.check.aggregation import Aggregation, Mean, Sent
from flavor.check.algorithm_calls import AlgorithmCalls
from flavor.check.fake_bus import CLIENT, RUN, FakeBus
from flavor.check.folders import Folders, Stamp
from flavor.check.handed_in import HandedIn
from flavor.check.model import Tensors
from flavor.check.output import Screen
from flavor.check.progress import look_at_progress
from flavor.check.report import Check, Report
from flavor.check.script import END_S, Ended, Late, Over, Script
from flavor.check.second_wait import AGAIN, ONCE_A_ROUND, SecondWait
from flavor.check.trainer_checks import (
    ENDS,
    FINISHED,
    FROM_GLOBAL,
    NO_FOLDER,
    READY,
    SAVES,
    SEEDED,
    STARTS,
    STILL_TRAINS,
    TRAINER_CHECKS,
    WAITS,
    late_for_ready,
    leave_out,
)
from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.kinds import TENSORS
from flavor.checkpoints.npz_suffix import npz_hint
from flavor.parts import WHOLE, Parts
from flavor.programs.own_variates import write_own_variates
from flavor.programs.readmark import ReadMark
from flavor.programs.trainer_environment import trainer_environment
from flavor.records.names import Event
from flavor.saved import is_saved

_OTHERS_S = 5.0
"""How long one process of a script may wait for its first round before another process has set TrainInitDone."""


@dataclass(frozen=True)
class CheckedTrainer:
    """The script that is checked, and the settings of the check."""

    command: Sequence[str]
    preprocess: Sequence[str] | None = None
    rounds: int = 3
    timeout_s: float = 600.0
    checkpoints: CheckpointKind = TENSORS
    parts: Parts = WHOLE
    second_round: str = "--rounds 2 shows it"
    """How to get a second round, if there is only one."""


class TrainerCheck:
    """Checks one training script. Raises `CommandNotFound` for a program that cannot be started."""

    def __init__(
        self,
        settings: CheckedTrainer,
        folders: Folders,
        *,
        environment: Mapping[str, str],
        screen: Screen,
        aggregation: Aggregation | None = None,
    ) -> None:
        self._settings, self._folders, self._screen = settings, folders, screen
        self._files = folders.workspace
        self._base = environment
        self._report = Report(TRAINER_CHECKS)
        self._second = SecondWait(self._files.local_model, lambda: (self._bus.events.unfinished(), self._script.pid))
        self._bus = FakeBus(
            settings.rounds,
            on_set=self._about_to_set,
            on_wait=self._second.enters_wait,
            on_ask=self._asks_for,
        )
        self._asked: dict[str, None] = {}  # events besides TrainStarted that the script has asked for
        self._aggregation = aggregation or Mean(settings.parts)
        self._script = Script(self._bus, screen, settings.timeout_s, mark="| ", alarm=self._alarm)
        self._at_event: dict[str, tuple[Stamp | None, Stamp | None]] = {}
        self._set_again = False
        self._handed_in = HandedIn(self._report, settings.rounds, settings.parts)
        self._calls = AlgorithmCalls(self._report, self._files.local_model)
        self._mark: ReadMark | None = None
        self._was_read: dict[str, bool | None] = {}  # at TrainFinished, by its key
        self._first: Tensors | None = None  # what was handed in in round one

    def run(self) -> Report:
        """Drive the script to its end; stop it if it does not get there."""
        settings = self._settings
        leave_out(self._report, settings.checkpoints, settings.rounds, second_round=settings.second_round)
        with self._bus:
            try:
                self._aggregation.start()
                self._start()
                self._await_ready()
                for round_ in range(1, self._settings.rounds + 1):
                    self._await_looking(round_)
                    self._begin(round_)
                    self._await_finished(round_)
                    self._collect(round_)
                self._finish()
                look_at_progress(self._report, self._files.local_model)
                self._start_again()
            except Over:
                look_at_progress(self._report, self._files.local_model)
            finally:
                self._screen.waited()
                self._script.stop()
                self._calls.end()
                self._aggregation.stop()
        return self._report

    # -- the steps

    def _start(self) -> None:
        self._files.clear_local()
        if (command := self._settings.preprocess) is not None:
            launch = partial(self._launch, command, "preprocess")
            if failure := self._script.preprocessed(launch, self._folders.input_is_empty):
                self._give_up(STARTS, *failure)
        self._launch(self._settings.command, "trainer")
        self._report.passed(STARTS)

    def _await_ready(self) -> None:
        began = time.monotonic()

        def ready() -> bool:
            return self._bus.events.is_set(Event.TRAIN_INIT_DONE, 0)

        try:
            self._script.wait("TrainInitDone", lambda: ready() or self._bus.waiting)
            if not ready():  # another process of the script may be about to
                with contextlib.suppress(Late):
                    self._script.wait("TrainInitDone", ready, limit_s=min(_OTHERS_S, self._settings.timeout_s))
            if not ready():
                self._give_up(READY, "it waits for TrainStarted without having set it, so that no round would begin")
        except Ended:
            self._give_up(READY, self._script.obituary("the script", "before TrainInitDone"), hint=self._death_hint)
        except Late:
            self._give_up(READY, *late_for_ready(self._script.limit, called=self._bus.called))
        self._report.passed(READY, f"after {time.monotonic() - began:.1f} s")

    def _await_looking(self, round_: int) -> None:
        """Wait until the script calls WaitEvent, and check that it has not trained before."""
        check = WAITS if round_ == 1 else ENDS
        place = "after TrainInitDone" if round_ == 1 else f"after round {round_ - 1} of {self._settings.rounds}"
        handed_in = self._at_event.get(self._finished_key(round_ - 1), (None, None))

        def acts() -> bool:
            return self._bus.looking or self._set_again or self._bus.events.is_set(Event.TRAIN_FINISHED, 0)

        trouble, hint = "", None
        try:
            self._script.wait(f"the script to wait for round {round_}", acts)
        except Ended:
            trouble, hint = self._script.obituary("the script", place), self._death_hint
        except Late:
            trouble = f"the script did not wait for TrainStarted within {self._script.limit} {place}"
        changed = self._folders.stamps() != handed_in
        if round_ > 1 and changed and self._bus.looking:
            self._report.failed(FINISHED, f"round {round_ - 1}: the model or info.json changed after TrainFinished")
        elif changed or self._bus.events.is_set(Event.TRAIN_FINISHED, 0):
            what = f"it wrote {self._written()}" if changed else "it set TrainFinished"
            self._give_up(WAITS, f"round {round_}: {what} before TrainStarted{self._waited_for}")
        if trouble:
            self._give_up(check, trouble, hint=hint)
        if not self._bus.looking:
            self._give_up(WAITS, f"round {round_}: it set TrainFinished again before TrainStarted")
        self._report.passed(WAITS)

    def _begin(self, round_: int) -> None:
        look_at_progress(self._report, self._files.local_model)
        self._screen.tell(f"round {round_} of {self._settings.rounds}")
        self._files.clear_local()
        self._second.begins(round_)
        self._calls.begin_round()
        self._set_again = False
        if round_ > 1:
            self._folders.place_made_in(round_ - 1)
        write_own_variates(self._files.global_model, self._handed_in.own_variates)
        self._mark = ReadMark(self._files.global_model)
        self._bus.events.start_round(round_)

    def _await_finished(self, round_: int) -> None:
        def finished() -> bool:
            set_ = self._bus.events.is_set
            return set_(Event.TRAIN_FINISHED, round_) or (round_ == 1 and set_(Event.TRAIN_FINISHED, 0))

        try:
            self._script.wait(f"TrainFinished of round {round_}", lambda: finished() or self._second.is_certain)
        except Ended:
            detail = self._script.obituary("the script", f"in round {round_}, before TrainFinished")
            self._not_finished(round_, detail, hint=self._death_hint)
        except Late:
            if not self._second.is_seen:
                detail = (
                    f"round {round_}: not set within {self._script.limit} after TrainStarted; the script still runs"
                )
                self._not_finished(round_, detail, hint=STILL_TRAINS)
        if not finished():
            self._give_up(FINISHED, f"round {round_}: {AGAIN}", hint=ONCE_A_ROUND)
        if not self._bus.events.is_set(Event.TRAIN_FINISHED, round_):
            self._give_up(WAITS, f"round 1: it set TrainFinished before TrainStarted{self._waited_for}")
        if self._bus.events.taken() < round_:
            detail = f"round {round_}: it set TrainFinished without having waited for TrainStarted{self._waited_for}"
            self._give_up(WAITS, detail)

    def _not_finished(self, round_: int, detail: str, *, hint: str | None = None) -> NoReturn:
        if round_ > 1:
            self._aggregation.taken_up(round_, finished=False)
        self._give_up(FINISHED, detail, hint=hint)

    def _collect(self, round_: int) -> None:
        """Inspect the files of the round, and make the next global model."""
        files = (self._files.local_model, self._files.local_info)
        at_event = self._keep_marks(self._finished_key(round_))
        if None in at_event:
            self._let_it_write(round_)
            late = [path.name for path, was in zip(files, at_event, strict=True) if was is None and path.is_file()]
            if late:
                self._report.failed(FINISHED, f"round {round_}: {' and '.join(late)} came after TrainFinished")
                self._at_event[self._finished_key(round_)] = self._folders.stamps()
        self._calls.look_at(round_)
        info = self._handed_in.look_at_info(round_, self._files.local_info)
        if not self._files.local_model.is_file():
            hint = npz_hint(self._files.local_model) or (NO_FOLDER if is_saved(self._files.local_model) else None)
            self._give_up(SAVES, f"round {round_}: there is no {self._files.local_model}", hint=hint)
        if round_ == 1 and self._folders.pretrained is not None:
            judge_first_round(self._report, self._was_read[self._finished_key(1)])
        taken = self._folders.take(round_)
        kind = self._settings.checkpoints
        is_empty = not (kind.has_tensors or taken.stat().st_size)
        if is_empty:
            self._let_it_write(round_)
        self._stop_if_changed(round_)
        if is_empty:
            self._give_up(SAVES, f"round {round_}: {self._files.local_model} is empty")
        content = None
        if kind.has_tensors:
            self._report.passed(SAVES, f"{taken.stat().st_size} bytes")
            content = self._handed_in.look_at_model(round_, taken, self._was_read[self._finished_key(round_)])
        else:
            self._report.passed(SAVES, self._handed_in.described(round_, taken, kind))
        if content:
            is_first = round_ == 1 and self._folders.pretrained is None
            self._calls.look_at_model(round_, content[0].tensors, is_first=is_first)
        if content and round_ == 1:
            self._first = self._handed_in.shared(content[0].tensors)
        if content and round_ == 1 and (start := self._folders.pretrained) is not None:
            self._handed_in.look_at_start(start, content[0])
        if round_ > 1:
            self._aggregation.taken_up(round_, finished=True)
        self._report.passed(FINISHED)
        given, target = self._folders.global_copy(round_ - 1), self._folders.global_copy(round_)
        try:
            made = self._aggregation.make(round_, Sent(taken, content, info), target)
        finally:
            if content is None and round_ > 1:
                self._handed_in.look_at_bytes(round_, given, taken, target)
        if content and made:
            self._handed_in.remember(content[0], made)

    def _finish(self) -> None:
        rounds = self._settings.rounds
        limit_s = min(END_S, self._settings.timeout_s)
        self._folders.place_global(rounds)
        self._bus.finish()
        try:
            self._script.wait("the script to end", lambda: False, limit_s=limit_s)
        except Late:
            self._report.failed(ENDS, f"still running {limit_s:g} s after the end of the run")
        except Ended:
            if self._script.exit_code() == 0:
                self._report.passed(ENDS, f"exit code 0 after {rounds} round{'s' if rounds > 1 else ''}")
            else:
                detail = self._script.obituary("the script", "after the last round")
                self._report.failed(ENDS, detail, hint=self._death_hint)
        if self._folders.stamps() != self._at_event[self._finished_key(rounds)]:
            self._report.failed(FINISHED, f"round {rounds}: the model or info.json changed after TrainFinished")
        self._aggregation.end()

    def _start_again(self) -> None:
        """Start the script again, without a global model and with one, as a run may."""
        if not self._report.ok:
            return
        settings = self._settings
        launch = partial(self._launch, settings.command, "trainer-again")
        again = Again(
            self._report,
            self._files,
            launch,
            self._screen,
            settings.rounds,
            settings.timeout_s,
            self._handed_in.shared,
        )
        if self._folders.pretrained is not None:
            self._report.skipped(SEEDED, "round 1 started from the weights at $GLOBAL_MODEL_PATH")
        elif self._first is not None:
            again.without_global_model(self._first)
        if self._first is None and settings.rounds == 1:
            self._report.skipped(FROM_GLOBAL, "nothing here makes a global model of this checkpoint")
        elif self._folders.pretrained is None:
            self._folders.place_made_in(settings.rounds)
            again.with_global_model(self._handed_in.last)

    # -- what was handed in

    def _stop_if_changed(self, round_: int) -> None:
        """End the check where a model changed while it was copied, with the reason."""
        if self._folders.stamps() == self._at_event[self._finished_key(round_)]:
            return
        if round_ < self._settings.rounds:
            self._await_looking(round_ + 1)
        self._give_up(FINISHED, f"round {round_}: the model or info.json changed after TrainFinished")

    # -- how one waits for a script

    def _let_it_write(self, round_: int) -> None:
        """Give a script that set TrainFinished too early the time to write, until it waits again or ends."""
        try:
            self._script.wait(f"the files of round {round_}", lambda: self._bus.looking)
        except (Ended, Late):
            return

    def _alarm(self) -> None:
        """End the check where it makes no sense to go on."""
        self._aggregation.watch()
        for round_ in range(self._settings.rounds + 1):
            if self._bus.events.is_set(Event.ERROR, round_):
                self._give_up(FINISHED, "the script set the event Error")

    def _about_to_set(self, key: str) -> None:
        """Keep the marks of the files at TrainFinished, while the script waits for the answer."""
        if key.endswith(f":event:{Event.TRAIN_FINISHED}"):
            self._set_again = self._set_again or key in self._at_event
            self._keep_marks(key)

    def _keep_marks(self, key: str) -> tuple[Stamp | None, Stamp | None]:
        if key not in self._at_event:
            self._was_read[key] = self._mark.was_read() if self._mark else None
        return self._at_event.setdefault(key, self._folders.stamps())

    def _asks_for(self, key: str) -> None:
        if (event := key.rpartition(":event:")[2]) != Event.ERROR:
            self._asked[event] = None

    @property
    def _waited_for(self) -> str:
        return f"; it asked for {', '.join(self._asked)}" if self._asked else ""

    def _finished_key(self, round_: int) -> str:
        return self._bus.keys.event(round_, Event.TRAIN_FINISHED)

    def _launch(
        self,
        command: Sequence[str],
        log: str,
        script: Script | None = None,
        bus: FakeBus | None = None,
        rounds: int | None = None,
    ) -> None:
        base = to_environment(self._base, (bus or self._bus).url)
        rounds = rounds or self._settings.rounds
        environment = trainer_environment(base, self._files, rounds=rounds, run=RUN, client=CLIENT)
        environment["CHECK_FL"] = "true"
        (script or self._script).launch(command, environment, self._files.log / f"{log}.log")

    @property
    def _death_hint(self) -> str | None:
        return self._script.death_hint(self._folders.input_is_empty)

    def _give_up(self, check: Check, detail: str, hint: str | None = None) -> NoReturn:
        self._report.failed(check, detail, hint=hint)
        raise Over

    def _written(self) -> str:
        names = zip((self._files.local_model, self._files.local_info), self._folders.stamps(), strict=True)
        return " and ".join(path.name for path, was in names if was is not None) or "and removed files"
