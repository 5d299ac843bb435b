"""How a failed local run goes on: with mended commands, or without the sites that failed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import FlavorError, InvalidSetting
from flavor.policy.advice import some
from flavor.view.snapshot import Phase, take_snapshot

_UNFIT = (Phase.FAILED, Phase.GONE, Phase.REFUSED, Phase.QUARANTINED, Phase.REVOKED)
_OPTIONS = {"main": "--main", "preprocess": "--preprocess"}


def check_mended(mended: Mapping[str, str], closed: int) -> None:
    """Raise `InvalidSetting` where a command is to change and a round has closed with the one before."""
    if mended and closed:
        names = ", ".join(_OPTIONS[name] for name in mended)
        rounds = "a round has" if closed == 1 else f"{closed} rounds have"
        raise InvalidSetting(
            f"{names}: {rounds} closed with the command of the run's beginning, so it stays as it was: leave it out "
            "and mend the script, or begin another run from this one's global model (--run, --init-model)"
        )


def without_failed(runs: RunStore, sites: Sequence[str]) -> str:
    """Return how a failed run goes on without the sites that failed.

    '' where all sites failed, where none did, or where the run's rule needs more sites.
    """
    with contextlib.suppress(FlavorError):
        snapshot = take_snapshot(runs)
        failed = [name for name in sites if name not in snapshot.clients or snapshot.clients[name].phase in _UNFIT]
        if failed and (fit := len(sites) - len(failed)):
            before = snapshot.config
            changes = {"min_clients": fit} if before.min_clients > fit else {}
            if before.model_copy(update=changes).needed_of(len(sites)) > fit:
                changes["quorum"] = fit
            RunConfig.parse({**before.to_mapping(), **changes})
            options = " ".join(f"--{name.replace('_', '-')} {number}" for name, number in changes.items())
            others = "the other site does" if fit == 1 else "the other sites do"
            return options and f"or at once with {options}, without {some(failed)}, if {others} not fail as well"
    return ""
