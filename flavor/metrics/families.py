"""Turn what is measured into metrics: a pure function of a `Scene`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flavor.metrics.named import MOST_METRICS
from flavor.metrics.scene import Document, RunScene, Scene
from flavor.metrics.table import FAMILIES, OTHERS, Kind
from flavor.metrics.tally import OUTCOMES
from flavor.policy.standing import Standing
from flavor.printable import printable
from flavor.records.evaluation import EvaluationKind
from flavor.records.pulse import Doing
from flavor.records.states import RoundState, RunState
from flavor.results.best import BestRound
from flavor.view.evaluations import automatic_of, merged_of

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_LONGEST_NAME = 64
_ENDED = frozenset(state.value for state in RunState if state.ended)
_LOST = frozenset(
    standing.value for standing in (Standing.REFUSED, Standing.SHUT, Standing.REVOKED, Standing.LEFT, Standing.GONE)
)


def families(scene: Scene) -> list[Metric]:
    """Return the metrics of a scene, in the order of `FAMILIES`; a family without samples is left out."""
    sheet = Sheet()
    sheet.set("flavor_redis_up", not scene.problem)
    if scene.problem:
        return sheet.metrics()
    if scene.server is not None:
        sheet.set("flavor_redis_memory_used_bytes", scene.server.used_bytes)
        sheet.set("flavor_redis_memory_max_bytes", scene.server.max_bytes)
        sheet.set("flavor_redis_persistence_ok", scene.server.is_kept)
        sheet.set("flavor_redis_takes_writes", not scene.server.refusal)
    sheet.set("flavor_dropped_jobs", scene.dropped)
    for state, number in {**{state.value: 0 for state in RunState}, **scene.states}.items():
        sheet.set("flavor_runs", number, state)
    there = {each.document["run"] for each in scene.runs}
    for run in sorted(scene.removed.keys() - there):
        sheet.set("flavor_run_removed_timestamp_seconds", _seconds(scene.removed[run]), run)
    for queue in scene.queues:
        _queue(sheet, queue)
    for each in scene.runs:
        _run(sheet, each, scene.now_ms)
        _round(sheet, each, scene.now_ms)
        _counts(sheet, each)
        if each.document["state"] not in _ENDED:
            _clients(sheet, each, scene.now_ms)
        for (label, direction), moved in sorted(each.moved.items()):
            sheet.set("flavor_client_transferred_bytes", moved, each.document["run"], label, direction)
    return sheet.metrics()


class Sheet:
    """The samples of all families."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def set(self, name: str, value: float | None, *labels: str) -> None:
        """Add a sample of a gauge or a counter; none for a value that is not known, or not finite."""
        if value is not None and math.isfinite(value):
            self._family(name).add_metric(labels, float(value))

    def total(self, name: str, count: int, seconds: float, *labels: str) -> None:
        """Add a sample of a summary."""
        self._family(name).add_metric(labels, count_value=count, sum_value=seconds)

    def info(self, name: str, values: Mapping[str, str], *labels: str) -> None:
        """Add a sample of an info."""
        self._family(name).add_metric(labels, dict(values))

    def states(self, name: str, states: Iterable[str], now: str, *labels: str) -> None:
        """Add the samples of a state set."""
        self._family(name).add_metric(labels, {state: state == now for state in states})

    def metrics(self) -> list[Metric]:
        """Return the families that have samples, in the order of the table."""
        return [self._found[name] for name in FAMILIES if name in self._found]

    def _family(self, name: str) -> Any:
        if name not in self._found:
            from prometheus_client import core

            family = FAMILIES[name]
            kind: Any = {
                Kind.GAUGE: core.GaugeMetricFamily,
                Kind.COUNTER: core.CounterMetricFamily,
                Kind.SUMMARY: core.SummaryMetricFamily,
                Kind.INFO: core.InfoMetricFamily,
                Kind.STATE_SET: core.StateSetMetricFamily,
            }[family.kind]
            unit = {"unit": family.unit} if family.unit else {}
            self._found[name] = kind(name, family.help, labels=family.labels, **unit)
        return self._found[name]


