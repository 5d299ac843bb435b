"""A run as a page shows it: what `flavor status --json` prints, with times in place of durations.

Nothing in a document changes only because time passes, so that nothing has to be sent while nothing happens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from flavor.records.states import RoundState
from flavor.view.described import described_run, row_of_client
from flavor.view.newest import Newest
from flavor.view.round_times import RoundTimes
from flavor.view.snapshot import ClientSnapshot, Snapshot

Document = dict[str, Any]
"""Plain values that JSON can hold. Never changed once it is made: readers may keep it."""
_WAITS_MOST = 200
_OVERDUE, _LATE_S = 2.0, 5.0
"""A round is overdue once it takes twice as long as usual, and 5 seconds longer."""
"""Characters of a run's sentence in the list of runs."""


class RowMemory:
    """Makes the rows of clients, and makes them again only of those that have changed."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[Any, ...], Document]] = {}

    def row(self, name: str, client: ClientSnapshot, newest: Newest, times: RoundTimes | None) -> Document:
        """Return the row of a client."""
        median_s, last_s = times.of(name) if times is not None else (None, None)
        made_of = (
            client,
            newest.samples.get(name),
            newest.sites.get(name),
            newest.rounds.get(name),
            newest.phases.get(name),
            median_s,
            last_s,
        )
        made = self._made.get(name)
        if made is not None and made[0] == made_of:
            return made[1]
        progress = client.progress
        row = {
            **row_of_client(client, name, newest),
            "seen_ms": client.seen_ms,
            "doing_ms": progress.since_ms,
            "reported_ms": progress.reported_ms,
            "progress": progress.words(client.phase.value),
            "median_s": median_s,
            "last_s": last_s,
            "phases": [list(each) for each in newest.phases.get(name, ())],
        }
        self._made[name] = made_of, row
        return row

    def forget(self, but: Collection[str]) -> None:
        """Forget all clients but these."""
        for name in self._made.keys() - but:
            del self._made[name]


def document_of(
    snapshot: Snapshot,
    newest: Newest,
    *,
    lacking: str = "",
    left_in: str = "",
    folder: str = "",
    times: RoundTimes | None = None,
    memory: RowMemory | None = None,
) -> Document:
    """Return the document of a run. `flavor.view.board.Board.document` lists its keys.

    With the `memory` of an earlier document of the same run, rows that have not changed are the same objects.
    """
    memory = memory or RowMemory()
    view, round_, wait = snapshot.run, snapshot.round, snapshot.waits_for
    rows = {name: memory.row(name, client, newest, times) for name, client in snapshot.clients.items()}
    memory.forget(rows.keys())
    return {
        **described_run(snapshot, newest, lacking=lacking, left_in=left_in),
        "folder": folder,
        "created_ms": view.created_ms or None,
        "ended_ms": view.ended_ms,
        "recovered_ms": view.recovered_ms or None,
        "opened_ms": round_.opened_ms if round_ else None,
        "paused_ms": round_.paused_ms if round_ else None,
        "worked_from_ms": round_.worked_from_ms if round_ else None,
        "deadline_ms": round_.deadline_ms if round_ else None,
        "closed_ms": round_.closed_ms if round_ else None,
        "attempt": round_.attempt if round_ else None,
        "since_ms": wait.since_ms if wait else None,
        **_estimate(snapshot, newest),
        "round_last_s": newest.last_s,
        "round_median_s": newest.median_s,
        "spark": list(newest.spark),
        "clients": rows,
    }


def _estimate(snapshot: Snapshot, newest: Newest) -> Document:
    """Return `ends_ms`, when the run ends if its rounds go on at their pace from the opening of the present one on.

    And `later_s`, how long the rounds take that have not been opened, and `holds_ms`, from when on the present round is
    overdue, so that nothing is known. None where that is not known, and while the run
    cannot go on by itself.
    """
    view, round_, wait, pace_s = snapshot.run, snapshot.round, snapshot.waits_for, newest.pace_s
    stands = (wait is not None and wait.is_held) or not snapshot.is_served or bool(snapshot.absence or snapshot.refusal)
    if view.state.ended or stands or pace_s is None or round_ is None:
        return {"ends_ms": None, "later_s": None, "holds_ms": None}
    later, is_closed = max(0, view.rounds - round_.round), round_.state is RoundState.CLOSED
    begun_ms = (round_.closed_ms or round_.opened_ms) if is_closed else round_.worked_from_ms
    ends_ms = begun_ms + int(1000 * pace_s * (later if is_closed else later + 1))
    holds_ms = begun_ms + int(1000 * max(_OVERDUE * pace_s, pace_s + _LATE_S))
    return {"ends_ms": ends_ms, "later_s": round(pace_s * later, 3), "holds_ms": holds_ms}


def left_s_of(document: Mapping[str, Any], now_ms: int) -> float | None:
    """Return for how long a run goes on, by the estimate in its document; None where that is not known.

    A round that takes longer than its like leaves the time of the rounds after it. Of the last one nothing is known
    then; nor of any, once the round is overdue: it may hang.
    """
    if document["ends_ms"] is None or now_ms > document["holds_ms"]:
        return None
    return max((document["ends_ms"] - now_ms) / 1000, document["later_s"]) or None


def row_of(document: Mapping[str, Any]) -> Document:
    """Return the row of a run in the list of runs. `flavor.view.board.Board.runs` lists its keys."""
    clients, best, last = document["clients"], document["best"], document["last_round"]
    metric = document["metric"]
    ended = document["ended_ms"] is not None
    sentence = document["reason"] if ended or not document["waits_for"] else document["waits_for"]
    return {
        "run": document["run"],
        "folder": document["folder"],
        "state": document["state"],
        "round": document["round"],
        "rounds": document["rounds"],
        "round_state": document["round_state"],
        "sentence": str(sentence)[:_WAITS_MOST],
        "held": document["held"],
        "since_ms": document["since_ms"],
        "absent": [str(each)[:_WAITS_MOST] for each in document["absent"]],
        "clients": len(clients),
        "alive": _alive(clients),
        "refused": sum(client["phase"] == "refused" for client in clients.values()),
        "quarantined": sum(client["phase"] == "quarantined" for client in clients.values()),
        "metric": metric,
        "value": last["metrics"].get(metric) if last and metric else None,
        "value_of": _sites_of(last, metric) if last and metric in last["metrics"] else None,
        "best": best,
        "spark": document["spark"],
        "created_ms": document["created_ms"],
        "ended_ms": document["ended_ms"],
        "took_s": document["took_s"],
        "ends_ms": document["ends_ms"],
    }


def _sites_of(last: Mapping[str, Any], metric: str) -> list[int]:
    """Return how many sites report a metric in the newest closed round, and how many contributors that has."""
    return [last.get("sites", {}).get(metric, last["contributors"]), last["contributors"]]


def _alive(clients: Mapping[str, Document]) -> int | None:
    """Return how many clients are alive; None where that is not known of each."""
    alive = [client["alive"] for client in clients.values()]
    return None if None in alive else sum(alive)


def lost_row(row: Document, reason: str) -> Document:
    """Return the row of a run that Redis has lost, from its last one."""
    unknown = dict.fromkeys(("round_state", "since_ms", "ends_ms", "alive"))
    return {**row, **unknown, "state": "lost", "sentence": reason, "held": True, "absent": []}


def damaged_row(run: str, reason: str) -> Document:
    """Return the row of a run whose record in Redis cannot be read."""
    row: Document = dict.fromkeys(("round", "rounds", "round_state", "since_ms", "metric", "value", "value_of", "best"))
    row |= dict.fromkeys(("created_ms", "ended_ms", "took_s", "ends_ms"))
    row |= {"run": run, "folder": "", "state": "damaged", "sentence": reason, "held": True, "absent": [], "spark": []}
    return row | dict.fromkeys(("clients", "alive", "refused", "quarantined"), 0)
