"""Which of several evaluations is shown: the newest, that of the model of a round, or the one that a number names."""

from __future__ import annotations

from collections.abc import Sequence

from flavor.counted import counted
from flavor.errors import RunError
from flavor.policy.advice import some
from flavor.records.evaluation import CENTRAL, EvaluationKind
from flavor.records.own_evaluations import shown_of
from flavor.results.evaluated import OWN_DATA, Evaluated, beside

Name = tuple[int, int]
"""Round and number of an evaluation."""
_MOST_NAMED = 5


def chosen_of(found: Sequence[Evaluated], round_: int | None = None) -> Evaluated | None:
    """Return the newest evaluation, or that of the model of `round_`, with that on the operator's own data beside it.

    `found` is in the order in which they were closed. One by sites comes first; None where there is none. That of a
    round is the run's own, unless there is none. The newest is none of a model that is a single site's update, or lacks
    one.
    """
    those = [each for each in found if round_ in (None, each.round) and each.subject.counts]
    by_sites = [each for each in those if not each.is_central] if round_ is None else shown_of(those)
    if not by_sites:
        return those[-1] if those else None
    newest = by_sites[-1]
    own = [each for each in found if each.is_central and each.round == newest.round]
    return beside(newest, own[-1]) if own else newest


def numbered_of(run: str, there: Sequence[Name], round_: int | None, number: int) -> Name:
    """Return which of these evaluations of `run` has this number, as `found_by`. Raises `RunError` for none."""
    found = found_by(there, round_, number)
    if found is None:
        raise RunError(without_number(run, there, round_, number))
    return found


def found_by(there: Sequence[Name], round_: int | None, number: int) -> Name | None:
    """Return which evaluation has this number, of those that are there in the order in which they were closed.

    With `round_` the one of that round's model, 0 for models that no round has made. Without it the newest for a number
    that stands for an evaluation of the run's own, which is always of a round's model; for another number the one of a
    model that no round has made. None where there is none.
    """
    is_own = EvaluationKind.of(number) is not EvaluationKind.ASKED
    named = [each for each in there if each[1] == number]
    if round_ is not None or not is_own:
        named = [each for each in named if each[0] == (round_ or 0)]
    return named[-1] if named else None


def naming(round_: int, number: int) -> str:
    """Return the options of `flavor results` that name an evaluation: `--round 3 --evaluation 1`."""
    return f"--round {round_} " * bool(round_) + f"--evaluation {number_words(number)}"


def number_words(number: int) -> str:
    """Return a number as `--evaluation` takes it."""
    return "central" if number == CENTRAL else str(number)


def without_number(run: str, there: Sequence[Name], round_: int | None, number: int) -> str:
    """Say that `found_by` finds none, and which evaluations there are."""
    none = f"run {run!r} has no evaluation {number_words(number)}"
    if round_ is None and EvaluationKind.of(number) is not EvaluationKind.ASKED:
        where = OWN_DATA if number == CENTRAL else "by the sites, for the run itself"
        newest = f"; the newest evaluation is {naming(*there[-1])}" if there else ""
        return f"{none}: no model has been judged {where}{newest}"
    model = f"the model of round {round_}" if round_ else "a model that no round has made"
    of_round = sorted(of for each, of in there if each == (round_ or 0))
    shown = some([number_words(each) for each in of_round][-_MOST_NAMED:])
    more = f" ({counted(len(of_round), 'evaluation')})" if len(of_round) > _MOST_NAMED else ""
    have = f"there are {shown}{more}" if of_round else "there are none"
    same = [each for each in there if each[1] == number] or ([] if of_round else there)
    elsewhere = f"; the newest of another model is {naming(*same[-1])}" if same else ""
    return f"{none} of {model}: {have}{elsewhere}"