def _queue(sheet: Sheet, queue: Document) -> None:
    name = queue["queue"]
    sheet.set("flavor_queue_length", queue["length"], name)
    sheet.set("flavor_queue_started_jobs", queue["started"], name)
    for state, number in queue["workers"].items():
        sheet.set("flavor_workers", number, name, state)


def _run(sheet: Sheet, scene: RunScene, now_ms: int) -> None:
    document = scene.document
    run = document["run"]
    has_ended = document["state"] in _ENDED
    sheet.info("flavor_run", {"run_id": document["run_id"], "protocol": str(document["protocol"])}, run)
    sheet.states("flavor_run_state", RunState, document["state"], run)
    sheet.set("flavor_run_started_timestamp_seconds", _seconds(document.get("created_ms")), run)
    sheet.set("flavor_run_recovered_timestamp_seconds", _seconds(document.get("recovered_ms")), run)
    sheet.set("flavor_run_round", document["round"], run)
    sheet.set("flavor_run_rounds", document["rounds"], run)
    sheet.set("flavor_run_heartbeat_timeout_seconds", document["heartbeat_timeout_s"], run)
    sheet.set("flavor_run_round_timeout_seconds", document["round_timeout_s"], run)
    if not has_ended:
        sheet.set("flavor_run_coordinator_up", document["served"], run)
        sheet.set("flavor_run_aggregator_missing", bool(document["no_aggregator"]), run)
        sheet.set("flavor_run_held", document["held"], run)
        sheet.set("flavor_run_missing_clients", document["missing_clients"], run)
        sheet.set("flavor_run_waiting_since_timestamp_seconds", _seconds(document.get("since_ms")), run)
    for phase, number in Counter(client["phase"] for client in document["clients"].values()).items():
        sheet.set("flavor_run_clients", number, run, phase)
    last, best = document["last_round"], document["best"]
    if last:
        for name, value in _bounded(last["metrics"], scene.named).items():
            sheet.set("flavor_metric_last", value, run, name)
    if best and not BestRound.in_document(best).is_alone:
        for name, value in _bounded({best["metric"]: best["value"]}, scene.named).items():
            sheet.set("flavor_metric_best", value, run, name)
        sheet.set("flavor_metric_best_round", best["round"], run)
    _evaluations(sheet, scene)


def _evaluations(sheet: Sheet, scene: RunScene) -> None:
    document, tally = scene.document, scene.tally
    run, best = document["run"], document.get("selected")
    by_sites, central = automatic_of(document), document.get("central")
    newest = {EvaluationKind.SITES: by_sites, EvaluationKind.CENTRAL: central}
    for kind, found in newest.items():
        if found:
            sheet.set("flavor_evaluation_round", found["round"], run, kind)
            sheet.set("flavor_evaluation_last_seconds", _between(found["opened_ms"], found["closed_ms"]), run, kind)
    if by_sites:
        sheet.set("flavor_evaluation_sites", by_sites["sites"], run)
        sheet.set("flavor_evaluation_expected_sites", by_sites["expected"], run)
        sheet.set("flavor_evaluations_incomplete_in_a_row", document.get("incomplete_in_a_row", 0), run)
    metrics = _bounded(merged_of(by_sites), scene.judged) if by_sites else {}
    for name, value in {**metrics, **(_bounded(central["metrics"], None) if central else {})}.items():
        sheet.set("flavor_evaluation_last", value, run, name)
    if best:
        sheet.set("flavor_evaluation_best_round", best["round"], run)
        sheet.set("flavor_evaluation_best", best["value"], run, printable(best["metric"])[:_LONGEST_NAME])
    open_ = _open(document)
    for kind in EvaluationKind:
        outcomes = {outcome: tally.evaluations[kind, outcome] for outcome in OUTCOMES}
        if not (open_[kind] or newest.get(kind) or any(outcomes.values())):
            continue
        sheet.set("flavor_evaluations_open", len(open_[kind]), run, kind)
        sheet.set("flavor_evaluations_failed_in_a_row", tally.failed_in_a_row[kind], run, kind)
        for outcome, number in outcomes.items():
            sheet.set("flavor_evaluations", number, run, kind, outcome)
        if open_[kind]:
            oldest = min(open_[kind], key=lambda each: int(each["opened_ms"]))
            sheet.set("flavor_evaluation_opened_timestamp_seconds", _seconds(oldest["opened_ms"]), run, kind)
            sheet.set("flavor_evaluation_deadline_timestamp_seconds", _seconds(oldest["deadline_ms"]), run, kind)


