"""Tensors that no rule computes: those to keep, those that must be equal, and constant buffers that hold infinities."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aggregators.computed import Tensor
from aggregators.quantities import matching
from aggregators.updates import ClientModel
from flavor.checkpoints import TensorFile
from flavor.config import RunConfig
from flavor.errors import NoModelPossible, UpdatesRefused


@dataclass
class Held:
    """Collects the tensors that leave a round unchanged, and the clients that disagree about them, with the reason."""

    config: RunConfig
    updates: Mapping[str, ClientModel]
    """By client."""
    constants: Mapping[str, Sequence[str]]
    """Client to the tensors that its inspection found to hold infinities."""
    old: TensorFile | None
    """The global model; None in a first round without one."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)

    def settle(self) -> dict[str, Tensor]:
        """Return the tensors; raises `UpdatesRefused` for sites that wrongly differ, `NoModelPossible` if all do."""
        names = list(next(iter(self.updates.values())).tensors)
        kept = matching(names, self.config.keep)
        for name in kept:
            self.tensors[name] = self.old.tensor(name) if self.old else self.updates[min(self.updates)].tensors[name]
        for name in matching(names, self.config.equal):
            if name not in self.tensors:
                self._equal(name)
        for name in dict.fromkeys(name for found in self.constants.values() for name in found):
            if name not in self.tensors:
                self._constant(name)
        if self._refused:
            raise UpdatesRefused(self._refused)
        return self.tensors

    def _equal(self, name: str) -> None:
        """Hold the value of most sites; in a tie the global model's value, if it is one of the tie."""
        groups = self._groups(name)
        ranked = sorted(groups.values(), key=len, reverse=True)
        best = ranked[0]
        if len(ranked) > 1 and len(ranked[1]) == len(best):
            old = _digest(self.old.tensor(name)) if self.old else ""
            if len(groups.get(old, ())) != len(best):
                raise NoModelPossible(
                    f"tensor {name!r} must be equal at all sites (--equal), and no value is that of most: "
                    f"{best[0]} and {ranked[1][0]} differ"
                )
            best = groups[old]
        self._hold(name, best, f"tensor {name!r} must be equal at all sites (--equal), and is not what most have")

    def _constant(self, name: str) -> None:
        """Hold the global model's value; in a first round that of most sites, if it holds infinities."""
        groups = self._groups(name)
        if self.old:
            agreed = groups.get(_digest(self.old.tensor(name)), [])
            self._hold(name, agreed, f"tensor {name!r} holds infinities in the global model, and is another here")
            return
        best = max(groups.values(), key=len)
        if name in self.constants.get(best[0], ()) and 2 * len(best) > len(self.updates):
            self._hold(name, best, f"tensor {name!r} is a constant buffer at most sites, and is another here")
            return
        for client, found in self.constants.items():
            if name in found:
                self._refused[client] = f"tensor {name!r} has infinite or huge values here, and not at most sites"

    def _hold(self, name: str, agreed: Sequence[str], reason: str) -> None:
        self._refused.update({client: reason for client in self.updates if client not in agreed})
        if agreed:
            self.tensors[name] = self.updates[agreed[0]].tensors[name]

    def _groups(self, name: str) -> dict[str, list[str]]:
        """Return each digest of the tensor with the clients whose tensor has it."""
        groups: dict[str, list[str]] = {}
        for client, update in self.updates.items():
            groups.setdefault(_digest(update.tensors[name]), []).append(client)
        return groups


def _digest(tensor: Tensor) -> str:
    array = np.ascontiguousarray(tensor)
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
