"""Judge whether a trainer's next model was trained from the global model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aggregators.dtypes import Kind, kind_of
from flavor.check.aggregation import Made
from flavor.check.model import Tensors, Trace, distance, moves_by_itself, some, trace
from flavor.check.report import Report
from flavor.check.trainer_checks import FROM_GLOBAL, LOADS
from flavor.counted import counted

_STARTED_AGAIN = "started again with a global model"
_FEW_WEIGHTS, _FEW_OF_TENSOR = 50, 24
_CLEAR_SIGMAS, _POSSIBLE_SIGMAS = 4.0, 3.0
_SHARE = 0.2
_LITTLE = 0.03
_LOAD_FIRST = "load it into the model before training, not only before validation, and go on from there"
_LOAD_ALL = (
    "see that each is loaded (names with another prefix and strict=False are skipped without a word); if the training "
    "always brings them to the same values this tells nothing"
)
_SHADOW = (
    "see that what is saved is what was trained: an average of the weights over time (EMA, SWA) has to begin anew from "
    "the global model in each round; if the training just goes that far in a round, this tells nothing"
)
_OWN_AGAIN = "weights of zero, or an aggregator that copies a model, leave nothing to see: start from other weights"
_TRAIN_LESS = "for a clear answer let the script train less in a round (fewer steps, a lower learning rate)"


def compared(before: Tensors, made: Made, after: Tensors) -> Trace:
    """Return the trace of the global model `made` (from the script's model `before`) in the script's next model.

    A user's aggregator may make any model. So the coins have to show in `after`, and they can only if they show in the
    global model: a global model that is the script's own model again, for example, leaves nothing to see.
    """
    left = trace(before, made.tensors, after)
    if made.coins is made.tensors:
        return left
    if trace(before, made.coins, made.tensors).sigmas < _CLEAR_SIGMAS:
        return Trace(0, 0.0, left.share)
    known = trace(before, made.coins, after)
    return replace(left, weights=known.weights, sigmas=max(left.sigmas, known.sigmas))


def not_loaded(before: Tensors, made: Made, after: Tensors) -> list[str]:
    """Return the tensors in which nothing of the global model is left, where others show it.

    Judges a tensor that has enough numbers and stayed closer to the script's last model than the global model was,
    because training that goes far may cover the trace. Does not judge tensors that move without training.
    """
    found = []
    for name, own in before.items():
        if kind_of(own.dtype) is not Kind.FLOAT or moves_by_itself(name, own):
            continue
        one = {name: own}
        left = compared(one, Made({name: made.tensors[name]}, {name: made.coins[name]}), {name: after[name]})
        if left.weights < _FEW_OF_TENSOR or left.sigmas >= _CLEAR_SIGMAS or left.share >= _SHARE:
            continue
        if distance(one, after) <= distance(one, made.tensors):
            found.append(name)
    return found


def not_judged(before: Tensors, made: Made) -> list[str]:
    """Return the parameters in which too few numbers are moved to judge them alone, with how many they have."""
    return [
        f"{name} ({counted(own.size, 'number')})"
        for name, own in before.items()
        if not moves_by_itself(name, own) and np.count_nonzero(made.coins[name] != own) < _FEW_OF_TENSOR
    ]


def most_left(before: Tensors, made: Made, after: Tensors) -> float:
    """Return the largest share of the global model's move that is surely left in some weights; 1 if none can tell.

    Looks at each tensor alone, and at all of them together. In a small tensor that training moves far (a bias that
    began at 0) the share is mostly chance. So a share counts only where chance hardly makes it, given the number of
    tensors.
    """
    known = {n: own for n, own in before.items() if kind_of(own.dtype) is Kind.FLOAT and not moves_by_itself(n, own)}
    traces = [trace({name: own}, made.coins, after) for name, own in known.items()]
    told = [trace(known, made.coins, after), *(each for each in traces if each.weights >= _FEW_OF_TENSOR)]
    sure = math.sqrt(_CLEAR_SIGMAS**2 + 2 * math.log(len(told)))  # by chance, the largest of many is far from 0
    return max((abs(each.share) for each in told if abs(each.share) > sure * each.share_error), default=1.0)


def judge(
    report: Report,
    round_: int,
    left: Trace,
    was_read: bool | None,
    unloaded: Sequence[str] = (),
    most: float = 1.0,
    small: Sequence[str] = (),
) -> None:
    """Record whether this round's model was trained from the global model, by the trace in it.

    Where the trace shows, `unloaded` names the tensors in which it does not, and `most` is the share that is left in
    the tensor with most of it. `small` names the tensors that cannot be judged alone.
    """
    where = f"round {round_}"
    few = left.weights < _FEW_WEIGHTS
    if left.sigmas >= _CLEAR_SIGMAS:
        unseen = f"; not judged alone: {some(small)}" if small else ""
        report.passed(LOADS, f"it shows clearly in the weights sent in{unseen}")
        if most < _LITTLE:
            seen = f"{where}: it shows, but at most {most:.2g} of its change is left in any weights sent in"
            report.warned(LOADS, seen, hint=_SHADOW)
        elif unloaded:
            report.warned(LOADS, f"{where}: nothing of it is left in {some(unloaded)}", hint=_LOAD_ALL)
    elif was_read is False:
        report.failed(LOADS, f"{where}: $GLOBAL_MODEL_PATH was not read between TrainStarted and TrainFinished")
    elif was_read and left.share >= _SHARE and (few or left.sigmas >= _POSSIBLE_SIGMAS):
        report.passed(LOADS, f"it was read, and {left.share:.0%} of it is left after the round")
    elif few or left.sigmas >= _POSSIBLE_SIGMAS or left.share >= _SHARE:
        if not left.weights:
            what, hint = "the global model is the script's own again", _OWN_AGAIN
        elif few:
            what, hint = f"{left.weights} weights are too few", _TRAIN_LESS
        else:
            what, hint = "too little of it is left in the weights sent in", _TRAIN_LESS
        report.unclear(LOADS, f"{where}: {what} to tell", hint=hint)
    elif was_read:
        seen = "$GLOBAL_MODEL_PATH was read, but does not show in the weights sent in"
        report.failed(LOADS, f"{where}: {seen}", hint=_LOAD_FIRST)
    else:
        report.failed(LOADS, f"{where}: the global model does not show in the weights sent in")


def judge_read(report: Report, was_read: bool | None, left: Trace) -> None:
    """Record whether a script that was started again trained from the global model it found; `left` is its trace.

    Where the trace cannot tell, it passes if it read the file: `judge` reports that of a later round.
    """
    if left.sigmas >= _CLEAR_SIGMAS:
        report.passed(FROM_GLOBAL, "it shows clearly in the weights sent in")
        return
    maybe = left.weights < _FEW_WEIGHTS or left.sigmas >= _POSSIBLE_SIGMAS or left.share >= _SHARE
    if was_read is False:
        report.failed(FROM_GLOBAL, f"{_STARTED_AGAIN}, it never read $GLOBAL_MODEL_PATH")
    elif was_read and maybe:
        report.passed(FROM_GLOBAL, "it was read, and the round was finished")
    elif maybe:
        report.unclear(FROM_GLOBAL, "the round was finished; whether the global model was read cannot be told here")
    else:
        seen = "the global model does not show in the weights sent in"
        report.failed(FROM_GLOBAL, f"{_STARTED_AGAIN}, it trained from other weights: {seen}")