def _open(document: Document) -> dict[EvaluationKind, list[Document]]:
    """Return the evaluations that are not over, by their kind."""
    found: dict[EvaluationKind, list[Document]] = {kind: [] for kind in EvaluationKind}
    for each in document.get("evaluating") or ():
        found[EvaluationKind.of(each["evaluation"])].append(each)
    found[EvaluationKind.CENTRAL] += document.get("evaluating_central_times") or ()
    return found


def _bounded(metrics: Mapping[str, float], named: Collection[str] | None) -> dict[str, float]:
    """Return metrics whose names, which sites have chosen, can be labels: few, short, printable, each once."""
    metrics = {name: value for name, value in metrics.items() if named is None or name in named}
    found: dict[str, float] = {}
    for name, value in list(metrics.items())[:MOST_METRICS]:
        found.setdefault(printable(name)[:_LONGEST_NAME], value)
    return found


def _round(sheet: Sheet, scene: RunScene, now_ms: int) -> None:
    document, tally = scene.document, scene.tally
    run, state = document["run"], document["round_state"]
    for name, key, of_log in (("last", "round_last_s", tally.last_s), ("median", "round_median_s", tally.median_s)):
        known = document.get(key)  # as the page has it; the log has it first
        sheet.set(f"flavor_round_{name}_seconds", of_log if known is None else known, run)
    if state is None:
        return
    sheet.states("flavor_round_state", RoundState, state, run)
    opened_ms, begun_ms = document.get("opened_ms"), tally.begun_ms(document["round"])
    if state in (RoundState.OPEN, RoundState.AGGREGATING) and opened_ms is not None:
        until_ms = now_ms if state == RoundState.OPEN or begun_ms is None else begun_ms
        sheet.set("flavor_round_opened_timestamp_seconds", _seconds(opened_ms), run)
        sheet.set("flavor_round_open_seconds", _between(document["worked_from_ms"], until_ms), run)
        sheet.set("flavor_round_aggregating_seconds", _between(until_ms, now_ms), run)
        sheet.set("flavor_round_expected_updates", document["expected"], run)
        sheet.set("flavor_round_needed_updates", document["needed"], run)
        sheet.set("flavor_round_accepted_updates", document["in"], run)
    if state == RoundState.OPEN:
        sheet.set("flavor_round_deadline_timestamp_seconds", _seconds(document.get("deadline_ms")), run)
        lost = sum(client["this_round"] in _LOST for client in document["clients"].values())
        sheet.set("flavor_round_quorum_margin", document["expected"] - lost - document["needed"], run)


def _counts(sheet: Sheet, scene: RunScene) -> None:
    run, tally = scene.document["run"], scene.tally
    for event, number in sorted(tally.events.items()):
        sheet.set("flavor_events", number, run, event)
    for (verdict, reason), number in sorted(tally.updates.items()):
        sheet.set("flavor_updates", number, run, verdict, reason)
    for outcome, number in sorted(tally.attempts.items()):
        sheet.set("flavor_aggregation_attempts", number, run, outcome)
    sheet.total("flavor_round_duration_seconds", tally.rounds.count, tally.rounds.seconds, run)
    sheet.total("flavor_aggregation_duration_seconds", tally.aggregations.count, tally.aggregations.seconds, run)


