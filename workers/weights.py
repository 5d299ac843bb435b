"""How much each update counts in a rule that weighs: `--weights`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flavor.counted import counted
from flavor.errors import InvalidUpdate, NoModelPossible

Info = Mapping[str, Mapping[str, Any]]

_BY_IMPORTANCE = ("importance", "product")


def check_weight(kind: str, info: Info) -> None:
    """Raise `InvalidUpdate` where a run weighs by `importance` and the update's importance is negative."""
    importance = info["metadata"]["importance"]
    if kind in _BY_IMPORTANCE and importance < 0:
        raise InvalidUpdate(
            f"importance {importance} cannot be a weight: this run has --weights {kind}, which needs one >= 0"
        )


def counting(kind: str, infos: Mapping[str, Info]) -> list[str]:
    """Return the clients whose update counts in a weighted mean: their weight is not 0. Raises as `weights_of`."""
    weights = weights_of(kind, list(infos.values()))
    return [client for place, client in enumerate(infos) if weights is None or weights[place]]


def weights_of(kind: str, infos: Sequence[Info]) -> list[float] | None:
    """Return the weights of a round's updates, in their order; None weighs all alike.

    Returns None too where every site reports 0 examples. Raises `NoModelPossible` where a run weighs by importance and
    no site's importance counts.
    """
    if kind == "equal":
        return None
    sizes = [float(info["metadata"]["datasetSize"]) for info in infos]
    if kind == "datasetSize":
        return sizes if any(sizes) else None
    importance = [float(info["metadata"]["importance"]) for info in infos]
    if any(importance) and kind == "product":
        largest = max(importance)  # so that no product overflows
        importance = [size * (each / largest) for size, each in zip(sizes, importance, strict=True)]
    if not any(importance):
        what = "the importance" if kind == "importance" else "datasetSize times importance"
        which = f"{'all ' if len(infos) > 1 else ''}{counted(len(infos), 'update')}"
        raise NoModelPossible(f"{what} of {which} is 0 (--weights {kind}): at least one site must name more")
    return importance
