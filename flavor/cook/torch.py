"""Algorithms for sites whose data differ, in a PyTorch script: FedProx and SCAFFOLD.

    from flavor.cook.torch import proximal

    term = proximal(model, mu=0.1)                  # once a round, after the global model is loaded
    loss = criterion(model(x), y) + term()          # in each step

    from flavor.cook.torch import Scaffold

    scaffold = Scaffold(model, lr=0.1)              # once, before the loop over the rounds
    scaffold.correct()                              # in each step, between loss.backward() and optimizer.step()
    scaffold.finish()                               # at the end of a round, before the model is saved

The server's part of both is flavor's default, the weighted mean. `flavor.cook.numpy` has the same for arrays.
docs/your-script.md says when to choose which. Importing this module imports torch.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from flavor.cook.anchor import OTHER_ANCHOR, Calls, checked, tell_anchor
from flavor.cook.control import (
    LOOKED_AT,
    NOT_LOADED,
    OTHER_STEP,
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


class _Trained:
    """The parameters of a model that are trained, by their names, as the model has them at present.

    `load_state_dict(…, assign=True)` puts other tensors in the place of the model's: what is kept of those would stay
    as it was, and no step would move it.
    """

    def __init__(self, helper: str, model: torch.nn.Module) -> None:
        self._helper, self._model = helper, model
        self._found = {name: each for name, each in model.named_parameters() if each.requires_grad}
        if not self._found:
            raise InvalidSetting(f"{helper}: no parameter of the model requires a gradient, so nothing is trained")
        self.find()

    def find(self) -> bool:
        """Look for the parameters in the whole model; return whether one of them is another tensor than before."""
        before, there = self._found, dict(self._model.named_parameters())
        if lost := next((name for name in before if name not in there), None):
            raise InvalidSetting(f"{self._helper}: the model has no parameter {lost!r} any more: make this anew")
        self._found = {name: there[name] for name in before}
        owners = {
            id(each): (module._parameters, name)
            for module in self._model.modules()
            for name, each in module._parameters.items()
        }
        self._places = [(*owners[id(each)], each) for each in self._found.values() if id(each) in owners]
        return any(before[name] is not each for name, each in self._found.items())

    def __call__(self) -> dict[str, torch.nn.Parameter]:
        """Return them. In a step this only looks whether the modules still have these tensors."""
        if any(of_module.get(name) is not each for of_module, name, each in self._places):
            self.find()
        return self._found


class Proximal:
    """The term of FedProx: µ/2 ‖θ − θ_global‖², over the parameters of a model that are trained. `proximal` makes it.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv 1812.06127), equation 2.
    """

    def __init__(self, model: torch.nn.Module, mu: float) -> None:
        self._mu = checked("proximal", "mu", mu, least=0.0, is_least_allowed=True)
        self._trained = _Trained("proximal", model)
        self._calls = Calls("proximal")
        self._is_called = False
        self._remember()

    def __call__(self) -> torch.Tensor:
        """Return the term, a tensor of no dimensions, whose gradient is µ (θ − θ_global).

        The sum is computed in float32, or in float64 for a parameter of float64.
        """
        if self._calls.is_new_round():
            self._trained.find()
            self._remember()
        elif not self._is_called and self._trained.find():  # the global model was loaded after the making
            self._remember()
        self._calls.note("term")
        total: Any = 0.0
        parameters = list(self._trained().values())
        for parameter, anchor in zip(parameters, self._anchors, strict=True):
            difference = parameter - anchor.to(parameter)  # the model may have moved, or be of another dtype
            wide = difference.to(torch.promote_types(difference.dtype, torch.float32))
            total = total + (wide * wide).sum().to(parameters[0].device)
        if not self._is_called and 0 < float(total.detach()) < math.inf:
            self._calls.tell_once("anchor", OTHER_ANCHOR, tell_anchor)
        self._is_called = True
        return self._mu / 2 * total

    def _remember(self) -> None:
        self._anchors = [each.detach().clone() for each in self._trained().values()]


def proximal(model: torch.nn.Module, mu: float) -> Proximal:
    """Make the term of FedProx for this round: `loss = loss + term()` pulls each step towards the global model.

    Call it in each round, after the global model is loaded into `model`: the term remembers the parameters as they are
    now. A term that was made before the loop remembers them anew at its first call in each later round. Parameters that
    do not require a gradient, and buffers, are no part of it. `mu` is µ, 0 or more: 0 is FedAvg, and the paper tries
    0.001, 0.01, 0.1 and 1. The term takes the memory of one more copy of the trained parameters.

    Raises `InvalidSetting` (a `ValueError`) for a `mu` that cannot be used, and for a model without trained parameters.
    """
    return Proximal(model, mu)


class Scaffold:
    """SCAFFOLD's control variates, for a model that plain SGD trains: each step is -η (g - cᵢ + c).

    Karimireddy et al. 2020 (arXiv 1910.06378), algorithm 1 with option II: after K steps from the global model θ_global
    to θᵢ, cᵢ' = cᵢ - c + (θ_global - θᵢ) / (K η). Make it once, before the loop over the rounds, with the same `lr` as
    the optimizer. The paper's server step has a global learning rate of 1, which is flavor's default.

    The server's c are buffers of the model called `scaffold_c__NAME`, so they are saved and loaded with it. The site's
    own cᵢ stay in `$OUTPUT_PATH/scaffold.npz`, from where a script that is started again goes on. `finish` hands in
    cᵢ', so that the mean over the sites, weighted as the models are, becomes c: that equals the paper's
    c + (1/N) Σ (cᵢ' - cᵢ), because c is the mean of all cᵢ where all sites take part. It also makes c right again after
    a round without some site, and after a cᵢ was lost. Where each round has only the share `fraction` of the sites
    (`--fraction`), `finish` hands in c + fraction (cᵢ' - cᵢ), which is the paper's update for such rounds.

    With unequal weights the run minimises the sum of the sites' losses in these weights, as FedAvg does; the paper has
    equal ones (`--weights equal`). Parameters that do not require a gradient are no part of it. The memory is that of
    three more copies of the trained parameters. Set `scaffold.lr` where a schedule changes the learning rate.

    Raises `InvalidSetting` (a `ValueError`) for an `lr` or `fraction` that cannot be used, and for a model without
    trained parameters.
    """

    def __init__(self, model: torch.nn.Module, lr: float, *, fraction: float = 1.0) -> None:
        self.lr = checked("Scaffold", "lr", lr, least=0.0, is_least_allowed=False)
        self._fraction = checked("Scaffold", "fraction", fraction, least=0.0, is_least_allowed=False)
        if self._fraction > 1:
            raise InvalidSetting(f"Scaffold: fraction must be 1 at most, and is {self._fraction:g}")
        self._model = model
        self._trained = _Trained("Scaffold", model)
        self._buffers = control_names(list(self._parameters))
        with torch.no_grad():
            for name, buffer in self._buffers.items():
                if not hasattr(model, buffer):
                    model.register_buffer(buffer, torch.zeros_like(self._parameters[name]))
        self._calls = Calls("Scaffold")
        self._variates = OwnVariates()
        self._own: dict[str, Any] | None = None
        self._kept: set[str] = set()  # parameters whose variates this site does not share
        self._sent: dict[str, Any] = {}  # some numbers of what finish() has handed in
        self._finished: int | None = None
        self._start: dict[str, Any] | None = None  # the parameters at the first step of this round
        self._rates, self._steps = 0.0, 0
        self._last: tuple[Any, Any] | None = None  # of some numbers: the parameter before a step, and that step

    @property
    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        return self._trained()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def correct(self) -> None:
        """Add c - cᵢ to the gradients: call it in each step, after `loss.backward()` and before `optimizer.step()`.

        The first call of a round takes the parameters, and c, as those of the global model. With a gradient scaler,
        call `scaler.unscale_(optimizer)` before. A parameter without a gradient counts as one with a gradient of 0.
        """
        if self._calls.is_new_round() or self._start is None:
            self._begin()
        self._calls.note("correct")
        self._look_at_last_step()
        assert self._own is not None
        rate = checked("Scaffold", "lr", self.lr, least=0.0, is_least_allowed=False)
        for name, parameter in self._parameters.items():
            correction = self._c(name) - self._own[name]
            if parameter.grad is None:
                parameter.grad = correction.clone()
            else:
                parameter.grad.add_(correction)
        self._rates += rate
        self._steps += 1
        if self._steps <= STEPS_LOOKED_AT:
            looked = next(iter(self._parameters.values()))
            if looked.dtype in (torch.float32, torch.float64):
                self._last = (_some(looked), rate * _some(looked.grad))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def finish(self) -> None:
        """End the round's training: compute cᵢ', keep it, and put what the site hands in into the model's buffers.

        Call it after the last step, and before the model is saved. A round without a step leaves cᵢ as it is.
        """
        if self._calls.is_new_round() or self._start is None:
            self._begin()
        self._calls.note("finish")
        self._look_at_last_step()
        assert self._own is not None
        assert self._start is not None
        before, after = self._own, dict(self._own)
        if self._rates:
            for name, parameter in self._parameters.items():
                after[name] = before[name] - self._c(name) + (self._start[name] - parameter) / self._rates
        for name in self._parameters:
            c, whole = self._c(name), self._fraction == 1 or name in self._kept
            self._buffer(name).copy_(after[name] if whole else c + self._fraction * (after[name] - before[name]))
        self._sent = {name: _some(self._buffer(name)) for name in self._parameters}
        self._finished = self._calls.round
        self._variates.save(_arrays(before), _arrays(after), self._finished)
        self._own, self._start = after, None

    def _begin(self) -> None:
        round_ = self._calls.round
        if round_ is not None and round_ == self._finished:
            raise trained_after_finish(round_)
        if self._own is None:
            like = _arrays(self._parameters)
            has_begun = any(bool(self._buffer(name).any()) for name in self._parameters)
            found = self._variates.load(like, round_, has_begun=has_begun)
            self._own = {name: torch.as_tensor(array) for name, array in found.items()}
        self._trained.find()
        self._kept = kept_by_site(self._buffers)
        shared = [(self._sent[name], _some(self._buffer(name))) for name in self._sent if name not in self._kept]
        if is_unloaded((bool(sent.any()), torch.equal(sent, c.to(sent.device))) for sent, c in shared):
            self._calls.tell_once("unloaded", NOT_LOADED, tell)
        for name, parameter in self._parameters.items():
            self._own[name] = self._own[name].to(parameter)  # the model may have moved to another device
        self._start = {name: each.detach().clone() for name, each in self._parameters.items()}
        self._rates, self._steps, self._last = 0.0, 0, None

    def _c(self, name: str) -> Any:
        if name in self._kept and self._own is not None:
            return self._own[name]
        return self._buffer(name)

    def _buffer(self, name: str) -> Any:
        return getattr(self._model, self._buffers[name])

    def _look_at_last_step(self) -> None:
        """Tell once if the optimizer's step was another one than -lr times the gradient."""
        if self._last is None:
            return
        (before, expected), self._last = self._last, None
        moved = before - _some(next(iter(self._parameters.values())))
        rounding = before * torch.finfo(before.dtype).eps
        if is_other_step(*(float(each.norm()) for each in (moved, expected, moved - expected, rounding))):
            self._calls.tell_once("step", OTHER_STEP, tell)


def _some(tensor: Any) -> Any:
    return tensor.detach().reshape(-1)[:LOOKED_AT].clone()


def _arrays(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors as arrays of float32, or of float64 where they are that."""
    return {
        name: each.detach().cpu().to(torch.promote_types(each.dtype, torch.float32)).numpy()
        for name, each in tensors.items()
    }
