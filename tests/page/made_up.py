"""Made-up runs of every kind, for tests of the page that a real run cannot make cheaply.

`python -m tests.page.made_up` serves them, for people who work on the page.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from flavor.records.pulse import Doing
from flavor.records.states import RoundState
from flavor.results.best import BestRound
from flavor.view.curves import Curves, merged_curves, metric_names
from flavor.view.history import RoundRow, Source
from flavor.view.timeline import ClientRound, Outcome, PhaseSpan, RoundTimeline
from tests.standin import Standin

HOSTILE = "<img src=x onerror=alert(1)>"
"""The name of a site that tries to become markup."""
LONG = ("the update is refused: tensor 'fc.weight' <b>has</b> NaN " * 80)[:4096]
"""A reason of 4 KiB."""
SCRIPT = "</script><script>window.hit=1</script>"
MINUTE_MS = 60_000


def now_ms() -> int:
    return int(time.time() * 1000)


def rows(number: int, *, sites: int, seconds: float, end_ms: int, seed: int = 0) -> list[RoundRow]:
    """Closed rounds, of which some are slow, some lack a site and some were tried again."""
    rng = random.Random(seed)
    found: list[RoundRow] = []
    opened = end_ms - int(number * seconds * 1000)
    for round_ in range(1, number + 1):
        lasts = seconds * rng.uniform(0.75, 1.2) * (rng.uniform(1.5, 2.6) if rng.random() < 0.06 else 1)
        missing = rng.random() < 0.12 and sites > 1
        auc = 0.96 - 0.3 * math.exp(-round_ / max(3, number / 5)) + rng.gauss(0, 0.004)
        loss = 0.08 + 1.9 * math.exp(-round_ / max(3, number / 6)) + abs(rng.gauss(0, 0.01))
        wide = 0.02 + 0.05 * math.exp(-round_ / 10)
        found.append(
            RoundRow(
                round=round_,
                state=RoundState.CLOSED,
                source=Source.SUMMARY,
                opened_ms=opened,
                aggregating_ms=opened + int(lasts * 960),
                closed_ms=opened + int(lasts * 1000),
                expected=sites,
                contributors=sites - missing,
                refused=int(missing),
                examples=1204 * sites,
                bytes=41_000_000 * sites,
                attempts=2 if rng.random() < 0.04 else 1,
                openings=1,
                metrics={
                    "val_auc": auc - 0.008,
                    "val_auc (weighted)": auc,
                    "loss": loss * 1.03,
                    "loss (weighted)": loss,
                },
                spread={"val_auc": (auc - wide, auc + wide / 2), "loss": (loss * 0.8, loss * 1.3)},
            )
        )
        opened += int(lasts * 1000) + 400
    return found


class Past:
    """What `History` has, of made-up rows."""

    def __init__(self, closed: Sequence[RoundRow], sites: Sequence[str], current: RoundRow | None = None) -> None:
        self.closed, self.sites, self.current = list(closed), list(sites), current
        self.odd: dict[tuple[int, str], dict[str, Any]] = {}
        """What else is so of a site in a round: fields of its `ClientRound`."""

    def strip(self, after: int = 0) -> list[RoundRow]:
        found = [row for row in self.closed if row.round > after]
        return [*found, self.current] if self.current is not None else found

    def metric_names(self) -> list[str]:
        return metric_names(self.closed)

    def curves(self, metric: str, sites: Sequence[str] | None = None, most_sites: int = 50) -> Curves:
        found = merged_curves(metric, self.closed)
        names = self.sites[:most_sites] if sites is None else [site for site in sites if site in self.sites]
        values = {}
        for name in names:
            rng = random.Random(name)
            shift = rng.uniform(-1, 0.5)
            values[name] = tuple(
                middle + shift * (middle - low) + rng.gauss(0, 0.004)
                for middle, low in zip(found.weighted, found.lowest, strict=True)
                if middle is not None
                for low in [low if low is not None else middle]
            )
        columns = [*zip(*values.values(), strict=True)] if len(values) == len(self.sites) else []
        ends = {"lowest": tuple(map(min, columns)), "highest": tuple(map(max, columns))} if columns else {}
        return Curves(
            **{
                **{
                    name: getattr(found, name)
                    for name in (
                        "metric",
                        "rounds",
                        "plain",
                        "weighted",
                        "lowest",
                        "highest",
                        "reporting",
                        "contributors",
                        "best",
                    )
                },
                **ends,
                "sites": values,
                "left_out": len(self.sites) - len(names) if sites is None else 0,
            }
        )

    def timeline(self, round_: int) -> RoundTimeline:
        row = next(row for row in self.strip() if row.round == round_)
        rng = random.Random(round_)
        is_open = row.state is not RoundState.CLOSED
        until = now_ms() if is_open else row.closed_ms
        clients = []
        for at, name in enumerate(self.sites):
            whole = until - row.opened_ms
            lasts = whole * rng.uniform(0.6, 0.93)
            starts = [row.opened_ms + int(lasts * share) for share in (0.0, 0.1, 0.78, 0.94)]
            is_refused = bool(row.refused) and at == len(self.sites) - 1
            still = is_open and at % 4 == 2
            kinds = (Doing.DOWNLOADING, Doing.TRAINING, Doing.UPLOADING, Doing.UPLOADED)
            ends = [*starts[1:], row.opened_ms + int(lasts)]
            spans = [PhaseSpan(kind, start, end) for kind, start, end in zip(kinds, starts, ends, strict=True)]
            if still:
                spans = [spans[0], PhaseSpan(Doing.TRAINING, starts[1], None)]
            outcome = Outcome.REFUSED if is_refused else Outcome.NONE if still else Outcome.ACCEPTED
            clients.append(
                ClientRound(
                    client=name,
                    outcome=outcome,
                    task_round=round_,
                    reason="NaN in fc.weight" if is_refused else "",
                    in_model=outcome is Outcome.ACCEPTED,
                    examples=None if still or is_refused else 1204,
                    bytes=None if still or is_refused else 41_000_000,
                    phases=tuple(spans),
                    metrics={} if still or is_refused else {"balanced_accuracy": 0.9412},
                )
            )
        third = (until - row.opened_ms) // 3
        pauses = ((row.opened_ms + third, row.opened_ms + third + row.paused_ms),) if row.paused_ms else ()
        if pauses:
            clients[0] = replace(clients[0], refused_before="NaN in fc.bias")
        clients = [replace(each, **self.odd.get((round_, each.client), {})) for each in clients]
        return RoundTimeline(row, clients=tuple(clients), pauses=pauses)


def client(phase: str, **fields: Any) -> dict[str, Any]:
    """A client as a run's document has it."""
    known: dict[str, Any] = {
        "state": "ready",
        "phase": phase,
        "alive": phase not in ("gone", "left", "stopped"),
        "host": "gpu-07.radiology.example",
        "this_round": {"done": "accepted", "refused": "refused", "uploaded": "submitted"}.get(phase, "pending"),
        "awaited": False,
        "seen_ms": now_ms() - 1200,
        "doing_ms": now_ms() - 14 * MINUTE_MS,
        "samples": 1204,
        "metrics": {"val_auc": 0.941, "loss": 0.21},
        "metrics_round": 11,
        "transfer": None,
        "doing": "training" if phase == "training" else None,
        "reported": None,
        "load": {"cpu_percent": 61.2, "used_bytes": 41_000_000_000, "total_bytes": 128_000_000_000, "gpus": None},
        "failure": None,
        "report": None,
        "update_bytes": 41_000_000,
        "reason": "",
        "task_round": None,
        "staleness": "",
        "warning": "",
        "version": "flavor 0.1.0, Python 3.11.2, Linux x86_64",
        "sent_bytes": 451_000_000,
        "received_bytes": 492_000_000,
        "moved_since_ms": now_ms() - 129 * MINUTE_MS,
        "median_s": 530.0,
        "last_s": 520.0,
        "refused_in_a_row": 0,
    }
    return {**known, **fields}


