"""The mode of a run: whether its rounds wait for all updates, for those of sites that keep up, or for the first few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flavor.errors import InvalidSetting

if TYPE_CHECKING:
    from aggregators.staleness import Staleness

SYNC, ASYNC = "sync", "async"
MOST_STALENESS = 100
_RULES = "[,staleness=RULE][,max_staleness=N]"
USAGE = f"sync, sync:slow=async{_RULES}, or async:buffer=K{_RULES}, e.g. async:buffer=3,staleness=polynomial:0.5"


@dataclass(frozen=True)
class Buffered:
    """The settings of a run in which an update may count in a later round than that of its task."""

    buffer: int | None
    """K, the number of accepted updates with which a round closes; None where it waits for all sites but the slow."""
    staleness: str = "polynomial:0.5"
    """The rule s(τ), by its name; see `aggregators.staleness`."""
    max_staleness: int = 10
    """The largest τ of an update that still counts."""

    def __str__(self) -> str:
        name = f"{SYNC}:slow={ASYNC}" if self.buffer is None else f"{ASYNC}:buffer={self.buffer}"
        return f"{name},staleness={self.staleness},max_staleness={self.max_staleness}"

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
        if name not in (SYNC, ASYNC):
            raise InvalidSetting(f"unknown mode {text!r}: write {USAGE}")
        own = "slow" if name == SYNC else "buffer"
        values: dict[str, str] = {}
        for part in options.split(",") if options else []:
            option, equals, value = part.partition("=")
            if not equals or option not in (own, "staleness", "max_staleness") or option in values:
                raise InvalidSetting(f"{text!r}: bad option {part!r}: write {USAGE}")
            values[option] = value
        if name == SYNC and values.get(own) != ASYNC:
            raise InvalidSetting(f"{text!r}: a synchronous run takes slow={ASYNC} alone: write {USAGE}")
        if own not in values:
            raise InvalidSetting(f"{text!r}: buffer=K is missing, the updates that close a round: write {USAGE}")
        mode = cls(
            _whole(text, own, values[own], least=1) if name == ASYNC else None,
            values.get("staleness", cls.staleness),
            _whole(text, "max_staleness", values.get("max_staleness", str(cls.max_staleness)), most=MOST_STALENESS),
        )
        return cls(mode.buffer, str(mode.rule), mode.max_staleness)


def _whole(text: str, option: str, value: str, *, least: int = 0, most: int | None = None) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) < least or (most is not None and int(value) > most):
        bound = f"{least} or more" if most is None else f"from {least} to {most}"
        raise InvalidSetting(f"{text!r}: {option}={value}: a whole number, {bound}, is needed")
    return int(value)
