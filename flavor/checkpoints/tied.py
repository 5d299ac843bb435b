"""Tied weights of which a site would share one and keep the other: two names for one tensor of its model.

The two would have different values in the model that a script is given, and only one of them would be used. A file of
torch stores tied weights once: such a pair is refused. Other files, and a torch file of copies (`.cpu()`), store the
same numbers twice. So do scripts that copy a network on purpose: a target network, or an average of the weights. The
file does not show which of both it is, so that the site is told, and goes on. Two tensors may be equal by chance as
well: fresh biases, counters, masks, the frequencies of position codes. So copies are told only if they have moved since
the round before, and are still the same bits. Running statistics are left out: layers with the same input have the same
ones, and averages of weights copy them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.compare import same_bits
from flavor.errors import NotDivided
from flavor.parts import is_statistic

_LEAST = 8
"""Numbers of a tensor that is compared: fewer may well be equal by chance, such as counters."""
_LOOKED_AT = 64
"""Numbers at the beginning and in the middle of a tensor by which a candidate is found."""

Twins = Mapping[str, str]
"""The name of a tensor that is not shared, and that of a shared one that has the same numbers."""


def one_in_the_file(tensors: Mapping[str, Array], shared: Collection[str]) -> Twins:
    """Return the tensors that lie in the same memory, as those of a torch file do that were saved tied."""
    places = {tensors[name].ctypes.data: name for name in shared if tensors[name].size}
    return {
        name: places[array.ctypes.data]
        for name, array in tensors.items()
        if name not in shared and array.size and array.ctypes.data in places
    }


def equal(tensors: Mapping[str, Array], shared: Collection[str]) -> Twins:
    """Return the tensors that have the same numbers, dtype and shape.

    Tensors of one number, of few numbers and of running statistics are left out.
    Reads a whole tensor only where the beginning and the middle of two are alike.
    """
    alike: dict[object, list[str]] = {}
    for name in shared:
        if not is_statistic(name) and (key := _glance(tensors[name])) is not None:
            alike.setdefault(key, []).append(name)
    if not alike:
        return {}
    found = {}
    for name, array in tensors.items():
        if name not in shared and not is_statistic(name) and (key := _glance(array)) is not None:
            twin = next((each for each in alike.get(key, ()) if same_bits(array, tensors[each])), None)
            if twin is not None:
                found[name] = twin
    return found


def _glance(array: Array) -> object | None:
    """Return what two equal tensors have in common; None for one that is not compared."""
    if array.size < _LEAST or array.dtype.kind not in "fcV":
        return None
    middle = array.size // 2
    begin, half = (array.flat[start : start + _LOOKED_AT].tobytes() for start in (0, middle))
    size = array.dtype.itemsize
    if all(each == begin[:size] * (len(each) // size) for each in (begin, half)):
        return None  # of one number, as far as one sees
    return array.dtype, array.shape, begin, half


def refused(own: str, twin: str, where: str = "") -> NotDivided:
    """Return the error for a site's own tensor that is tied to the shared tensor `twin`."""
    return NotDivided(
        f"{where}tensor {twin!r} is shared and {own!r} is not, and both are one tensor of the file (tied weights): "
        "share both or neither; if the model has two, save a copy of one (clone())",
        told="a tensor that is shared and one that is not are one tensor of its file (tied weights)",
    )


def alike(found: Twins) -> str:
    """Say which tensors are equal, of which a site shares one and keeps the other; '' for none."""
    if not found:
        return ""
    own, twin = next(iter(found.items()))
    more = f" (as are {len(found) - 1} more of the site's own)" if len(found) > 1 else ""
    return f"after the training, {own!r}, which stays at the site, is equal to {twin!r}, which is shared{more}"


IF_TIED = (
    "if both are one tensor of the model (tied weights), what the sites average of it is lost at each load: give "
    "patterns that match both, or neither; if the script copies one to the other on purpose (a target network, an "
    "average of the weights), this is right"
)
