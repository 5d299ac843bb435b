"""A run as a page shows it: what `flavor status --json` prints, with times in place of durations.

Nothing in a document changes only because time passes, so that nothing has to be sent while nothing happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flavor.view.described import described_as
from flavor.view.newest import Newest
from flavor.view.snapshot import ClientSnapshot, Snapshot

Document = dict[str, Any]
"""Plain values that JSON can hold. Never changed once it is made: readers may keep it."""
_DURATIONS = ("age_s", "open_s", "deadline_s", "waits_s")
_DURATIONS_OF_CLIENTS = ("seen_s", "doing_s")
_SEEN_MS, _SEEN_MS_A_CLIENT = 5000, 20
_WAITS_MOST = 200
"""Characters of a run's sentence in the list of runs."""


def document_of(snapshot: Snapshot, newest: Newest, *, lacking: str = "", left_in: str = "") -> Document:
    """Return the document of a run. `flavor.view.board.Board.document` lists its keys."""
    found = described_as(snapshot, newest, lacking=lacking, left_in=left_in)
    view, round_, wait = snapshot.run, snapshot.round, snapshot.waits_for
    for name in _DURATIONS:
        del found[name]
    found |= {
        "created_ms": view.created_ms or None,
        "ended_ms": view.ended_ms,
        "opened_ms": round_.opened_ms if round_ else None,
        "deadline_ms": round_.deadline_ms if round_ else None,
        "closed_ms": round_.closed_ms if round_ else None,
        "attempt": round_.attempt if round_ else None,
        "since_ms": wait.since_ms if wait else None,
        "ends_ms": _ends_ms(snapshot, newest),
        "spark": list(newest.spark),
    }
    for name, client in snapshot.clients.items():
        found["clients"][name] |= _of_client(client)
    for row in found["clients"].values():
        for name in _DURATIONS_OF_CLIENTS:
            del row[name]
    return found


def _of_client(client: ClientSnapshot) -> Mapping[str, Any]:
    progress = client.progress
    return {
        "seen_ms": client.seen_ms,
        "doing_ms": progress.since_ms,
        "progress": progress.words(client.phase.value),
        "refused_in_a_row": client.refused_in_a_row,
        "version": None,
        "sent_bytes": None,
        "received_bytes": None,
        "median_s": None,
        "last_s": None,
        "phases": [],
    }


def _ends_ms(snapshot: Snapshot, newest: Newest) -> int | None:
    """When the run ends if its rounds go on at their pace; None where that is not known."""
    view = snapshot.run
    if view.state.ended or newest.pace_s is None or newest.last is None:
        return None
    left = view.rounds - int(newest.last["round"])
    return newest.closed_ms + int(1000 * newest.pace_s * left)


def steady(document: Document, before: Document | None) -> Document:
    """Let clients that are there keep the `seen_ms` that they had, unless it is old: a heartbeat is no news.

    The more clients there are, the older it may be. Changes `document`, and returns it.
    """
    if before is not None:
        clients, earlier = document["clients"], before["clients"]
        most_ms = max(_SEEN_MS, len(clients) * _SEEN_MS_A_CLIENT)
        for name, row in clients.items():
            old = earlier.get(name)
            is_there = row["alive"] and old is not None and old["alive"]
            if is_there and (old["seen_ms"] or 0) <= (row["seen_ms"] or 0) < (old["seen_ms"] or 0) + most_ms:
                row["seen_ms"] = old["seen_ms"]
    return document


def row_of(document: Mapping[str, Any]) -> Document:
    """Return the row of a run in the list of runs. `flavor.view.board.Board.runs` lists its keys."""
    clients, best, last = document["clients"], document["best"], document["last_round"]
    metric = document["metric"]
    ended = document["ended_ms"] is not None
    sentence = document["reason"] if ended or not document["waits_for"] else document["waits_for"]
    return {
        "run": document["run"],
        "state": document["state"],
        "round": document["round"],
        "rounds": document["rounds"],
        "round_state": document["round_state"],
        "sentence": str(sentence)[:_WAITS_MOST],
        "held": document["held"],
        "since_ms": document["since_ms"],
        "absent": [str(each)[:_WAITS_MOST] for each in document["absent"]],
        "clients": len(clients),
        "alive": sum(client["alive"] for client in clients.values()),
        "refused": sum(client["phase"] == "refused" for client in clients.values()),
        "quarantined": sum(client["phase"] == "quarantined" for client in clients.values()),
        "metric": metric,
        "value": last["metrics"].get(metric) if last and metric else None,
        "best": best,
        "spark": document["spark"],
        "created_ms": document["created_ms"],
        "ended_ms": document["ended_ms"],
        "ends_ms": document["ends_ms"],
    }


def damaged_row(run: str, reason: str) -> Document:
    """Return the row of a run whose record in Redis cannot be read."""
    row: Document = dict.fromkeys(("round", "rounds", "round_state", "since_ms", "metric", "value", "best"))
    row |= dict.fromkeys(("created_ms", "ended_ms", "ends_ms"))
    row |= {"run": run, "state": "damaged", "sentence": reason, "held": True, "absent": [], "spark": []}
    return row | dict.fromkeys(("clients", "alive", "refused", "quarantined"), 0)
