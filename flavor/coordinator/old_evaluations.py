"""Removes the hashes of old evaluations from Redis: its verdicts of many sites are most of what a run keeps there.

What stays of each evaluation is its summary, the digest of its signed record, and that record in the store, from which
`flavor.ledger.closed_evaluation` reads it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from flavor.bus.evaluations import Name
from flavor.bus.runs import RunStore
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationKind
from flavor.records.states import EvaluationState
from flavor.results.read_evaluated import summaries, summaries_after
from flavor.store.protocol import ObjectStore

KEPT_ASKED = 50
"""Number of the newest evaluations that somebody asked for whose hashes stay."""
_OWN = (AUTOMATIC, CENTRAL)
_MOST_ROUNDS = 1000
"""Rounds that are looked at in one go, where a coordinator goes on with a long run."""
_BATCH = 500


class OldEvaluations:
    """The evaluations of one run that the coordinator has opened. It removes them as it removes the hashes of rounds.

    Those stay that a later decision or a reader needs: the evaluations of the best model, the newest of each kind with
    a result, and those that are not over.
    """

    def __init__(self, runs: RunStore, store: ObjectStore) -> None:
        self._runs, self._store = runs, store
        self._looked = 0  # the newest round that was looked at
        self._left: set[Name] = set()  # those of earlier rounds that were needed
        self._read = 0  # entries of the run's list that were read
        self._newest: dict[int, int] = {}  # number of an evaluation to the newest round with a result of it

    def forget(self, newest: int) -> None:
        """Remove what is not needed of evaluations of rounds 1 to `newest`. A second call does nothing."""
        last = min(newest, self._looked + _MOST_ROUNDS)
        wanted = self._left | {(round_, number) for round_ in range(self._looked + 1, last + 1) for number in _OWN}
        needed = self._needed()
        stay = _forget(self._runs, self._store, wanted - needed)
        self._left, self._looked = stay | (wanted & needed), max(last, self._looked)

    def _needed(self) -> set[Name]:
        is_open = set(self._runs.evaluating())  # before the best, which one of them may become
        for summary in summaries_after(self._runs, self._read):
            self._read += 1
            if summary is not None and summary.number in _OWN:
                self._newest[summary.number] = max(summary.round, self._newest.get(summary.number, 0))
        best = self._runs.read().best
        of_best = {(best.round, number) for number in _OWN} if best is not None else set()
        return is_open | of_best | {(round_, number) for number, round_ in self._newest.items()}


def forget_asked(runs: RunStore, store: ObjectStore, *, but: Collection[Name] = ()) -> None:
    """Remove old evaluations that somebody asked for; the newest ones stay, and the newest of a model of the run.

    Only the holder of the lease of `RunKeys.evaluator` calls this; `but` are those whose results it has not read yet.
    """
    asked = runs.asked()
    if not asked:  # opened by an earlier release, or rebuilt by `flavor recover`
        opened_ms = {
            (each.round, each.number): each.opened_ms
            for each in summaries(runs)
            if EvaluationKind.of(each.number) is EvaluationKind.ASKED
        }
        runs.note_asked({name: opened_ms[name] for name in sorted(opened_ms)})
        asked = runs.asked()
    if len(asked) <= KEPT_ASKED:
        return
    known = runs.kept_evaluations(asked)
    with_result = (name for name in reversed(asked) if name in known and known[name].record is not None)
    newest = next((name for name in with_result if known[name].counts), None)
    _forget(runs, store, {*list(asked)[:-KEPT_ASKED]} - {*but, newest})


def _forget(runs: RunStore, store: ObjectStore, names: Iterable[Name]) -> set[Name]:
    """Remove these; return those that stay, because they are not over or their record is not in the store."""
    stay, every = set[Name](), sorted(names)
    for first in range(0, len(every), _BATCH):
        gone = dict[Name, str]()
        for name, known in runs.kept_evaluations(every[first : first + _BATCH]).items():
            if known.state in (EvaluationState.CLOSED, EvaluationState.FAILED) and (
                known.record is None or store.exists(known.record.path)
            ):
                gone[name] = known.record.digest if known.record is not None else ""
            else:
                stay.add(name)
        if gone:
            runs.forget_evaluations(gone)
    return stay
