"""What both `Scaffold`s share: the names of control variates, and the file of a site's own ones.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (arXiv 1910.06378).
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flavor.atomic import taking_place
from flavor.errors import InvalidSetting
from flavor.programs.own_variates import read_own_variates

PREFIX = "scaffold_c__"
"""Begins the name of each control variate in a checkpoint. `flavor.patterns.no_parameters` has it, too."""
_FILE = "scaffold.npz"

_Value = TypeVar("_Value")
Own = dict[str, NDArray[Any]]


def control_name(parameter: str) -> str:
    """Return the name of the control variate of a parameter, which torch can give to a buffer."""
    return PREFIX + parameter.replace(".", "__")


def control_names(parameters: list[str]) -> dict[str, str]:
    """Return the names for all parameters. Raises `InvalidSetting` where two parameters would have one name."""
    names = {name: control_name(name) for name in parameters}
    if not names:
        raise InvalidSetting("Scaffold: the model has nothing that is trained")
    if len(set(names.values())) < len(names):
        raise InvalidSetting("Scaffold: two parameters have names that differ by '.' and '__' alone: rename one")
    return names


def without_control_variates(state_dict: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return the entries of a global model's `state_dict` without SCAFFOLD's control variates: the model alone."""
    return {name: value for name, value in state_dict.items() if not name.startswith(PREFIX)}


class OwnVariates:
    """A site's own control variates between its rounds: `scaffold.npz` in `$OUTPUT_PATH`, which stays at the site.

    The file has the variates before and after the round in which it was written. A script that is started again in
    that round, because its update was lost, goes on from those before it.
    """

    def __init__(self) -> None:
        output = os.environ.get("OUTPUT_PATH")
        self._path = Path(output) / _FILE if output else None
        self._run = os.environ.get("FLAVOR_RUN", "")

    def load(self, like: Own, round_: int | None, *, has_begun: bool) -> Own:
        """Return the variates to begin this round with, of the names, shapes and dtypes of `like`.

        They are zeros in a run that has not begun, where the server's are all 0, and where the file is lost, of another
        run or of another model. The latter is told on stderr: the site's next round makes its variates anew.
        """
        zeros = {name: np.zeros_like(array) for name, array in like.items()}
        if not has_begun or self._path is None:
            return zeros
        try:
            with np.load(self._path, allow_pickle=False) as file:
                which = "before" if round_ is not None and int(file["round"]) == round_ else "after"
                if str(file["run"]) != self._run:
                    raise ValueError("it is of another run")
                found = {name: file[f"{which}/{name}"] for name in like}
            for name, array in found.items():
                if array.shape != like[name].shape or not np.isfinite(array).all():
                    raise ValueError(f"{name!r} in it is of another model, or not finite")
            return {name: array.astype(like[name].dtype) for name, array in found.items()}
        except FileNotFoundError:
            why = "is not there"
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            why = f"cannot be used ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})"
        tell(f"the site's own control variates begin from zero: {self._path} {why}")
        return zeros

    def save(self, before: Own, after: Own, round_: int | None) -> None:
        """Write the file, whole or not at all. A failure is told on stderr, and does not stop the training."""
        if self._path is None:
            return
        arrays = {f"before/{name}": array for name, array in before.items()}
        arrays |= {f"after/{name}": array for name, array in after.items()}
        try:
            with taking_place(self._path) as temporary, open(temporary, "wb") as file:
                np.savez(file, run=np.array(self._run), round=np.array(-1 if round_ is None else round_), **arrays)  # type: ignore[arg-type]
        except OSError as error:
            tell(f"{self._path} cannot be written ({error.strerror}): started again, this site begins from zero")


def kept_by_site(names: Mapping[str, str]) -> set[str]:
    """Return the parameters whose control variates this site does not share; `names` are the variates of all.

    Plain SGD trains them: for such a parameter the server's c is the site's own cᵢ.
    """
    own = {name[name.find(PREFIX) :] for name in read_own_variates() if PREFIX in name}
    return {parameter for parameter, control in names.items() if control in own}


def trained_after_finish(round_: int | None) -> InvalidSetting:
    """Return the error for a script that goes on with a round that it has finished."""
    return InvalidSetting(
        f"Scaffold: finish() was called before the end of round {round_}: call it after the last step"
    )


def tell(what: str) -> None:
    """Print one line for the site's log."""
    if sys.stderr is not None:
        print(f"flavor: Scaffold: {what}", file=sys.stderr, flush=True)


OTHER_STEP = (
    "the optimizer's steps are not -lr times the corrected gradient: use plain SGD with the lr that Scaffold was "
    "given, without momentum and gradient clipping, and set scaffold.lr where the learning rate changes"
)
_SHARE = 0.1

OTHER_STEP_OF_ARRAYS = (
    "the steps are not -lr times (gradient + correction): take plain steps with the lr that Scaffold was given, add "
    "the correction to each gradient, pass the gradients without it, and set scaffold.lr where the rate changes"
)
LOOKED_AT = 4096
"""Numbers of an array that are compared."""
STEPS_LOOKED_AT = 3
"""Steps of a round that are compared with those of plain SGD: momentum shows from the second one on."""
NOT_LOADED = (
    "c is, in all tensors, what this site handed in itself, so that no step is corrected: load the global model with "
    f"all its tensors called {PREFIX}NAME, into the model that Scaffold has (right only for a round of this site "
    "alone, or of sites that all have the same data)"
)


def is_unloaded(pairs: Iterable[tuple[bool, bool]]) -> bool:
    """Return whether c is not the server's: for each variate, whether what was handed in is not 0, and whether c is it.

    A mean with other sites differs.
    """
    alike = [is_same for is_any, is_same in pairs if is_any]
    return bool(alike) and all(alike)


def is_other_step(moved: float, expected: float, apart: float, rounding: float) -> bool:
    """Return whether a step of this length differs from the expected one (all norms) by more than rounding does.

    `rounding` is that of the parameter: its norm, times the eps of its dtype. A step that is as short is not judged.
    """
    return expected > 0 and apart > _SHARE * max(moved, expected) + rounding