def _clients(sheet: Sheet, scene: RunScene, now_ms: int) -> None:
    document = scene.document
    run, clients = document["run"], document["clients"]
    for name in scene.labelled:
        client = clients[name]
        sheet.set("flavor_client_phase", 1, run, name, client["phase"])
        for phase, seconds in _phase_seconds(document, client, now_ms).items():
            sheet.set("flavor_client_phase_seconds", seconds, run, name, phase)
        for family, value in _values(scene, name, now_ms).items():
            sheet.set(family, value, run, name)
        sheet.set("flavor_client_progress_ratio", _share(client.get("reported")), run, name)
        sheet.set("flavor_client_report_timestamp_seconds", _seconds(client.get("reported_ms")), run, name)
    others = clients.keys() - frozenset(scene.labelled)
    if others:
        _others(sheet, scene, others, now_ms)


_SUMMED = ("flavor_client_examples",)


def _others(sheet: Sheet, scene: RunScene, others: Iterable[str], now_ms: int) -> None:
    document = scene.document
    run, clients = document["run"], document["clients"]
    phases, seconds = Counter[str](), Counter[str]()
    values: dict[str, list[float]] = {}
    for name in others:
        phases[clients[name]["phase"]] += 1
        seconds.update(_phase_seconds(document, clients[name], now_ms))
        for family, value in _values(scene, name, now_ms).items():
            if value is not None:
                values.setdefault(family, []).append(value)
    for phase, number in sorted(phases.items()):
        sheet.set("flavor_client_phase", number, run, OTHERS, phase)
    for phase, total in sorted(seconds.items()):
        sheet.set("flavor_client_phase_seconds", total, run, OTHERS, phase)
    for family, found in values.items():
        sheet.set(family, sum(found) if family in _SUMMED else max(found), run, OTHERS)


def _values(scene: RunScene, name: str, now_ms: int) -> dict[str, float | None]:
    """Return the values of families that have the labels run and client alone."""
    client = scene.document["clients"][name]
    return {
        "flavor_client_heartbeat_age_seconds": _age_s(scene, name, client, now_ms),
        "flavor_client_refused_in_a_row": client.get("refused_in_a_row"),
        "flavor_client_round_last_seconds": client.get("last_s"),
        "flavor_client_round_median_seconds": client.get("median_s"),
        "flavor_client_examples": client["samples"],
    }


def _age_s(scene: RunScene, name: str, client: Document, now_ms: int) -> float | None:
    """Return the age of the client's last sign of life; None where that is not known for now."""
    timeout_s = float(scene.document["heartbeat_timeout_s"])
    seen_ms = client.get("seen_ms")
    if client["alive"]:  # with its lease; the board does not tell of each heartbeat
        return min(timeout_s, _between(seen_ms, now_ms)) if seen_ms is not None else 0.0
    if seen_ms is not None:
        return _between(seen_ms, now_ms)
    if client["alive"] is None:
        return None
    return timeout_s + _between(scene.missed_ms.get(name, now_ms), now_ms)


_PHASES = (Doing.DOWNLOADING, Doing.TRAINING, Doing.UPLOADING, Doing.UPLOADED)


def _phase_seconds(document: Document, client: Document, now_ms: int) -> dict[str, float]:
    """Return how long the client was in each phase of the newest round, by the clock of the server."""
    found: dict[str, float] = {}
    phases = client.get("phases") or ()
    if not phases and client.get("doing") in _PHASES and client.get("doing_ms") is not None:
        begun_ms = max(client["doing_ms"], document.get("opened_ms") or 0)
        phases = ((client["doing"], begun_ms),)  # its edge tells of the others when it hands in
    for number, (word, start_ms) in enumerate(phases):
        until_ms = phases[number + 1][1] if number + 1 < len(phases) else _end_of(client, word, now_ms)
        if until_ms is not None:
            found[word] = found.get(word, 0.0) + _between(start_ms, until_ms)
    return found


def _end_of(client: Document, word: str, now_ms: int) -> int | None:
    """Return the end of a client's last phase: now, if it is still in it."""
    return now_ms if client.get("doing") == word else None


def _share(reported: Mapping[str, Any] | None) -> float | None:
    done, total = (reported.get("done"), reported.get("total")) if reported else (None, None)
    return min(1.0, max(0.0, done / total)) if done is not None and total else None


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _between(start_ms: int, end_ms: int) -> float:
    return max(0.0, (end_ms - start_ms) / 1000)
