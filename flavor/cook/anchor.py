"""What the helpers of `flavor.cook.torch` and `flavor.cook.numpy` share: when a round begins, and their calls."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from flavor.cook.utils import current_round
from flavor.errors import InvalidSetting
from flavor.programs.calls_file import note_call

_told: set[tuple[str, str]] = set()
"""The helpers and calls of which this process has told. A script may make a helper anew in each round."""


class Calls:
    """The calls of one helper, such as `proximal`, in the rounds of a script."""

    def __init__(self, helper: str) -> None:
        self._helper = helper
        self.round = current_round()
        """The round of the last call of `is_new_round`, or of the making; None before there is one."""
        self.note("made")

    def note(self, call: str) -> None:
        """Note a call, for `check-fl`."""
        note_call(self._helper, call)

    def is_new_round(self) -> bool:
        """Return whether the script is in another round than at the last time, or at the making.

        A process that takes up no rounds itself, such as one that the script has started, never sees a new round.
        """
        before, self.round = self.round, current_round()
        return self.round != before

    def tell_once(self, call: str, what: str, tell: Callable[[str], None]) -> None:
        """Tell what is wrong, once in this process, and note it as this call."""
        self.note(call)
        if (self._helper, call) not in _told:
            _told.add((self._helper, call))
            tell(what)


OTHER_ANCHOR = (
    "the model had changed between proximal(model, mu) and the first use of its term, which pulls towards the model of "
    "before: make the term in each round after the global model is loaded, and use it from the first step on"
)


def tell_anchor(what: str) -> None:
    """Print one line for the site's log."""
    if sys.stderr is not None:
        print(f"flavor: proximal: {what}", file=sys.stderr, flush=True)


def checked(helper: str, name: str, value: object, *, least: float, is_least_allowed: bool) -> float:
    """Return a setting of a helper as a float. Raises `InvalidSetting`, in one line, for what is no such number."""
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < least or (number == least and not is_least_allowed):
        bound = f"{least:g} or more" if is_least_allowed else f"more than {least:g}"
        raise InvalidSetting(f"{helper}: {name} must be a finite number, {bound}, and is {str(value)[:40]}")
    return number
