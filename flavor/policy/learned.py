"""The text of `--round-timeout-s auto`: how deadlines are learned."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flavor.errors import InvalidSetting

AUTO = "auto"
USAGE = "a number of seconds, or auto[:k=3,floor=60,ceiling=86400], e.g. auto or auto:k=4,floor=300"


@dataclass(frozen=True)
class Learned:
    """How deadlines are learned: median + k · MAD, with a least slack, from `floor_s` to `ceiling_s`."""

    k: float = 3.0
    floor_s: float = 60.0
    ceiling_s: float = 86_400.0
    """The longest deadline, which is also that of rounds before enough is known."""

    def __str__(self) -> str:
        return f"{AUTO}:k={_plain(self.k)},floor={_plain(self.floor_s)},ceiling={_plain(self.ceiling_s)}"

    @classmethod
    def parse(cls, text: str, *, longest_s: float) -> Learned | None:
        """Read `--round-timeout-s`; None for a text that does not begin with `auto`. Raises `InvalidSetting`."""
        name, _, options = text.strip().partition(":")
        if name != AUTO:
            return None
        values: dict[str, float] = {}
        for part in options.split(",") if options else []:
            option, equals, value = part.partition("=")
            if not equals or option not in ("k", "floor", "ceiling") or option in values:
                raise InvalidSetting(f"bad option {part!r} of {AUTO}: write {USAGE}")
            try:
                values[option] = float(value)
            except ValueError:
                raise InvalidSetting(f"{option}={value} of {AUTO} is no number: write {USAGE}") from None
        found = cls(
            values.get("k", cls.k),
            values.get("floor", cls.floor_s),
            values.get("ceiling", max(cls.ceiling_s, values.get("floor", 0))),
        )
        if not (math.isfinite(found.k) and 0 <= found.k <= 1000):
            raise InvalidSetting(f"k={found.k:g} of {AUTO}: a number from 0 to 1000 is needed")
        if not 0 < found.floor_s <= found.ceiling_s <= longest_s:
            raise InvalidSetting(
                f"floor={found.floor_s:g} and ceiling={found.ceiling_s:g} of {AUTO}: seconds above 0 are needed, of "
                f"{longest_s:g} at most, and the floor may not be above the ceiling"
            )
        return found


def _plain(number: float) -> str:
    short = f"{number:g}"
    return short if float(short) == number else repr(number)
