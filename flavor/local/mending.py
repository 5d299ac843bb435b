"""How a failed local run goes on: with mended commands, or without the sites that failed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import FlavorError, InvalidSetting
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


def fewer_sites(runs: RunStore, sites: Sequence[str]) -> str:
    """Return the options with which a failed run goes on without the sites that failed.

    '' where all sites failed, where none did, or where the run's rule needs more sites.
    """
    with contextlib.suppress(FlavorError):
        snapshot = take_snapshot(runs)
        fit = sum(name in snapshot.clients and snapshot.clients[name].phase not in _UNFIT for name in sites)
        if 0 < fit < len(sites):
            before = snapshot.config
            changes = {"min_clients": fit} if before.min_clients > fit else {}
            if before.model_copy(update=changes).needed_of(len(sites)) > fit:
                changes["quorum"] = fit
            RunConfig.parse({**before.to_mapping(), **changes})
            return " ".join(f"--{name.replace('_', '-')} {number}" for name, number in changes.items())
    return ""
