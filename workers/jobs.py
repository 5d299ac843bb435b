"""The four jobs. Each is harmless when it runs twice, late, or beside a copy of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flavor.errors import DamagedRecord, InvalidSetting, OtherProtocol
from flavor.records.names import is_name
from flavor.view.event import Notice
from workers.aggregation import aggregate_round
from workers.central import judge_model
from workers.context import context
from workers.evaluation import merge_results
from workers.fault import GivenBack
from workers.inspection import inspect_updates


def inspect(run: str, round_: int, clients: Sequence[str]) -> bool:
    """Record a verdict on each of these clients' updates in one round that has none; return whether any had none."""
    return _unless_of_another_release(
        run, lambda: inspect_updates(context(), run, int(round_), [str(client) for client in clients]), of_round=True
    )


def aggregate(run: str, round_: int, attempt: int) -> bool:
    """Aggregate and commit one round, unless another attempt or worker has the right to; return whether it was done."""
    return _unless_of_another_release(
        run, lambda: aggregate_round(context(), run, int(round_), int(attempt)), of_round=True
    )


def merge(run: str, round_: int, evaluation: Sequence[int]) -> bool:
    """Inspect and merge the results of one evaluation: its number and its attempt; return whether it was done."""
    number, attempt = evaluation
    return _unless_of_another_release(
        run, lambda: merge_results(context(), run, int(round_), int(number), attempt=int(attempt))
    )


def judge(run: str, round_: int, attempt: int) -> bool:
    """Judge one round's model on the operator's own data, where this worker can; return whether it was done."""
    return _unless_of_another_release(run, lambda: judge_model(context(), run, int(round_), attempt=int(attempt)))


def _unless_of_another_release(run: str, work: Callable[[], bool], *, of_round: bool = False) -> bool:
    """Leave the job of a run that this release cannot serve or read to another worker.

    `GivenBack` puts it into the queue again, where a worker of another release or with other packages may take it. The
    coordinator asks again for a job of which the records cannot be read. A job of a round is dropped where the run has
    ended, which no worker takes any more: it would wait in the queue for good. (Evaluations go on after the end.)
    """
    try:
        return work()
    except (OtherProtocol, InvalidSetting) as error:
        if of_round and _has_ended(run):
            return False
        raise GivenBack(str(error), run=run) from error
    except DamagedRecord as error:
        context().observer.hear(Notice(f"a job of run {run} was left undone: {error}"))
        return False


def _has_ended(run: str) -> bool:
    """Whether the run has ended, also one of a release that writes what this one does not know."""
    try:
        return context().run(run).read().state.ended
    except DamagedRecord:
        return False


def fits(name: str, arguments: object) -> bool:
    """Return whether these can be the arguments of a job of this name."""
    if not isinstance(arguments, list | tuple) or len(arguments) != 3:
        return False
    run, round_, rest = arguments
    least = 0 if name == MERGE else 1  # the model of an evaluation may be of no round
    if not isinstance(run, str) or not is_name(run) or type(round_) is not int or round_ < least:
        return False
    if name in (AGGREGATE, JUDGE):
        return type(rest) is int and rest >= 1
    if name == MERGE:
        return isinstance(rest, list) and len(rest) == 2 and all(type(each) is int and each >= 0 for each in rest)
    return isinstance(rest, list) and all(isinstance(client, str) and is_name(client) for client in rest)


ALLOWED = {f"{__name__}.{function.__name__}": function for function in (inspect, aggregate, merge, judge)}
"""The only functions that a worker of this project runs."""

AGGREGATE = f"{__name__}.{aggregate.__name__}"
JUDGE = f"{__name__}.{judge.__name__}"
MERGE = f"{__name__}.{merge.__name__}"
