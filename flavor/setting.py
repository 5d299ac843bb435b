"""Describe a setting of a run beside its type, default and bounds: its help text, and its command-line option."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from flavor.option_groups import Group

LONGEST_S = 10 * 365 * 86_400.0
"""No duration is longer: milliseconds of it must fit what Redis takes."""


@dataclass(frozen=True)
class Setting:
    """The description of a setting. The field has the type, the default and the bounds."""

    help: str
    group: Group
    may_change: bool = False
    """Whether `flavor resume` may change it within a run."""
    metavar: str | None = None
    absent: str = ""
    """What applies without a value, in words; '' where the default shows it."""
    variable: str | None = None
    """Environment variable from which `flavor serve` reads the setting."""
    option: str = ""
    """Option on the command line; '' for the field's name, with hyphens."""
    is_single: bool = False
    """Whether the option is refused where it is given twice. Of another option with one value, the last one counts."""

    @staticmethod
    def of(field: FieldInfo) -> Setting:
        """Return the description of a field that `setting` has made."""
        assert isinstance(field.json_schema_extra, dict)
        extra: dict[str, Any] = dict(field.json_schema_extra)
        return Setting(**{**extra, "group": Group(extra["group"])})


def setting(
    help: str,
    group: Group,
    *,
    default: Any = ...,
    may_change: bool = False,
    metavar: str | None = None,
    absent: str = "",
    variable: str | None = None,
    option: str = "",
    is_single: bool = False,
    **bounds: Any,
) -> Any:
    """Make a field with a `Setting`; a required one without `default`. `bounds` are pydantic's: `ge`, `gt`, `le`."""
    about = Setting(help, group, may_change, metavar, absent, variable, option, is_single)
    made = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**made, **bounds, json_schema_extra=asdict(about))


def quorum_of(value: Any) -> int | float | None:
    """Read a number of updates as an int, and a share of a round's clients as a float."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        if text.isdigit() and int(text) >= 1:
            return int(text)
        if not text.isdigit() and 0 < number <= 1:
            return number
    except ValueError:
        pass
    raise ValueError("a number of updates is needed (3), or a share of the round's clients (0.6 or 60%)")


def explained(error: ValidationError) -> str:
    """Describe a validation error in one line that names each bad setting as its option."""
    lines = []
    for problem in error.errors():
        option = (
            "--" + "-".join(str(part) for part in problem["loc"]).replace("_", "-") if problem["loc"] else "settings"
        )
        if problem["loc"][:1] in (("settings",), ("set_for",)):  # whose values may be secret
            name = "--set" if problem["loc"][0] == "settings" else "--set-for"
            lines.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
            continue
        given = "" if problem["loc"] == () else f" (given: {_shown(problem['input'])})"
        lines.append(f"{option}: {problem['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(lines)


def _shown(given: Any) -> str:
    """Write the value of an option; the values of an option that may be repeated one after another."""
    return ", ".join(map(repr, given)) if isinstance(given, tuple) else repr(given)
