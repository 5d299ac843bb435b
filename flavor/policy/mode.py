"""The mode of a run: whether its rounds wait for all updates, or close with the first few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flavor.errors import InvalidSetting

if TYPE_CHECKING:
    from aggregators.staleness import Staleness

SYNC, ASYNC = "sync", "async"
MOST_STALENESS = 100
USAGE = "sync, or async:buffer=K[,staleness=RULE][,max_staleness=N], e.g. async:buffer=3,staleness=polynomial:0.5"


@dataclass(frozen=True)
class Buffered:
    """The settings of a run whose rounds close with the first `buffer` accepted updates."""

    buffer: int
    """K, the number of accepted updates with which a round closes."""
    staleness: str = "polynomial:0.5"
    """The rule s(τ), by its name; see `aggregators.staleness`."""
    max_staleness: int = 10
    """The largest τ of an update that still counts."""

    def __str__(self) -> str:
        return f"{ASYNC}:buffer={self.buffer},staleness={self.staleness},max_staleness={self.max_staleness}"

    @property
    def rule(self) -> Staleness:
        """The rule that says how much a stale update counts."""
        from aggregators.staleness import parse_staleness  # numpy, which no edge needs

        return parse_staleness(self.staleness)

    @classmethod
    def parse(cls, text: str) -> Buffered | None:
        """Read `--mode`; None for a synchronous run. Raises `InvalidSetting`, which says how to write it."""
        name, colon, options = text.partition(":")
        if name == SYNC and not colon:
            return None
        if name != ASYNC:
            raise InvalidSetting(f"unknown mode {text!r}: write {USAGE}")
        values: dict[str, str] = {}
        for part in options.split(",") if options else []:
            option, equals, value = part.partition("=")
            if not equals or option not in ("buffer", "staleness", "max_staleness") or option in values:
                raise InvalidSetting(f"{text!r}: bad option {part!r}: write {USAGE}")
            values[option] = value
        if "buffer" not in values:
            raise InvalidSetting(f"{text!r}: buffer=K is missing, the updates that close a round: write {USAGE}")
        mode = cls(
            _whole(text, "buffer", values["buffer"], least=1),
            values.get("staleness", cls.staleness),
            _whole(text, "max_staleness", values.get("max_staleness", str(cls.max_staleness)), most=MOST_STALENESS),
        )
        return cls(mode.buffer, str(mode.rule), mode.max_staleness)


def _whole(text: str, option: str, value: str, *, least: int = 0, most: int | None = None) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) < least or (most is not None and int(value) > most):
        bound = f"{least} or more" if most is None else f"from {least} to {most}"
        raise InvalidSetting(f"{text!r}: {option}={value}: a whole number, {bound}, is needed")
    return int(value)
