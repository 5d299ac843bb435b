"""The global model of a round, with the objects beside it in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flavor.records.names import count
from flavor.records.objects import ObjectRef


@dataclass(frozen=True)
class GlobalModel:
    """The global model that a round begins from or has made."""

    model: ObjectRef
    info: ObjectRef | None = None
    """The merged information of the round that made it; None for initial weights."""
    state: ObjectRef | None = None
    """The state of the server step after that round; None for a step without state. Sites do not get it."""
    format: str = ""
    """The trainers' format, in which edges write the model; '' where the record does not name one."""
    tensors: int | None = None
    """How many tensors it has, in a run that shares a part of the model; None in other runs."""
    whole: ObjectRef | None = None
    """The whole model, of the initial model of a run that shares a part of it; None for all other models."""

    @property
    def size_bytes(self) -> int:
        """Size of the model in bytes, as recorded; 0 where the record has no size."""
        return self.model.size_bytes or 0

    @property
    def weights(self) -> tuple[str, str]:
        """The digests of the model, and of the whole model where this is the shared part of it."""
        return self.model.digest, self.whole.digest if self.whole is not None else ""

    def unsealed(self) -> GlobalModel:
        """Return the same model without its seal, so that its digest is computed before it is used."""
        return replace(self, model=self.model.sealed(""))

    def to_hash(self) -> dict[str, str]:
        """Return all fields of the run's hash that name the model. Absent objects are '', to clear earlier ones.

        The fields of `whole` are there for an initial model alone, and stay in the run's hash.
        """
        nothing = dict.fromkeys(("global_seal", "info_path", "info_digest", "state_path", "state_digest"), "")
        fields = {**nothing, **self.model.to_hash("global_"), "format": self.format}
        if self.tensors is not None:
            fields["global_tensors"] = str(self.tensors)
        if self.whole is not None:
            fields |= self.whole.to_hash("whole_")
        for prefix, ref in (("info_", self.info), ("state_", self.state)):
            if ref is not None:
                fields |= {f"{prefix}path": ref.path, f"{prefix}digest": ref.digest}
        return fields

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> GlobalModel | None:
        """Read the fields of a run's hash or of a task; None where there is no global model yet.

        Raises `DamagedRecord` where its size is no number.
        """
        model = ObjectRef.from_hash(fields, "global_")
        if model is None:
            return None
        info, state = ObjectRef.from_hash(fields, "info_"), ObjectRef.from_hash(fields, "state_")
        return cls(model, info, state, fields.get("format", ""), count(fields.get("global_tensors")))
