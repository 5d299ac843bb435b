"""Reads what sites reported for closed rounds, and says of which rounds something is missing, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flavor.errors import (
    BadObjectPath,
    DigestMismatch,
    InvalidInfo,
    ObjectMissing,
    ObjectWithheld,
    StoreError,
    StoreUnavailable,
)
from flavor.records.info import Info
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
SPOILED = (DigestMismatch, BadObjectPath, ObjectWithheld)


class RoundReading:
    """Reads the client information of rounds for one reader, and notes what it lacks."""

    def __init__(self, out: str, tell: Callable[[str], None]) -> None:
        """Make a reading for `out`, which the lines to `tell` name as what lacks something."""
        self._out, self._tell = out, tell
        self._lacking: dict[tuple[str, str], list[int]] = {}  # what is missing, and why -> rounds; not reported yet

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
        return found
