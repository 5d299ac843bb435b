"""The settings of a run about its object store: how sites reach it, and how long objects stay."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from flavor.option_groups import Group
from flavor.setting import setting


def _slow_sites_find_theirs(rounds: int) -> int:
    if rounds == 1:
        raise ValueError("2 at least, or 0 for all: a slow site may still be fetching the model before the newest")
    return rounds


KeepGlobals = Annotated[int, AfterValidator(_slow_sites_find_theirs)]

KEEP_ROUNDS = setting(
    "Number of newest rounds whose local updates stay in the store; 0 keeps all.",
    Group.STORE,
    default=2,
    may_change=True,
    ge=0,
)
KEEP_GLOBALS = setting(
    "Number of newest rounds whose global model stays in the store, beside the initial model: 2 or more, or 0 to "
    "keep all.",
    Group.STORE,
    default=0,
    may_change=True,
    ge=0,
)
"""The information and the server state of a global model stay with it."""
SIGNED_URLS = setting(
    "Have the coordinator sign a URL for each object that a site reads or writes in the bucket, so that sites need no "
    "credentials for it. A site that names --store itself uses its own credentials.",
    Group.STORE,
    default=False,
)
