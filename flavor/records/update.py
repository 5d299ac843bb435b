"""What a client hands in for a round: an update, or its edge's message that there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flavor.printable import quoted
from flavor.records.measured import Measured
from flavor.records.names import count
from flavor.records.objects import ObjectRef

UNSAID = -1
"""`Update.num_examples` where the client has written no number."""
_NUMBER = re.compile(r"[0-9]{1,20}")
LONGEST_TRY = 64
"""Longest name of a try that is read, in characters."""

FIELDS = (
    *("path", "digest", "size", "format", "info_path", "info_digest", "num_examples"),
    *("public_key", "signature", "refused", "failure", "exit_code", "report", "try", "unread", "phases", "moved"),
)
"""The fields that are read from the hash of an update."""


def handed_size(num_examples: int) -> str:
    """Return in words which `datasetSize` a site has handed in beside its information."""
    return "no number that can be read" if num_examples == UNSAID else str(num_examples)


@dataclass(frozen=True)
class Update:
    """An update that a client handed in.

    Read from Redis, no field of it is verified. In an accepted `Verdict`, it has the inspected values.
    """

    object: ObjectRef
    info: ObjectRef
    """Its information (info.json)."""
    format: str
    """The format that the client's trainer saves in."""
    num_examples: int
    """`datasetSize` in its information; `UNSAID` for a missing number."""
    base: ObjectRef | None = None
    """The global model that its client was given to train from; None where there was none.

    It is not written to Redis: a reader of an update knows the model of its round, and the signature covers it.
    """
    public_key: str = ""
    """`ed25519:HEX`; '' for an unsigned update."""
    signature: str = ""
    """Signature by that key on the update's `Statement` (`flavor.ledger.statement`)."""
    unread: bool = False
    """Whether the edge reports that the trainer did not read the global model."""
    try_id: str = ""
    """Which of the client's tries in the round it is."""
    measured: Measured = field(default_factory=Measured, compare=False)
    """What its edge has measured, for people: it is not signed."""

    @property
    def trained_from(self) -> str:
        """SHA-256 of the global model that its client was given; '' where there was none."""
        return self.base.digest if self.base is not None else ""

    @property
    def size_bytes(self) -> int:
        """Size of its object in bytes, as recorded; 0 where the record has no size."""
        return self.object.size_bytes or 0

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of its objects."""
        return tuple(ref.path for ref in (self.object, self.info) if ref.path)

    def to_hash(self) -> dict[str, str]:
        """The fields that its edge writes."""
        fields = {
            **self.object.to_hash(),
            "format": self.format,
            "info_path": self.info.path,
            "info_digest": self.info.digest,
            "num_examples": str(self.num_examples),
        }
        if self.signature:
            fields |= {"public_key": self.public_key, "signature": self.signature}
        if self.unread:
            fields["unread"] = "1"
        return {**fields, "try": self.try_id, **self.measured.to_hash()}


@dataclass(frozen=True)
class Refused:
    """An edge's message, in place of an update, that the trainer's files cannot be used."""

    reason: str
    failure: str = ""
    """The class of the failure (`flavor.edge.notice`); '' for none."""
    exit_code: str = ""
    report: str | None = None
    """The trainer's output, where the site's user shares it."""
    try_id: str = ""
    measured: Measured = field(default_factory=Measured, compare=False)
    """What its edge has measured, for people."""

    def said(self, most: int) -> str:
        """Return the reason in quotation marks, because a site has written it: at most so many characters of it."""
        return quoted(self.reason, most=most) or "its edge refused it, and gave no reason"

    def to_hash(self) -> dict[str, str]:
        """The fields that its edge writes."""
        fields = {"refused": self.reason}
        if self.failure:
            fields["failure"] = self.failure
        if self.exit_code:
            fields["exit_code"] = self.exit_code
        if self.report is not None:
            fields["report"] = self.report
        return {**fields, "try": self.try_id, **self.measured.to_hash()}


def from_hash(fields: Mapping[str, str], *, base: ObjectRef | None = None) -> Update | Refused:
    """Read what a client has written, which may be anything. `base` is the global model of the round."""
    try_id = fields.get("try", "")[:LONGEST_TRY]
    if "refused" in fields:
        return Refused(
            fields["refused"],
            fields.get("failure", ""),
            fields.get("exit_code", ""),
            fields.get("report"),
            try_id,
            Measured.from_hash(fields),
        )
    examples = fields.get("num_examples", "")
    return Update(
        object=ObjectRef(fields.get("path", ""), fields.get("digest", ""), count(fields.get("size"))),
        info=ObjectRef(fields.get("info_path", ""), fields.get("info_digest", "")),
        format=fields.get("format", ""),
        num_examples=int(examples) if _NUMBER.fullmatch(examples) else UNSAID,
        base=base,
        public_key=fields.get("public_key", ""),
        signature=fields.get("signature", ""),
        unread=fields.get("unread") == "1",
        try_id=try_id,
        measured=Measured.from_hash(fields),
    )
