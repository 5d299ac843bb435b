"""What an evaluation judges: which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from flavor.records.damage import damage_in, table
from flavor.records.numbers import whole

SUBJECT_FIELDS = ("subject", "owner")
"""The fields of an evaluation that say which model it judges; earlier releases have the second one."""


class SubjectKind(StrEnum):
    """Where a judged model comes from."""

    GLOBAL = "global"
    """It is the global model of a round."""
    OUTSIDE = "outside"
    """It comes from outside the run (`flavor evaluate --model`)."""
    UPDATE = "update"
    """It is the update of one site in a round (`flavor evaluate --cross`)."""
    WITHOUT = "without"
    """It is the global model of a round without one site (`flavor contributions --by-sites`)."""
    WHOLE = "whole"
    """It is the global model of a round, judged beside those without a site, by the sites that judge these."""
    UNKNOWN = "unknown"
    """No round has made it, and its record, of an earlier release, does not say more."""


OF_SITES = (SubjectKind.UPDATE, SubjectKind.WITHOUT)
"""The kinds that have a round and a site."""


@dataclass(frozen=True)
class Subject:
    """Which model an evaluation judges."""

    kind: SubjectKind
    round: int = 0
    """The round whose model it is, to which it is an update, or whose model it is without a site; 0 for none."""
    site: str = ""
    """The site whose update it is, or that it lacks; '' for none."""

    @classmethod
    def of_round(cls, round_: int) -> Self:
        """Return the global model of a round; for round 0, a model from outside."""
        return cls(SubjectKind.GLOBAL, round_) if round_ else cls(SubjectKind.OUTSIDE)

    @property
    def made_by(self) -> int:
        """The round that has made the model; 0 for a model that no round has made."""
        return self.round if self.kind in (SubjectKind.GLOBAL, SubjectKind.WHOLE) else 0

    @property
    def counts(self) -> bool:
        """Whether the newest evaluation of a run may be of it.

        A model that has, or lacks, one site says too little, and a whole model is judged by a part of the sites.
        """
        return self.kind in (SubjectKind.GLOBAL, SubjectKind.OUTSIDE)

    @property
    def words(self) -> str:
        """What people read: `the model of round 3 without site-1`."""
        if self.kind is SubjectKind.OUTSIDE:
            return "a model from outside"
        if self.kind is SubjectKind.UNKNOWN:
            return (
                f"the update of {self.site}, or a model without it" if self.site else "a model that no round has made"
            )
        if self.kind is SubjectKind.UPDATE:
            return f"the update of {self.site} in round {self.round}"
        return f"the model of round {self.round}" + (f" without {self.site}" if self.site else "")

    def named(self, digest: str) -> str:
        """Return the words, with the model's digest where they alone do not name it."""
        return self.words if self.round else f"{self.words} (SHA-256 {digest[:12]}…)"

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain values, as records and JSON have it."""
        return asdict(self)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any], round_: int) -> Self | None:
        """Read it among the fields of an evaluation that stands under this round; None where it is that of the round.

        Earlier releases have an `owner` in its place: the site whose update the model is, or lacks. Raises `ValueError`
        and `TypeError`.
        """
        plain = fields.get("subject")
        if plain is None:
            owner = str(fields.get("owner") or "")
            return cls(SubjectKind.UNKNOWN, site=owner) if owner else None
        found = cls(SubjectKind(plain["kind"]), whole(plain["round"]), str(plain["site"]))
        if found.made_by != round_:
            raise ValueError(f"it is of {found.words}, and stands under round {round_}")
        return found if found != cls.of_round(round_) else None

    @classmethod
    def of_hash(cls, fields: Mapping[str, str], round_: int) -> Self | None:
        """Read it from the hash of an evaluation, as `of_fields`. Raises `DamagedRecord`."""
        with damage_in("field 'subject'"):
            return cls.of_fields(
                {**fields, "subject": table(fields["subject"])} if "subject" in fields else fields, round_
            )


class OfModel:
    """Base of what is about one judged model."""

    round: int
    of: Subject | None

    @property
    def subject(self) -> Subject:
        """Which model it is about: that of the round, if `of` names no other one."""
        return self.of or Subject.of_round(self.round)