def document(run: str, clients: Mapping[str, Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    opened_ms = fields.get("opened_ms", now_ms() - 14 * MINUTE_MS)
    known: dict[str, Any] = {
        "run": run,
        "run_id": f"id-{run}",
        "state": "running",
        "round": 12,
        "rounds": 50,
        "round_state": "open",
        "reason": "",
        "now_ms": now_ms(),
        "created_ms": now_ms() - 130 * MINUTE_MS,
        "ended_ms": None,
        "took_s": None,
        "opened_ms": opened_ms,
        "worked_from_ms": None if opened_ms is None else opened_ms + fields.get("paused_ms", 0),
        "deadline_ms": now_ms() + 18 * MINUTE_MS,
        "ends_ms": now_ms() + 24_000_000,
        "left_s": 24_000.0,
        "expected": len(clients),
        "needed": max(1, len(clients) - 1),
        "closes_early": False,
        "in": sum(each["phase"] == "done" for each in clients.values()),
        "heartbeat_timeout_s": 30.0,
        "round_timeout_s": 1920.0,
        "waits_for": "",
        "since_ms": now_ms() - 6 * MINUTE_MS,
        "held": False,
        "missing_clients": 0,
        "absent": [],
        "served": True,
        "no_aggregator": "",
        "last_round": {"round": 11, "metrics": {"val_auc": 0.9412, "loss": 0.2113}},
        "metric": "val_auc",
        "best": {"metric": "val_auc", **asdict(BestRound(9, 0.9446, 4, 4, 4, 0, 0, 11)), "rounds": 11},
        "global_model": "mammo/rounds/11/global.ckpt",
        "clients": dict(clients),
    }
    return {**known, **fields}


def mammo() -> dict[str, Any]:
    """The run of the sketch: two sites are in, one trains for longer than usual, one was refused."""
    clients = {
        "site-1": client("done", metrics_round=12, doing_ms=now_ms() - 5 * MINUTE_MS),
        "site-2": client("done", metrics_round=12, samples=982, last_s=505.0, doing_ms=now_ms() - 5 * MINUTE_MS),
        "site-3": client(
            "training",
            samples=377,
            reported={"done": 310, "total": 508, "message": "epoch 3", "metrics": {"loss": 0.31}, "round": 12},
            metrics={"val_auc": 0.902, "loss": 0.3},
            median_s=550.0,
            sent_bytes=410_000_000,
        ),
        "site-4": client(
            "refused",
            reason="NaN in fc.weight",
            refused_in_a_row=2,
            samples=218,
            metrics={"val_auc": 0.93},
            doing_ms=now_ms() - 8 * MINUTE_MS,
            report="RuntimeWarning: overflow encountered in multiply",
        ),
    }
    return document(
        "mammo", clients, waits_for="2 of 4 updates accepted, waiting for site-3; without site-4: NaN in fc.weight"
    )


def hostile() -> dict[str, Any]:
    """A run whose sites choose names and reasons that try to become markup."""
    clients = {
        HOSTILE: client("refused", reason=LONG, host=HOSTILE, version=SCRIPT, refused_in_a_row=3),
        "__proto__": client(
            "training", reported={"done": 3, "total": None, "message": SCRIPT, "metrics": {HOSTILE: 1.0}}
        ),
        "constructor": client("done", metrics={HOSTILE: 0.5}),
        "s" * 64: client("gone", seen_ms=now_ms() - 3_600_000, reason="its heartbeat stopped"),
    }
    return document(
        "hostile", clients, waits_for=f"waiting for {HOSTILE}: {SCRIPT}", held=True, absent=[f"{SCRIPT} {HOSTILE}"]
    )


def wide(clients: int = 2000) -> dict[str, Any]:
    """A run of 2,000 clients in round 1,001."""
    rng = random.Random(5)
    kinds = ("done",) * 60 + ("training",) * 34 + ("uploaded",) * 3 + ("refused", "gone", "stopped")
    found = {}
    for number in range(1, clients + 1):
        phase = rng.choice(kinds)
        found[f"clinic-{number:04}"] = client(
            phase,
            samples=rng.randrange(50, 4000),
            median_s=rng.uniform(300, 700),
            last_s=rng.uniform(300, 700),
            reason={"refused": "NaN in fc.weight", "gone": "its heartbeat stopped"}.get(phase, ""),
            seen_ms=now_ms() - (rng.randrange(60_000, 900_000) if phase == "gone" else rng.randrange(0, 9000)),
            metrics={"val_auc": rng.uniform(0.85, 0.96)},
            reported={"done": rng.randrange(0, 500), "total": 508, "message": "", "metrics": {}}
            if phase == "training"
            else None,
        )
    trains, done = (sum(each["phase"] == phase for each in found.values()) for phase in ("training", "done"))
    return document(
        "wide",
        found,
        round=1001,
        rounds=2000,
        needed=1500,
        waits_for=f"{done} of 2000 updates accepted, waiting for clinic-0002, clinic-0006 and {trains - 2} more",
        last_round={"round": 1000, "metrics": {"val_auc": 0.9602}},
    )


def young() -> dict[str, Any]:
    return document(
        "young",
        {},
        state="waiting",
        round=0,
        round_state=None,
        opened_ms=None,
        deadline_ms=None,
        ends_ms=None,
        left_s=None,
        needed=0,
        last_round=None,
        metric=None,
        best=None,
        waits_for="0 of at least 3 clients are ready; waiting for the sites to join",
        absent=["no aggregator listens on queue 'flavor': start one with `flavor-agg`"],
        created_ms=now_ms() - 90_000,
        since_ms=now_ms() - 88_000,
    )


def ended(
    run: str, state: str, reason: str, *, rounds: int = 40, at: int = 40, ago_ms: int = 3_600_000
) -> dict[str, Any]:
    sites = {f"site-{n}": client("-", alive=False, this_round="not expected", reported=None) for n in (1, 2, 3)}
    if state == "failed":
        sites["site-2"] = client(
            "failed",
            alive=False,
            reason='its trainer failed: exit code 1: "CUDA out of memory"',
            failure="CalledProcessError",
        )
    return document(
        run,
        sites,
        state=state,
        reason=reason,
        round=at,
        rounds=rounds,
        round_state="closed" if state == "finished" else "failed",
        created_ms=now_ms() - ago_ms - 40 * MINUTE_MS,
        ended_ms=now_ms() - ago_ms,
        took_s=40 * 60.0,
        waits_for="",
        since_ms=None,
        ends_ms=None,
        left_s=None,
        last_round={"round": at, "metrics": {"val_auc": 0.95}},
    )


def best(curve: Curves | None) -> dict[str, Any] | None:
    if curve is None or curve.best is None:
        return None
    return {"metric": "val_auc", **asdict(curve.best), "rounds": len(curve.rounds)}


def merged(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(target.get(name), dict):
            merged(target[name], value)
        else:
            target[name] = value


class MadeUp(Standin):
    """A `flavor.page.source.Source` of made-up runs."""

    streams: Any = None
    """Those of the page that shows these runs, if a test has to know of them."""
    looks = 0
    """Looks at the signed records."""

    def __init__(self, documents: Sequence[dict[str, Any]]) -> None:
        super().__init__(**{each["run"]: each for each in documents})
        self.contributed: dict[str, dict[str, Any]] = {}
        for each in documents:
            self.add_past(each)
            self.add_log(each)

    def add_past(self, document: Mapping[str, Any]) -> None:
        is_closed = document["round_state"] == "closed"
        number = document["round"] if is_closed else max(0, document["round"] - 1)
        seconds = 530.0 if number < 100 else 30.0
        end_ms = document["ended_ms"] or document["opened_ms"] or now_ms()
        closed = rows(
            number, sites=len(document["clients"]), seconds=seconds, end_ms=end_ms - 1000, seed=len(document["run"])
        )
        current = None
        if document["round"] and not is_closed:
            state = RoundState(document["round_state"])
            current = RoundRow(
                document["round"],
                state,
                Source.ROUND,
                document["opened_ms"],
                expected=document["expected"],
                contributors=document["in"],
                attempts=1,
            )
        self.histories[document["run"]] = Past(closed, list(document["clients"]), current)  # type: ignore[assignment]

    def add_log(self, document: Mapping[str, Any]) -> None:
        run, log = document["run"], self.log[document["run"]]

        def entry(time_ms: int, event: str, line: str, **fields: Any) -> None:
            log.append(
                {
                    "id": f"{time_ms}-{len(log)}",
                    "time_ms": time_ms,
                    "event": event,
                    "line": line,
                    "reason": line,
                    "round": None,
                    "client": "",
                    **fields,
                }
            )

        entry(document["created_ms"], "run.created", f"run '{run}' is open for clients (id id-{run})")
        sites = list(document["clients"])
        for row in self.histories[run].strip()[-30:]:
            entry(
                row.opened_ms,
                "round.opened",
                f"round {row.round} of {document['rounds']}: {len(sites)} clients ready, all expected",
                round=row.round,
            )
            for at, site in enumerate(sites[:4]):
                refused = at == 3 and row.round % 4 == 0
                word = "update.refused" if refused else "update.accepted"
                words = document["clients"][site]["reason"] or "tensor fc.weight has NaN (2nd time; 3 quarantine it)"
                entry(
                    row.opened_ms + 1000 * at,
                    word,
                    f"round {row.round}: {site}: {words if refused else '41.0 MB, 1,204 examples'}",
                    round=row.round,
                    client=site,
                )
            if row.closed_ms:
                entry(
                    row.closed_ms,
                    "round.closed",
                    f"round {row.round}: {row.contributors} of {row.expected} updates, val_auc 0.94",
                    round=row.round,
                )
        if document["waits_for"]:
            entry(
                now_ms() - 6 * MINUTE_MS,
                "round.waiting",
                f"round {document['round']}: {document['waits_for']}",
                round=document["round"],
            )

    def patch(self, run: str, patch: Mapping[str, Any]) -> None:
        """Change a run by a merge patch (RFC 7396), however deep."""
        with self._changed:
            self._version += 1
            merged(self.documents[run], patch)
            row = next(row for row in self.runs() if row["run"] == run)
            for key, found in ((run, patch), ("", {run: row})):
                self.patches_of[key] = [*self.patches_of.get(key, []), (self._version, found)]
            self._changed.notify_all()

    def document(self, run: str) -> Mapping[str, Any]:
        return {**super().document(run), "now_ms": now_ms()}

    def close_round(self, run: str) -> None:
        """Close the open round of a run, and open the next one."""
        document, past = self.documents[run], self.histories[run]
        number = document["round"]
        closed = rows(number, sites=len(past.sites), seconds=530.0, end_ms=now_ms(), seed=number)
        past.closed = [*past.closed, closed[-1]]
        opened_ms = closed[-1].closed_ms
        past.current = replace(past.current, round=number + 1, opened_ms=opened_ms)
        times = {"opened_ms": opened_ms, "worked_from_ms": opened_ms}
        self.patch(run, {"round": number + 1, **times, "last_round": {"round": number}})

    def entry(self, run: str, event: str, line: str, **fields: Any) -> None:
        """Add an entry to the log of a run."""
        with self._changed:
            self._version += 1
            at_ms = now_ms()
            entry = {
                "id": f"{at_ms}-{len(self.log[run])}",
                "time_ms": at_ms,
                "event": event,
                "round": None,
                "client": "",
            }
            self.log[run].append({**entry, "reason": line, "line": line, **fields})
            self._changed.notify_all()

    def runs(self) -> Sequence[Mapping[str, Any]]:
        found = []
        for document in self.documents.values():
            past = self.histories[document["run"]]
            curve = past.curves("val_auc", ()) if past.strip() else None
            clients = document["clients"].values()
            found.append(
                {
                    "run": document["run"],
                    "state": document["state"],
                    "round": document["round"],
                    "rounds": document["rounds"],
                    "round_state": document["round_state"],
                    "sentence": document["waits_for"] or document["reason"],
                    "held": document["held"],
                    "since_ms": document["since_ms"],
                    "absent": document["absent"],
                    "clients": len(clients),
                    "alive": sum(each["alive"] for each in clients),
                    "refused": sum(each["phase"] == "refused" for each in clients),
                    "quarantined": sum(each["phase"] == "quarantined" for each in clients),
                    "metric": document["metric"] if curve and curve.rounds else None,
                    "value": curve.weighted[-1] if curve and curve.rounds else None,
                    "best": best(curve),
                    "spark": list(curve.weighted[-40:]) if curve else [],
                    "created_ms": document["created_ms"],
                    "ended_ms": document["ended_ms"],
                    "took_s": document["took_s"],
                }
            )
        return found

    def client(self, run: str, client: str) -> Mapping[str, Any]:
        past, found = self.histories[run], []
        for row in past.strip()[-8:][::-1]:
            for each in past.timeline(row.round).clients:
                if each.client == client:
                    phases = [[span.doing, span.start_ms, span.end_ms] for span in each.phases]
                    found.append(
                        {
                            "round": row.round,
                            "outcome": each.outcome,
                            "task_round": each.task_round,
                            "staleness": each.staleness,
                            "reason": each.reason,
                            "examples": each.examples,
                            "phases": phases,
                            "metrics": dict(each.metrics),
                        }
                    )
        lines = [f"epoch {n}: loss {1 / n:.3f}" for n in range(1, 60)] if client == "site-3" else []
        return {
            "client": client,
            "row": self.documents[run]["clients"][client],
            "rounds": found,
            "events": self.entries(run, client=client),
            "log": lines,
        }

    def queue(self) -> Mapping[str, Any]:
        worker = {
            "pid": 7,
            "queues": ["flavor"],
            "resting": "",
            "born_ms": now_ms(),
            "beat_ms": now_ms(),
            "done": 51,
            "failed": 0,
        }
        return {
            "queues": [
                {
                    "queue": "flavor",
                    "length": 1,
                    "started": 1,
                    "failed": 0,
                    "workers": {"busy": 1, "idle": 1},
                    "runs": list(self.documents),
                }
            ],
            "workers": [
                {
                    **worker,
                    "name": "0123456789abcdef" * 2,
                    "host": "fl-01",
                    "state": "busy",
                    "job": "inspect site-4's update of round 12 of mammo",
                },
                {**worker, "name": "agg-2", "host": "fl-02", "state": "idle", "job": ""},
            ],
            "dropped": [],
        }

    def settings(self, run: str) -> Mapping[str, Any]:
        values = {
            "rounds": (self.documents[run]["rounds"], None),
            "min_clients": (3, None),
            "quorum": (3, None),
            "fraction": (1.0, 1.0),
            "aggregator": ("fedavg", "fedavg"),
            "server_step": ("none", "none"),
            "round_timeout_s": (1920.0, 3600.0),
            "heartbeat_timeout_s": (30.0, 30.0),
            "quarantine_after": (3, 3),
            "on_quorum_lost": ("wait", "fail"),
            "store": ("s3://models/fl", None),
            "seed": (len(run), 0),
            "keep_rounds": (3, 3),
            "compress": ("none", "none"),
        }
        rows_ = [
            {"name": name, "value": value, "default": default, "help": f"What {name} is for.", "group": "Rounds"}
            for name, (value, default) in values.items()
        ]
        return {"settings": rows_, "changed": ["round_timeout_s"], "run_id": f"id-{run}", "protocol": 2}

    def contributions(self, run: str) -> Mapping[str, Any]:
        return {"result": self.contributed.get(run)}

    def provenance(self, run: str, *, verify: bool = False) -> Mapping[str, Any]:
        past = self.histories[run]
        read = len(past.closed) if verify or self.looks else 2  # the first look reads a part
        self.looks += not verify
        chain = [
            {
                "round": row.round,
                "digest": f"{row.round % 256:02x}" * 32,
                "verdict": "ok",
                "gone": [],
                "closed_ms": row.closed_ms,
                "model": f"{row.round * 7 % 256:02x}" * 32,
                "public_key": "3f" * 32,
                "sites": list(past.sites[:20]),
                "contributors": len(past.sites),
                "examples": 1204 * len(past.sites),
            }
            for row in past.closed[:read][-60:]
        ]
        return {
            "run": run,
            "run_id": f"id-{run}",
            "rounds": 50,
            "closed": len(chain),
            "head": "0b" * 32,
            "objects_read": 240 if verify else None,
            "bytes_read": 9_840_000_000 if verify else None,
            "verified": verify,
            "chain": chain,
            "earlier": 0,
            "notices": [],
            "noticed": 0,
            "problems": [],
            "wrong": 0,
            "read": len(chain),
            "manifests": len(past.closed),
            "is_complete": read >= len(past.closed),
            "silent": "",
        }


def many(number: int = 50) -> list[dict[str, Any]]:
    found = []
    for at in range(number):
        kind = at % 5
        name = f"study-{at:02}"
        if kind == 0:
            found.append({**mammo(), "run": name, "run_id": f"id-{name}", "round": 3 + at % 20})
        elif kind == 1:
            found.append(
                ended(
                    name,
                    "failed",
                    "round 7: 3 updates are needed and 2 can come; site-2: its trainer failed",
                    at=7,
                    ago_ms=3_600_000 * at,
                )
            )
        else:
            found.append(ended(name, "finished", "all 40 rounds are closed", ago_ms=7_200_000 * at))
    return found


def every() -> list[dict[str, Any]]:
    """A few runs of all kinds."""
    return [
        mammo(),
        young(),
        hostile(),
        wide(),
        ended("digits-a", "finished", "all 40 rounds are closed"),
        ended("digits-b", "finished", "all 40 rounds are closed", ago_ms=9_000_000),
        ended("lungs", "failed", "round 7: 3 updates are needed and 2 can come; site-2: its trainer failed", at=7),
    ]


if __name__ == "__main__":
    import sys
    from pathlib import Path

    from flavor.page.app import Page
    from flavor.page.assets import Assets
    from flavor.page.server import bound, serving

    source = MadeUp(many() if "many" in sys.argv else [] if "none" in sys.argv else every())
    place = bound("127.0.0.1", 8699, token=None, or_free=True)
    with serving(Page(source, assets=Assets(Path("flavor/page/static"))), place) as ended_:
        print(place.address, flush=True)
        ended_.wait()
