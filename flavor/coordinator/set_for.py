"""Lines for the operator about clients that `--set-for` names and that are not there, such as a name with an error."""

from __future__ import annotations

from collections.abc import Collection

from flavor.bus.acl import enrolled
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import BusUnavailable
from flavor.site_settings import unknown_clients


def not_enrolled(runs: RunStore, config: RunConfig) -> list[str]:
    """Return a line for each named client that is not enrolled, where others are, and that has not joined either.

    Where the server does not tell its users, no line is returned.
    """
    if not config.set_for:
        return []
    try:
        users = enrolled(runs.redis, runs.run, where=runs.where)
    except BusUnavailable:  # also where its answer is an error; an outage is told by what needs the server next
        return []
    if not users:
        return []
    known = {*users, *runs.public_keys(), *runs.members()}
    return [
        f"--set-for {client}: no client of this name is enrolled in run {runs.run!r}: {there_are}"
        for client, there_are in unknown_clients(config, known)
    ]


def not_joined(config: RunConfig, members: Collection[str], *, so_far: bool = False) -> list[str]:
    """Return a line for each named client that has not joined, with the members that may be meant."""
    when = "has not joined yet" if so_far else "has never joined"
    return [
        f"--set-for {client}: no client of this name {when}, so its settings have reached no script; of those that "
        f"have joined {there_are}"
        for client, there_are in unknown_clients(config, members)
    ]
