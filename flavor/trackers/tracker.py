"""What an export writes, and where to: a tracker is a place that takes the rounds of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flavor.records.run import RunView
from flavor.results.evaluated import Evaluated
from flavor.results.read_evaluated import is_automatic
from flavor.results.rounds import RoundResult

_SECRET = re.compile(
    r"(?:^|_)(?:SECRETS?|PASS(?:WORD|WD|PHRASE)?|TOKEN|CREDENTIALS?|(?:API|ACCESS|PRIVATE)_?KEY)(?:_|$)"
)
_OF_OPERATOR = ("store", "queue")
JUDGED = "evaluation/"
"""What the names of metrics of evaluations begin with: those of global models, and not of what scripts report."""
HIDDEN = "(not exported: its name says that it is a secret)"


@dataclass(frozen=True)
class ClosedRound:
    """A closed round as it is exported."""

    result: RoundResult
    closed_ms: int
    """When it was closed, in milliseconds of the server's clock."""
    manifest: str
    """The SHA-256 of its manifest, as `flavor verify` checks it; '' where Redis does not have it."""
    is_whole: bool = True
    """Whether everything that was reported could be read."""

    @property
    def round(self) -> int:
        """Its number."""
        return self.result.round


@dataclass(frozen=True)
class Held:
    """What a tracker holds of a run already."""

    round: int = 0
    """The newest round; 0 for none."""
    manifest: str = ""
    """The SHA-256 of that round's manifest when it was exported; '' where that is not known."""


class Tracker(Protocol):
    """A place that takes the rounds of one run. Each method can be repeated after a failure: nothing is doubled.

    All methods raise `InvalidSetting` for a place that cannot be used, and `TrackerUnavailable` for one that may be
    usable later.
    """

    where: str
    """The place, for people, without secrets."""

    def begin(self, view: RunView) -> Held:
        """Make the place ready for this run. Return what it holds of the run; rounds after that are written."""

    def write(self, rounds: Sequence[ClosedRound]) -> int:
        """Take these rounds, which follow those that the place holds; return how many of them are new to it."""

    def write_evaluations(self, every: Sequence[Evaluated]) -> int:
        """Take all evaluations of the run with a result, in the order in which they were closed.

        Return how many of them are new to the place. Their metrics stand apart from those of rounds.
        """

    def end(self, view: RunView, reason: str, model: Callable[[Path], Path]) -> None:
        """Note how the run has ended. `model` writes the final global model into a folder, and returns its path."""


def by_round(every: Sequence[Evaluated], *, is_central: bool = False) -> list[Evaluated]:
    """Return the evaluations that the run has made by itself, by round: those whose metrics make a curve.

    They are those by sites, or those on the operator's own data, which may come after those of later rounds.
    """
    chosen = (each for each in every if (each.is_central if is_central else is_automatic(each)))
    return [each for _, each in sorted({each.round: each for each in chosen}.items())]


def settings_of(view: RunView) -> dict[str, str]:
    """Return the run's settings as texts, by name; those that `--set` gives to the scripts as `set/NAME`.

    Those of `--set-for` are `set/NAME/CLIENT`.

    Leaves out settings without a value, and those that say where the operator keeps objects and jobs. The value of a
    setting whose name says that it is a secret is `HIDDEN`.
    """
    found: dict[str, str] = {}
    for name, value in view.config.items():
        if name in _OF_OPERATOR:
            continue
        if name == "settings" and isinstance(value, dict):
            found |= {f"set/{each}": HIDDEN if _SECRET.search(each) else _text(said) for each, said in value.items()}
        elif name == "set_for" and isinstance(value, dict):
            for client, settings in value.items():
                found |= {
                    f"set/{each}/{client}": HIDDEN if _SECRET.search(each) else _text(said)
                    for each, said in settings.items()
                }
        elif value is not None and value not in ([], {}):
            found[name] = _text(value)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
