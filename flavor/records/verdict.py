"""The verdict on an update that was handed in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from flavor.records.damage import damage_in, table
from flavor.records.names import count
from flavor.records.objects import ObjectRef
from flavor.records.update import Refused, Update


class OfModel(StrEnum):
    """Whether the global model of a round is to blame for the refusal of an update."""

    NO = ""
    LIKELY = "likely"
    """Its values are so large that training from it seldom stays finite."""
    SURE = "sure"
    UNREADABLE = "unreadable"
    """It is gone from the store, or was changed or is withheld there: another try helps once it is back."""


@dataclass(frozen=True)
class Verdict:
    """The result of the inspection of one update."""

    accepted: bool
    reason: str
    update: Update | None = None
    """The inspected update, so that later writes of the edge cannot change what is aggregated; None for a refusal."""
    constants: Sequence[str] = ()
    """Tensors that may hold infinities, as masks do: the same in the model and at every site."""
    blameless: bool = False
    """Whether the reason of the refusal is not the client's fault."""
    of_model: OfModel = OfModel.NO
    """Whether the global model of the round is to blame, so that no site can do this round."""
    try_id: str = ""
    """The client's try in this round that the verdict is on: `try_id` of the judged update."""
    refused_before: str = ""
    """Why the update before in this round was refused, which the client has handed in again; '' where none was."""
    structure: str = ""
    """A digest of the tensors' names, shapes and dtypes, in a first round that starts from no model."""

    @property
    def inspected(self) -> Update:
        """The update that was accepted."""
        if self.update is None:
            raise ValueError(f"a refusal has no update: {self.reason}")
        return self.update

    def is_about(self, handed_in: Update | Refused) -> bool:
        """Whether this is the verdict on `handed_in`: an acceptance is on every try, a refusal on one try alone."""
        return self.accepted or self.try_id == handed_in.try_id

    def to_json(self) -> str:
        """Write the verdict as JSON, as in Redis."""
        update = self.update or _NOTHING
        fields = {
            "accepted": self.accepted,
            "reason": self.reason,
            "path": update.object.path,
            "digest": update.object.digest,
            "size_bytes": update.object.size_bytes or 0,
            "seal": update.object.seal,
            "format": update.format,
            "num_examples": update.num_examples,
            "info_path": update.info.path,
            "info_digest": update.info.digest,
            "constants": list(self.constants),
            "blameless": self.blameless,
            "public_key": update.public_key,
            "signature": update.signature,
            "try_id": self.try_id,
            "structure": self.structure,
            "unread": update.unread,
        }
        if self.of_model:
            fields["of_model"] = self.of_model
        if self.refused_before:
            fields["refused_before"] = self.refused_before
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read a verdict of Redis. Raises `DamagedRecord`."""
        with damage_in("verdict"):
            return cls._of(table(text))

    @classmethod
    def _of(cls, fields: Mapping[str, Any]) -> Verdict:
        _check_types(fields)
        update = None
        if fields.get("path"):
            update = Update(
                object=ObjectRef(
                    fields["path"], fields.get("digest", ""), fields.get("size_bytes", 0), fields.get("seal", "")
                ),
                info=ObjectRef(fields.get("info_path", ""), fields.get("info_digest", "")),
                format=fields.get("format", ""),
                num_examples=fields.get("num_examples", 0),
                public_key=fields.get("public_key", ""),
                signature=fields.get("signature", ""),
                unread=fields.get("unread", False),
                try_id=fields.get("try_id", ""),
            )
        return cls(
            accepted=fields["accepted"],
            reason=fields["reason"],
            update=update,
            constants=tuple(fields.get("constants", ())),
            blameless=fields.get("blameless", False),
            of_model=OfModel(fields.get("of_model", "")),
            try_id=fields.get("try_id", ""),
            refused_before=fields.get("refused_before", ""),
            structure=fields.get("structure", ""),
        )


_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("accepted", "blameless", "unread"), bool),
    **dict.fromkeys(("size_bytes", "num_examples"), int),
    **dict.fromkeys(("reason", "path", "digest", "seal", "format", "info_path", "info_digest"), str),
    **dict.fromkeys(("public_key", "signature", "try_id", "structure", "refused_before"), str),
    "constants": list,
}


def _check_types(fields: Mapping[str, Any]) -> None:
    for name, kind in _TYPES.items():
        if name in fields and type(fields[name]) is not kind:
            raise ValueError(f"its {name} is of another type")


_NOTHING = Update(ObjectRef("", ""), ObjectRef("", ""), "", 0)


class Refusal(NamedTuple):
    """A withdrawn acceptance."""

    client: str
    verdict: Verdict
    is_fault: bool
    """Whether the update is at fault, and not the store."""


@dataclass(frozen=True)
class Answer:
    """The answer to a client on its update: a part of the verdict, which sites may not read."""

    accepted: bool
    reason: str
    try_id: str = ""
    quarantined: int = 0
    """How many updates in a row were refused, where that refusal has quarantined the client; 0 for any other."""
    blameless: bool = False
    """Whether the reason of the refusal is not the client's fault, so that nothing is to be mended at its site."""
    of_model: OfModel = OfModel.NO
    """Whether the global model of the round is to blame: NO in an answer of 0.1.0."""

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Answer | None:
        """Read the answer's hash; None where there is no answer."""
        if "accepted" not in fields:
            return None
        refused = count(fields.get("quarantined", "")) or 0
        blameless, cause = fields.get("blameless") == "1", fields.get("of_model", "")
        return cls(
            fields["accepted"] == "1",
            fields.get("reason", ""),
            fields.get("try", ""),
            refused,
            blameless,
            OfModel(cause) if cause in [*OfModel] else OfModel.NO,
        )
