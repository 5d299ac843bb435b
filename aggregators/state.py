"""The state of a server step between rounds, in a form that a safetensors file can hold."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from aggregators.computed import Tensor
from aggregators.dtypes import Array, compute_dtype
from flavor.errors import AggregationError


@dataclass(frozen=True)
class ServerState:
    """The state of one server step after `rounds` steps.

    `tensors` holds `"SLOT/TENSOR"` for each slot of the step and each float tensor that it steps: of the tensor's
    shape, float32 (float64 for float64 tensors). A run that saves and loads its state, or stores it with `metadata` and
    reads it with `restore`, goes on exactly as if it had never stopped.
    """

    step: str
    rounds: int = 0
    tensors: Mapping[str, Array] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file beside the tensors."""
        return {"server_step": self.step, "rounds": str(self.rounds)}

    @classmethod
    def restore(cls, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> ServerState:
        """Return the state of a file that holds `tensors` and `metadata`; raises `AggregationError`."""
        try:
            return cls(metadata["server_step"], int(metadata["rounds"]), dict(tensors))
        except (KeyError, ValueError) as error:
            raise AggregationError(f"this is not a server state: bad or missing metadata ({error})") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all; raises `StoreError` when the disk does not take it."""
        from flavor.checkpoints import TensorFileWriter, TensorSpec  # dicts alone need no writer of files

        specs = [TensorSpec(name, tensor.dtype, tensor.shape) for name, tensor in self.tensors.items()]
        with TensorFileWriter(path, specs, self.metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, self.tensors[spec.name])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ServerState:
        """Return the state in a file of `save`, or of a run beside its global model; tensors are views of the file.

        Raises `CheckpointError` for a file that is not safetensors, `AggregationError` for a file without a state.
        """
        from flavor.checkpoints import TensorFile

        file = TensorFile.open(path)
        return cls.restore({name: file.tensor(name) for name in file.names}, file.metadata)

    def without(self, names: Collection[str]) -> ServerState:
        """Return this state without the tensors of these names."""
        gone = frozenset(names)
        if not any(key.partition("/")[2] in gone for key in self.tensors):
            return self
        kept = {key: tensor for key, tensor in self.tensors.items() if key.partition("/")[2] not in gone}
        return replace(self, tensors=kept)

    def check(self, step: str, slots: Mapping[str, float], model: Mapping[str, Tensor]) -> None:
        """Raise `AggregationError` unless this is the state of `step` for the float tensors of `model`.

        `model` holds the float tensors only. The options of a step may change between rounds, its kind may not.
        """
        if self.step != step:
            raise AggregationError(
                f"the server state is that of {self.step!r}, the server step is {step!r}: "
                "go on with the first, or start without a state"
            )
        expected = {f"{slot}/{name}": tensor for slot in slots for name, tensor in model.items()}
        if odd := sorted(expected.keys() ^ self.tensors.keys()):
            which = "lacks" if odd[0] in expected else "has an extra"
            raise AggregationError(f"the server state of {step!r} {which} tensor {odd[0]!r}")
        for key, tensor in expected.items():
            held, dtype = self.tensors[key], compute_dtype(tensor.dtype)
            if held.shape != tensor.shape or held.dtype != dtype:
                raise AggregationError(
                    f"the server state's tensor {key!r} is {held.dtype} {held.shape}, "
                    f"the model needs {dtype} {tensor.shape}"
                )
