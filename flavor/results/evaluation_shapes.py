"""The JSON files of evaluations in a result folder, checked: the folder may come from somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flavor.errors import InvalidRecord
from flavor.plain_file import read_plain
from flavor.policy.selection import Select
from flavor.printable import printable

_MOST_NAMED = 3
_LONGEST_MESSAGE = 200

Whole = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(allow_inf_nan=False)]
TimeMs = Annotated[int, Field(ge=0, lt=253_402_300_800_000)]
"""Milliseconds since 1970, until the year 9999, as calendars have them."""


class Shape(BaseModel):
    """A file, or a part of one. Fields that a later release adds are left out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    what: ClassVar[str] = "such file"

    @classmethod
    def of_json(cls, data: bytes | str, where: str) -> Self:
        """Read it. Raises `InvalidRecord`, which names `where` and the first wrong fields."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            wrong = [
                f"{'.'.join(map(str, each['loc']))[:80] or 'the file'}: "
                f"{each['msg'].removeprefix('Value error, ')[:_LONGEST_MESSAGE]}"
                for each in error.errors(include_url=False)[:_MOST_NAMED]
            ]
            raise InvalidRecord(f"{where} is no {cls.what}: {printable('; '.join(wrong))}") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises `FileNotFoundError`, and `InvalidRecord`, which names the file."""
        return cls.of_json(read_plain(path), str(path))


class MeasuresShape(Shape):
    """What one site has measured, as `SiteMeasures.to_plain` writes it."""

    examples: Whole
    metrics: dict[str, Number]
    not_finite: dict[str, str] = {}
    cut: bool = False
    words_cut: bool = False


class EvaluationShape(Shape):
    """One evaluation, as `Evaluated.to_json` writes it."""

    what = "evaluation of a result folder"

    version: int
    run: str
    round: Whole
    number: Whole
    model: str
    opened_ms: TimeMs
    closed_ms: TimeMs
    expected: tuple[str, ...]
    sites: dict[str, MeasuresShape]
    missing: dict[str, str]
    skipped: tuple[str, ...]
    metrics: dict[str, Number]
    null: tuple[str, ...] = ()
    few: dict[str, Whole] = {}
    reporters: dict[str, str] = {}
    spread: dict[str, tuple[Number, Number]] = {}
    central: MeasuresShape | None = None
    left_out: dict[str, dict[str, str]] = {}
    unread: dict[str, str] = {}
    subject: dict[str, Any] | None = None
    owner: str = ""
    """In place of `subject`, in files of an earlier release."""


class BestShape(Shape):
    """The best model by the run's `--select`, as `Selected` has it."""

    what = "best model of a result folder"

    select: str
    round: Whole
    value: Number
    sites: Whole

    @field_validator("select")
    @classmethod
    def _is_rule(cls, select: str) -> str:
        Select.parse(select)
        return select


class RulesShape(Shape):
    """The metrics of the run's rules (`--select`, `--stop-when`), by the names that sites use."""

    what = "rules of a result folder"

    metrics: tuple[str, ...]


class ReportsShape(Shape):
    """What sites have reported beside their metrics, as `Reports.to_plain` has it."""

    what = "file of reports of a result folder"

    sites: dict[str, dict[str, Any]]
    merged: dict[str, Any]
    missing: dict[str, str] = {}
