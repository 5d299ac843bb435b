"""Algorithms for sites whose data differ, for a script that computes its gradients with numpy.

    from flavor.cook.numpy import proximal

    term = proximal(model, mu=0.1)                  # once a round, after the global model is loaded; model: a dict
    pull = term.gradients(model)                    # in each step
    model["weight"] -= lr * (gradient_of_weight + pull["weight"])

    from flavor.cook.numpy import Scaffold

    scaffold = Scaffold(model, lr)                  # once, before the loop over the rounds; model: a dict
    gradients = {"weight": gradient_of_weight}
    correction = scaffold.correction(model, gradients)  # in each step
    model["weight"] -= lr * (gradient_of_weight + correction["weight"])
    scaffold.finish(model)                          # at the end of a round, before the model is saved

`flavor.cook.torch` has the same for PyTorch, where the term is a part of the loss. Importing this module takes as long
as importing numpy and redis.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flavor.cook.anchor import OTHER_ANCHOR, Calls, checked, tell_anchor
from flavor.cook.control import (
    LOOKED_AT,
    NOT_LOADED,
    OTHER_STEP_OF_ARRAYS,
    PREFIX,
    STEPS_LOOKED_AT,
    OwnVariates,
    control_names,
    is_other_step,
    is_unloaded,
    kept_by_site,
    tell,
    trained_after_finish,
    without_control_variates,
)
from flavor.errors import InvalidSetting

__all__ = ["Proximal", "Scaffold", "proximal", "without_control_variates"]

Arrays = Mapping[str, Any]
"""The arrays of a model by their names, of any shapes; only arrays of floats are trained."""


class Proximal:
    """The term of FedProx: µ/2 ‖θ − θ_global‖², over the float arrays of a model. `proximal` makes it.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv 1812.06127), equation 2.
    """

    def __init__(self, model: Arrays, mu: float) -> None:
        self._mu = checked("proximal", "mu", mu, least=0.0, is_least_allowed=True)
        self._calls = Calls("proximal")
        self._is_called = False
        self._remember(model)

    def __call__(self, model: Arrays) -> float:
        """Return the term, to be added to a loss that is reported."""
        return self._mu / 2 * float(sum(np.sum(np.square(each)) for each in self._differences(model).values()))

    def gradients(self, model: Arrays) -> dict[str, NDArray[Any]]:
        """Return the gradient of the term, µ (θ − θ_global), for each float array of the model, in its dtype.

        Raises `InvalidSetting` for a model whose float arrays have other names or shapes than at the making.
        """
        self._calls.note("term")
        found = self._differences(model)
        return {name: (self._mu * each).astype(self._anchors[name].dtype) for name, each in found.items()}

    def _differences(self, model: Arrays) -> dict[str, NDArray[Any]]:
        if self._calls.is_new_round():
            self._remember(model)
        arrays = floats(model)
        for name in sorted(arrays.keys() ^ self._anchors.keys()):
            where = "is new in" if name in arrays else "is missing from"
            raise InvalidSetting(f"proximal: {name!r} {where} the model: make the term from the same arrays")
        for name, array in arrays.items():
            if array.shape != (before := self._anchors[name].shape):
                raise InvalidSetting(f"proximal: {name!r} has the shape {array.shape}, and had {before} at the making")
        anchors = {name: self._anchors[name].astype(array.dtype) for name, array in arrays.items()}
        found = {name: wide(array) - wide(anchors[name]) for name, array in arrays.items()}
        if not self._is_called and any(np.isfinite(each).all() and each.any() for each in found.values()):
            self._calls.tell_once("anchor", OTHER_ANCHOR, tell_anchor)
        self._is_called = True
        return found

    def _remember(self, model: Arrays) -> None:
        self._anchors = {name: array.copy() for name, array in floats(model).items()}
        if not self._anchors:
            raise InvalidSetting("proximal: the model has no array of floats, so nothing is trained")


def proximal(model: Arrays, mu: float) -> Proximal:
    """Make the term of FedProx for this round; add `term.gradients(model)` to the gradients of each step.

    `model` has the arrays by their names, such as `{"coef": estimator.coef_}`. Call this function in each round, after
    the global model is loaded: the term copies the arrays as they are now. A term that was made before the loop copies
    them anew at its first call in each later round. Arrays that are not of floats are no part of it. `mu` is µ, 0 or
    more: 0 is FedAvg, and the paper tries 0.001, 0.01, 0.1 and 1.

    Raises `InvalidSetting` (a `ValueError`) for a `mu` that cannot be used, and for a model without arrays of floats.
    """
    return Proximal(model, mu)


class Scaffold:
    """SCAFFOLD's control variates, for arrays that plain SGD trains: each step is -η (g - cᵢ + c).

    `flavor.cook.torch.Scaffold` says what it computes, and where c and cᵢ are: c are arrays of the model called
    `scaffold_c__NAME`, which this function adds to `model` and which are to be saved and loaded with it.

    Raises `InvalidSetting` (a `ValueError`) for an `lr` or `fraction` that cannot be used, and for a model without
    arrays of floats.
    """

    def __init__(self, model: MutableMapping[str, Any], lr: float, *, fraction: float = 1.0) -> None:
        self.lr = checked("Scaffold", "lr", lr, least=0.0, is_least_allowed=False)
        self._fraction = checked("Scaffold", "fraction", fraction, least=0.0, is_least_allowed=False)
        if self._fraction > 1:
            raise InvalidSetting(f"Scaffold: fraction must be 1 at most, and is {self._fraction:g}")
        trained = floats(without_control_variates(model))
        self._names = control_names(list(trained))
        for name, control in self._names.items():
            model.setdefault(control, np.zeros_like(trained[name]))
        self._calls = Calls("Scaffold")
        self._variates = OwnVariates()
        self._own: dict[str, NDArray[Any]] | None = None
        self._kept: set[str] = set()  # arrays whose variates this site does not share
        self._sent: dict[str, NDArray[Any]] = {}  # some numbers of what finish() has handed in
        self._finished: int | None = None
        self._start: dict[str, NDArray[Any]] | None = None
        self._rates, self._steps = 0.0, 0
        self._last: tuple[str, NDArray[Any], NDArray[Any]] | None = None  # of an array: its name, a value and a step

    def correction(self, model: Arrays, gradients: Arrays | None = None) -> dict[str, NDArray[Any]]:
        """Return c - cᵢ for each array, to be added to its gradient; call it once in each step.

        The first call of a round takes the arrays of `model` as those of the global model. With the `gradients` of the
        step, without the correction, the first steps are compared with -lr times the corrected gradients, and another
        step is told on stderr. Raises `InvalidSetting` for a model without these arrays, or without their control
        variates.
        """
        if self._calls.is_new_round() or self._start is None:
            self._begin(model)
        self._calls.note("correct")
        self._look_at_last_step(model)
        assert self._own is not None
        rate = checked("Scaffold", "lr", self.lr, least=0.0, is_least_allowed=False)
        self._rates += rate
        self._steps += 1
        c = self._c(model)
        found = {name: c[name] - own for name, own in self._own.items()}
        if gradients is None:
            self._calls.note("unseen")
        elif self._steps <= STEPS_LOOKED_AT:
            self._expect(model, gradients, found, rate)
        return {name: each.astype(np.asarray(model[name]).dtype) for name, each in found.items()}

    def finish(self, model: MutableMapping[str, Any]) -> None:
        """End the round's training: compute cᵢ', keep it, and put what the site hands in into `model`.

        Call it after the last step, and before the model is saved. A round without a step leaves cᵢ as it is.
        """
        if self._calls.is_new_round() or self._start is None:
            self._begin(model)
        self._calls.note("finish")
        self._look_at_last_step(model)
        assert self._own is not None
        assert self._start is not None
        before, after, c = self._own, dict(self._own), self._c(model)
        if self._rates:
            now = self._taken(model)
            after = {
                name: own - c[name] + (self._start[name] - now[name]) / self._rates for name, own in before.items()
            }
        for name, control in self._names.items():
            whole = self._fraction == 1 or name in self._kept
            sent = after[name] if whole else c[name] + self._fraction * (after[name] - before[name])
            model[control] = sent.astype(np.asarray(model[name]).dtype)
        self._sent = {name: _some(each) for name, each in self._taken(model, control=True).items()}
        self._finished = self._calls.round
        self._variates.save(before, after, self._finished)
        self._own, self._start = after, None

    def _begin(self, model: Arrays) -> None:
        round_ = self._calls.round
        if round_ is not None and round_ == self._finished:
            raise trained_after_finish(round_)
        start = {name: array.copy() for name, array in self._taken(model).items()}
        c = self._taken(model, control=True)
        has_begun = any(bool(each.any()) for each in c.values())
        if self._own is None:
            self._own = self._variates.load(start, round_, has_begun=has_begun)
        self._kept = kept_by_site(self._names)
        shared = [(sent, _some(c[name])) for name, sent in self._sent.items() if name not in self._kept]
        if is_unloaded((bool(sent.any()), np.array_equal(sent, now)) for sent, now in shared):
            self._calls.tell_once("unloaded", NOT_LOADED, tell)
        self._start, self._rates, self._steps, self._last = start, 0.0, 0, None

    def _c(self, model: Arrays) -> dict[str, NDArray[Any]]:
        """Return the server's variates; the site's own ones for arrays that it does not share."""
        assert self._own is not None
        found = self._taken(model, control=True)
        return found | {name: self._own[name] for name in self._kept}

    def _expect(self, model: Arrays, gradients: Arrays, corrections: Arrays, rate: float) -> None:
        """Keep some numbers of the first array, and by how much a step of plain SGD lowers them."""
        name = next(iter(self._names))
        if name not in gradients:
            raise InvalidSetting(f"Scaffold: {name!r} is missing from the gradients: pass those of all arrays")
        gradient = np.broadcast_to(np.asarray(gradients[name]), np.shape(model[name]))
        if np.asarray(model[name]).dtype in (np.float32, np.float64):
            step = rate * (_some(gradient) + _some(corrections[name]))
            self._last = (name, _some(np.asarray(model[name])), step)

    def _look_at_last_step(self, model: Arrays) -> None:
        """Tell once if the step was another one than -lr times the corrected gradient."""
        if self._last is None:
            return
        (name, before, expected), self._last = self._last, None
        moved = before - _some(np.asarray(model[name]))
        rounding = before * np.finfo(before.dtype).eps
        if is_other_step(*(float(np.linalg.norm(each)) for each in (moved, expected, moved - expected, rounding))):
            self._calls.tell_once("step_of_arrays", OTHER_STEP_OF_ARRAYS, tell)

    def _taken(self, model: Arrays, *, control: bool = False) -> dict[str, NDArray[Any]]:
        """Return the trained arrays in 32 or 64 bits, or their control variates, by the names of the arrays."""
        chosen = {name: other if control else name for name, other in self._names.items()}
        for name in chosen.values():
            if name not in model:
                hint = ": save and load all of model, with its control variates" if name.startswith(PREFIX) else ""
                raise InvalidSetting(f"Scaffold: {name!r} is missing from the model{hint}")
        return {name: wide(np.asarray(model[other])) for name, other in chosen.items()}


def _some(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape(-1)[:LOOKED_AT].copy()


def floats(model: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays of floats, also of types that numpy lacks, such as `ml_dtypes.bfloat16`."""
    arrays = {name: np.asarray(value) for name, value in model.items()}
    return {name: array for name, array in arrays.items() if array.dtype.kind in "fV"}


def wide(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in float32, or in float64 if it is of float64."""
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)
