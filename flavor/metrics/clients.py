"""Choose which clients of a run have a label of their own, where a run has more clients than labels are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flavor.view.client_snapshot import ATTENTION, Phase

_RANK = {
    **{phase.value: rank for rank, phase in enumerate(ATTENTION)},
    **dict.fromkeys((Phase.DONE.value, Phase.OVER.value, Phase.LEFT.value, Phase.REVOKED.value), len(ATTENTION) + 2),
}
_AT_WORK = len(ATTENTION) + 1
_REFUSED = len(ATTENTION)


def labelled(clients: Mapping[str, Mapping[str, Any]], most: int) -> list[str]:
    """Return the clients that have a label of their own, sorted: at most `most`, those that need attention first.

    The order among equals is that of their names, so that labels stay where nothing changes.
    """
    if len(clients) <= most:
        return sorted(clients)
    return sorted(sorted(clients, key=lambda name: (_rank(clients[name]), name))[:most])


def _rank(client: Mapping[str, Any]) -> int:
    rank = _RANK.get(client["phase"], _AT_WORK)
    return min(rank, _REFUSED) if client.get("refused_in_a_row") else rank
