"""What became of an update that was handed in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flavor.records.objects import ObjectRef
from flavor.records.update import Refused, Update


@dataclass(frozen=True)
class Verdict:
    """What the inspection of one update found."""

    accepted: bool
    reason: str
    update: Update | None = None
    """What was inspected, so that nothing the edge writes later can change what is aggregated; None for a refusal."""
    constants: Sequence[str] = ()
    """Its tensors that may hold infinities, as masks do: those that are the same in the model and at every site."""
    blameless: bool = False
    """Whether it was refused for what is not its client's fault."""
    try_id: str = ""
    """Which of the client's tries in this round it is about: `try_id` of the update that was judged."""
    structure: str = ""
    """A digest of the tensors' names, shapes and dtypes, in a first round that starts from no model."""

    @property
    def inspected(self) -> Update:
        """The update of an acceptance."""
        if self.update is None:
            raise ValueError(f"a refusal has no update: {self.reason}")
        return self.update

    def is_about(self, handed_in: Update | Refused) -> bool:
        """Whether this answers what was handed in: an acceptance answers every try, a refusal that try alone."""
        return self.accepted or self.try_id == handed_in.try_id

    def to_json(self) -> str:
        """Write it as it stands in Redis."""
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
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read it from Redis."""
        fields = json.loads(text)
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
            try_id=fields.get("try_id", ""),
            structure=fields.get("structure", ""),
        )


_NOTHING = Update(ObjectRef("", ""), ObjectRef("", ""), "", 0)


class Refusal(NamedTuple):
    """An acceptance that is taken back."""

    client: str
    verdict: Verdict
    is_fault: bool
    """Whether its update is to blame, and not its store."""


@dataclass(frozen=True)
class Answer:
    """What a client is told of its update: less than the verdict, which sites may not read."""

    accepted: bool
    reason: str
    try_id: str = ""

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Answer | None:
        """Read what stands in Redis; None where there is no answer."""
        if "accepted" not in fields:
            return None
        return cls(fields["accepted"] == "1", fields.get("reason", ""), fields.get("try", ""))
