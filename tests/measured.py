"""Documents of runs that are made up, and a board that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flavor.errors import RunNotFound
from flavor.results.best import BestRound

NOW_MS = 1_700_000_000_000


def client(**fields: Any) -> dict[str, Any]:
    """A client that trains."""
    return {
        "state": "ready",
        "phase": "training",
        "alive": True,
        "this_round": "pending",
        "seen_ms": NOW_MS - 2_000,
        "samples": None,
        "doing": "training",
        "reported": None,
        "refused_in_a_row": 0,
        "sent_bytes": 0,
        "received_bytes": 0,
        "moved_since_ms": None,
        "median_s": None,
        "last_s": None,
        "phases": [],
        **fields,
    }


def best_value(metric: str, value: float, *, fewer: int = 0) -> dict[str, Any]:
    """The best value of a metric, of round 1; `fewer` other rounds are not compared."""
    found = BestRound(1, value, 2, 2, 2, fewer, 2 if fewer else 0, 1)
    return {"metric": metric, **asdict(found), "rounds": 1 + fewer}


def document(**fields: Any) -> dict[str, Any]:
    """A run with the clients a and b in round 2, which has been open for a minute."""
    opened_ms = fields.get("opened_ms", NOW_MS - 60_000)
    return {
        "run": "mammo",
        "run_id": "0" * 32,
        "protocol": 2,
        "state": "running",
        "round": 2,
        "rounds": 50,
        "round_state": "open",
        "created_ms": NOW_MS - 3_600_000,
        "opened_ms": opened_ms,
        "worked_from_ms": None if opened_ms is None else opened_ms + fields.get("paused_ms", 0),
        "deadline_ms": NOW_MS + 540_000,
        "since_ms": NOW_MS - 30_000,
        "expected": 2,
        "needed": 2,
        "in": 0,
        "heartbeat_timeout_s": 15.0,
        "round_timeout_s": 600.0,
        "held": False,
        "missing_clients": 0,
        "served": True,
        "no_aggregator": "",
        "last_round": {"round": 1, "metrics": {"val_auc": 0.94, "loss": 0.3}},
        "metric": "val_auc",
        "best": best_value("val_auc", 0.94),
        "clients": {"a": client(), "b": client()},
        **fields,
    }


def entry(number: int, event: str, *, after_s: float = 0.0, **fields: Any) -> dict[str, Any]:
    """An event of the log, `after_s` seconds after `NOW_MS`."""
    time_ms = NOW_MS + int(after_s * 1000)
    return {"id": f"{time_ms}-{number}", "time_ms": time_ms, "event": event, "client": "", "reason": "", **fields}


class MadeUp:
    """A board of these documents, by the names of their runs."""

    def __init__(self, *documents: dict[str, Any], events: Mapping[str, list[dict[str, Any]]] | None = None) -> None:
        self.documents = {each["run"]: each for each in documents}
        self.logs = dict(events or {})
        self.said, self.later_ms = "", 0

    def problem(self) -> str:
        return self.said

    def runs(self) -> Sequence[Mapping[str, Any]]:
        fields = ("run", "state", "created_ms")
        return [{name: each[name] for name in fields} for each in self.documents.values()]

    def document(self, run: str) -> Mapping[str, Any]:
        if run not in self.documents:
            raise RunNotFound(f"there is no run {run!r}")
        return self.documents[run]

    def events(self, run: str, after_id: str = "", most: int = 500) -> Sequence[Mapping[str, Any]]:
        found = self.logs.get(run, [])
        return [each for each in found if not after_id or each["id"] > after_id][-most:]

    def entries(self, run: str, *, before: str = "", most: int = 500) -> Sequence[Mapping[str, Any]]:
        return [each for each in self.logs.get(run, []) if each["id"] < before][-most:]

    def removed(self) -> dict[str, int]:
        return {"removed": NOW_MS - 60_000, "mammo": NOW_MS - 90_000}

    def now_ms(self) -> int:
        return NOW_MS + self.later_ms

    def queue(self) -> Mapping[str, Any]:
        return {
            "queues": [{"queue": "flavor", "length": 3, "started": 1, "workers": {"busy": 1, "idle": 2}}],
            "dropped": [],
        }
