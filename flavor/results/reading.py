"""Reads what sites reported for closed rounds, and says of which rounds something is missing, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from flavor.counted import counted
from flavor.errors import (
    BadObjectPath,
    DigestMismatch,
    InvalidInfo,
    ObjectMissing,
    ObjectWithheld,
    StoreError,
    StoreUnavailable,
)
from flavor.printable import shown_name
from flavor.records.info import CONFUSION, Info
from flavor.records.merging import is_of_most
from flavor.records.round import RoundView
from flavor.results.rounds import merged_info, site_info
from flavor.store.paths import run_of
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import is_of_one_object

GONE = (
    "is no longer in the store, so {out} lacks it (information stays for 50 rounds, and longer with --keep-rounds and "
    "--keep-globals)"
)
CHANGED = (
    "in the store is not what was recorded, so {out} lacks it: another who writes to the store changed it, and "
    "`flavor verify` names it"
)
_OTHER_BYTES = (
    "was changed in the store after it was accepted (its SHA-256 is not the recorded one), so {out} lacks it: who "
    "writes to that site's folder did it, and `flavor verify` names it"
)
_KEPT_BACK = (
    "is not given out by the store, though others' is, so {out} lacks it: it may be archived, encrypted with a key of "
    "its owner's, or closed by its owner"
)
_MOST_TOLD = 100
"""Of how many metrics of one site it is told that it reports no value: sites choose the names."""
_MOST_NAMED = 4
SPOILED = (DigestMismatch, BadObjectPath, ObjectWithheld)


class RoundReading:
    """Reads the client information of rounds for one reader, and notes what it lacks."""

    def __init__(self, out: str, tell: Callable[[str], None]) -> None:
        """Make a reading for `out`, which the lines to `tell` name as what lacks something."""
        self._out, self._tell = out, tell
        self._lacking: dict[tuple[str, str], list[int]] = {}  # what is missing, and why -> rounds; not reported yet
        self._valueless: dict[str, set[str]] = {}  # site -> metrics without a value of which it was told

    def lacks(self, what: str, round_: int, why: str = GONE) -> None:
        """Note that something of a round is missing."""
        rounds = self._lacking.setdefault((what, why), [])
        if round_ not in rounds[-1:]:  # of each site of a round
            rounds.append(round_)

    def forget(self, round_: int) -> None:
        """Forget what was missing of a round, which is to be read again."""
        self._lacking = {
            lost: others for lost, of in self._lacking.items() if (others := [n for n in of if n != round_])
        }

    def tell_lacking(self) -> None:
        """Report the rounds of which something is missing: removed before they were read, or changed in the store."""
        for (what, why), rounds in self._lacking.items():
            which = f"round {rounds[0]}" if len(rounds) == 1 else f"{len(rounds)} rounds, {rounds[0]} to {rounds[-1]}"
            self._tell(f"{which}: {what} {why.replace('{out}', self._out)}")
        self._lacking.clear()

    def merged(self, view: RoundView, store: ObjectStore) -> dict[str, Any] | None:
        """Return a round's merged client information; None, which is noted, where it is gone or was changed."""
        try:
            return merged_info(view, store)
        except ObjectMissing:
            self.lacks("the merged information", view.round)
        except (*SPOILED, InvalidInfo):
            self.lacks("the merged information", view.round, CHANGED)
        return None

    def of_sites(
        self, view: RoundView, store: ObjectStore, known: Mapping[str, Info], *, is_last: bool
    ) -> dict[str, Info]:
        """Return the client information of each site of a round, as far as it is `known` or can be read.

        Raises `StoreError` for what may be had later, unless this `is_last`.
        """
        found = dict(known)
        for client in view.contributors:
            if client in found or client not in view.verdicts:
                continue
            try:
                found[client] = site_info(view, store, client)
            except ObjectMissing:
                self.lacks("what single sites reported", view.round)
            except DigestMismatch:
                self.lacks(f"what {client} reported", view.round, _OTHER_BYTES)
            except InvalidInfo as error:
                self.lacks(f"what {client} reported", view.round, f"cannot be used, so {{out}} lacks it ({error})")
            except StoreError as error:
                is_passing = isinstance(error, StoreUnavailable) and error.passing and not is_last
                if is_passing or not is_of_one_object(store, run_of(view.inspected(client).info.path), error):
                    raise
                self.lacks(f"what {client} reported", view.round, _KEPT_BACK)
        if len(found) > len(known):  # a folder that is read again has told it
            self._tell_valueless(view.round, {client: found[client] for client in view.contributors if client in found})
        return found

    def _tell_valueless(self, round_: int, infos: Mapping[str, Info]) -> None:
        """Name the sites without a value of a metric that most sites report, or that they report as no finite number.

        The merged value is then that of the others. Once for each site and metric: a site may never have it.
        """
        reported = Counter(name for info in infos.values() for name, value in info["metrics"].items() if _is(value))
        of_most = [name for name, count in reported.items() if is_of_most(count, len(infos)) and name not in CONFUSION]
        for site, info in infos.items():
            metrics, told = info["metrics"], self._valueless.setdefault(site, set())
            names = [name for name in of_most if not _is(metrics.get(name))]
            names += [name for name, value in metrics.items() if not _is(value) and name not in (*of_most, *CONFUSION)]
            new = [name for name in names if name not in told][: _MOST_TOLD - len(told)]
            told.update(new)
            if new:
                more = f" and {len(new) - _MOST_NAMED} more metrics" if len(new) > _MOST_NAMED else ""
                shown = ", ".join(map(shown_name, new[:_MOST_NAMED])) + more
                counts = {reported[name] for name in new}
                of = f"of {counts.pop()} of {counted(len(infos), 'site')}" if len(counts) == 1 else "of the other sites"
                what = "the round's value is" if len(new) == 1 else "the round's values are"
                self._tell(
                    f"round {round_}: {site} reports no finite number as {shown} (None, NaN, infinite, or left out): "
                    f"{what} {of}. This line is not repeated for later rounds"
                )


def _is(value: object) -> bool:
    """Return whether a site's value of a metric is there: a finite number, or a list of counts."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
