"""Looks at whether a training script calls what the algorithm needs that it has asked for: FedProx, SCAFFOLD."""

from __future__ import annotations

from pathlib import Path

from flavor.check.model import Tensors
from flavor.check.report import Report
from flavor.check.trainer_checks import ALGORITHM
from flavor.cook.anchor import OTHER_ANCHOR
from flavor.cook.control import NOT_LOADED, OTHER_STEP, OTHER_STEP_OF_ARRAYS, PREFIX
from flavor.programs.calls_file import take_calls

_NEEDED = {
    "proximal": {
        "term": (
            "it made proximal(model, mu) and never used the term, so it trained as FedAvg does",
            "in each step, add the term to the loss (loss = loss + term()), or with numpy term.gradients(model) to the "
            "gradients",
        ),
    },
    "Scaffold": {
        "correct": (
            "it made Scaffold(model, lr) and never called correct(), so no step was corrected",
            "call scaffold.correct() in each step, between loss.backward() and optimizer.step(); with numpy add "
            "scaffold.correction(model) to the gradients",
        ),
        "finish": (
            "it made Scaffold(model, lr) and never called finish(), so no control variate was handed in",
            "call scaffold.finish() after the last step of each round, and before the model is saved",
        ),
    },
}
"""For each helper, the calls that each round needs; what is said where one is missing, and the hint."""
_SHOWN = {
    "proximal": "FedProx: proximal was made, and its term used in every round",
    "Scaffold": "SCAFFOLD: every round had its corrections and its end",
}
_NO_VARIATES = (
    "it called Scaffold's finish(), and the model that it saved has no control variates",
    f"save all of model.state_dict() (with numpy, all of the dict), with the tensors called {PREFIX}NAME",
)
_SAVED_BEFORE = (
    "all control variates in the saved model are 0",
    "call scaffold.finish() before the model is saved, not after; see that a step was taken",
)
_WARNINGS = {
    ("proximal", "anchor"): OTHER_ANCHOR,
    ("Scaffold", "step"): OTHER_STEP,
    ("Scaffold", "step_of_arrays"): OTHER_STEP_OF_ARRAYS,
}
_UNLOADED, _UNSEEN = ("Scaffold", "unloaded"), ("Scaffold", "unseen")
_NOT_LOOKED_AT = "; its steps were not looked at: call scaffold.correction(model, gradients)"


class AlgorithmCalls:
    """The calls of flavor's algorithms that one start of a script has made."""

    def __init__(self, report: Report, local_model: Path) -> None:
        self._report, self._local_model = report, local_model
        self._made: set[str] = set()
        self._calls: set[tuple[str, str]] = set()

    def begin_round(self) -> None:
        """Forget the calls before a round, except that a helper was made."""
        self._take()
        self._calls = set()

    def look_at(self, round_: int) -> None:
        """Record which calls were missing in a round that the script has finished."""
        self._take()
        for helper in sorted(self._made & _NEEDED.keys()):
            for call, (what, hint) in _NEEDED[helper].items():
                if (helper, call) not in self._calls:
                    self._report.failed(ALGORITHM, f"round {round_}: {what}", hint=hint)
            unseen = _NOT_LOOKED_AT if helper == "Scaffold" and _UNSEEN in self._calls else ""
            self._report.passed(ALGORITHM, f"{_SHOWN[helper]}{unseen}")
        if _UNLOADED in self._calls:
            what, _, hint = NOT_LOADED.partition(": ")
            self._report.failed(ALGORITHM, f"round {round_}: {what}", hint=hint.partition(" (")[0])
        for warning in sorted(_WARNINGS.keys() & self._calls):
            what, _, hint = _WARNINGS[warning].partition(": ")
            self._report.warned(ALGORITHM, f"round {round_}: {what}", hint=hint)

    def look_at_model(self, round_: int, tensors: Tensors, *, is_first: bool) -> None:
        """Record whether SCAFFOLD's control variates are in the model; `is_first`: the server's were 0 before."""
        if ("Scaffold", "finish") not in self._calls:
            return
        variates = [array for name, array in tensors.items() if PREFIX in name]
        if not variates:
            self._report.failed(ALGORITHM, f"round {round_}: {_NO_VARIATES[0]}", hint=_NO_VARIATES[1])
        elif is_first and not any(array.any() for array in variates):
            self._report.failed(ALGORITHM, f"round {round_}: {_SAVED_BEFORE[0]}", hint=_SAVED_BEFORE[1])

    def end(self) -> None:
        """Remove the notes that are left."""
        take_calls(self._local_model)

    def _take(self) -> None:
        taken = take_calls(self._local_model)
        self._calls |= taken
        self._made |= {helper for helper, call in taken if call == "made"}
