"""The sites of a run that judge models because a command asks for it, also once the run has ended."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flavor.errors import RunError

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.cli.opened_run import OpenedRun
    from flavor.config import RunConfig
    from flavor.coordinator.asked_evaluation import Asked, AskedEvaluation
    from flavor.records.client import ClientStatus
    from flavor.records.evaluation import EvaluationSummary, EvaluationView
    from flavor.records.run import RunView
    from flavor.results.evaluated import Evaluated
    from flavor.store.protocol import ObjectStore


@dataclass
class JudgingSites:
    """What has them judge models, and reads what they have measured."""

    runs: RunStore
    objects: ObjectStore
    driver: AskedEvaluation
    _summaries: dict[tuple[int, int], EvaluationSummary] = field(default_factory=dict)
    _read: int = 0
    """Entries of the run's list of evaluations that were read."""

    def judge(self, asked: Asked) -> Evaluated:
        """Have them judge one model. Raises as `AskedEvaluation.carry_out`."""
        return self._evaluated(self.driver.carry_out(asked))

    def judge_all(self, asked: Sequence[Asked], ended: Callable[[int, Evaluated | str], None]) -> list[Evaluated | str]:
        """Have them judge models in one go; the reason stands in place of an evaluation that has no result.

        `ended` is called with the place in `asked` of each evaluation that is over. Raises as
        `AskedEvaluation.carry_out_all`.
        """
        found: dict[int, Evaluated | str] = {}

        def hear(place: int, view: EvaluationView) -> None:
            found[place] = self._evaluated(view) if view.closed_ms is not None else view.reason
            ended(place, found[place])

        self.driver.carry_out_all(asked, ended=hear)
        return [found[place] for place in range(len(asked))]

    def allowing(self) -> frozenset[str]:
        """Return the sites that allow others to judge their updates now (`flavor-fl --allow-cross`)."""
        return frozenset(name for name, (status, _) in self._statuses().items() if status.allows_cross)

    def crossing(self) -> list[str]:
        """Return those among them that are there and have an evaluator: they judge the updates of others."""
        statuses = self._statuses()
        return sorted(
            name for name, (status, left_ms) in statuses.items() if status.allows_cross and status.evaluates and left_ms
        )

    def _statuses(self) -> Mapping[str, tuple[ClientStatus, int]]:
        return self.runs.clients(self.runs.members())

    def note_placed(self, path: str) -> None:
        """See `Sites`."""
        self.runs.note_placed(path)

    def forget_placed(self, paths: Sequence[str]) -> None:
        """See `Sites`."""
        self.runs.forget_placed(paths)

    def _evaluated(self, done: EvaluationView) -> Evaluated:
        from flavor.results.evaluated import evaluated_of
        from flavor.results.read_evaluated import results_in, summaries_after

        merged, results = results_in(self.objects, done)
        new = summaries_after(self.runs, self._read)
        self._read += len(new)
        self._summaries |= {(each.round, each.number): each for each in new if each is not None}
        summary = self._summaries.get((done.round, done.number))
        return evaluated_of(self.runs.run, done, summary, merged=merged, results=results)


@contextlib.contextmanager
def judging_sites(
    opened: OpenedRun,
    view: RunView,
    config: RunConfig,
    objects: ObjectStore,
    tell: Callable[[str], None],
    *,
    outside: Path | None = None,
) -> Iterator[JudgingSites]:
    """Hold the right to ask the sites of a run; of one that has ended, admit the sites that come for it.

    `outside` is the file of the model, if no round of the run has made it. Raises `LeaseHeld` while another process has
    the right, and `RunError` where no site can come.
    """
    from flavor.bus.jobs import RqJobQueue
    from flavor.bus.no_coordinator import no_coordinator
    from flavor.coordinator.asked_evaluation import AskedEvaluation
    from flavor.coordinator.asking import asking
    from flavor.coordinator.client_log import ClientLog
    from flavor.coordinator.members import Members
    from flavor.coordinator.url_desk import opened_desk
    from flavor.view.observer import Lines, Silent

    runs, url = opened.runs, opened.url
    if opened.has_own_server and (opened.is_left or view.state.ended):
        here = "`flavor contributions -e CMD` judges its models on this machine"
        if outside is not None:
            here = f"`check-fv -m CMD --model {shlex.quote(str(outside))}` judges it on this machine"
        raise RunError(
            f"the sites of run {runs.run!r} ended with its `flavor run`, and no other site reaches a result folder: "
            f"{here}; sites can judge models of a `flavor run --redis-url` at any time (flavor-fv)"
        )
    with contextlib.ExitStack() as stack:
        lease = stack.enter_context(asking(runs, objects, tell))
        members, admitting = None, ""
        if view.state.ended:
            holder = stack.enter_context(no_coordinator(runs, tell))
            admitting, observer = holder.token, Silent()
            members = Members(
                runs,
                observer,
                ClientLog(runs, observer),
                quarantine_after=config.quarantine_after,
                lease_s=config.heartbeat_timeout_s,
                only=None,
                protocol=view.protocol,
            )
        jobs = RqJobQueue(url, config.queue, timeout_s=config.aggregation_timeout_s, run=runs.run)
        driver = AskedEvaluation(
            runs,
            config,
            url=url,
            store=objects,
            lease=lease,
            jobs=jobs,
            observer=Lines(tell),
            members=members,
            admitting=admitting or None,
        )
        stack.callback(opened_desk(runs, config, url, objects, token=admitting, tell=tell).close)
        yield JudgingSites(runs, objects, driver)
