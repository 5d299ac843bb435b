"""The metrics: name, type, labels and help text of each family. docs/metrics.md has the same table for readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The type of a family, in the words of OpenMetrics."""

    GAUGE = "gauge"
    COUNTER = "counter"
    SUMMARY = "summary"
    INFO = "info"
    STATE_SET = "stateset"


_SUFFIX = {Kind.COUNTER: "_total", Kind.INFO: "_info"}
_UNITS = ("seconds", "bytes", "ratio")


@dataclass(frozen=True)
class Family:
    """One family of metrics."""

    name: str
    """The family's name, without the suffix of its samples."""
    kind: Kind
    labels: tuple[str, ...]
    """The labels of a sample, without the one that a state set names its states by."""
    help: str

    @property
    def shown(self) -> str:
        """The name of its samples, as people look them up."""
        return self.name + _SUFFIX.get(self.kind, "")

    @property
    def unit(self) -> str:
        """The unit that its name ends with; '' for none."""
        end = self.name.rpartition("_")[2]
        return end if end in _UNITS else ""


_RUN = ("run",)
_CLIENT = ("run", "client")
_EVALUATIONS = ("run", "kind")


def _families(kind: Kind, labels: tuple[str, ...], helps: Mapping[str, str]) -> tuple[Family, ...]:
    return tuple(Family(name, kind, labels, text) for name, text in helps.items())


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        *_families(
            Kind.GAUGE,
            (),
            {
                "flavor_redis_up": "Whether Redis can be read: 1, or 0 as long as it cannot.",
                "flavor_redis_memory_used_bytes": "Memory that Redis uses.",
                "flavor_redis_memory_max_bytes": "Memory that Redis may use (maxmemory); 0 for no limit.",
                "flavor_redis_persistence_ok": "Whether Redis could write its data to its disk the last time: 1 or 0.",
                "flavor_redis_takes_writes": (
                    "Whether Redis takes writes: 1, or 0 where its disk or memory is full, or it is a replica."
                ),
                "flavor_dropped_jobs": "Foreign jobs that aggregators have dropped within a week.",
            },
        ),
        *_families(
            Kind.GAUGE,
            ("state",),
            {
                "flavor_runs": (
                    "Runs on this Redis, by their state; damaged for one that cannot be read, lost for one that Redis "
                    "has lost."
                ),
            },
        ),
        *_families(
            Kind.GAUGE,
            ("queue",),
            {
                "flavor_queue_length": "Jobs that no aggregator has taken yet.",
                "flavor_queue_started_jobs": "Jobs that an aggregator works on.",
            },
        ),
        *_families(
            Kind.GAUGE,
            ("queue", "state"),
            {"flavor_workers": "Aggregators that listen, by their state: idle, busy, or resting."},
        ),
        *_families(
            Kind.INFO,
            _RUN,
            {"flavor_run": "The run: `run_id`, which no other run has, and the `protocol` that it speaks."},
        ),
        *_families(
            Kind.STATE_SET,
            _RUN,
            {
                "flavor_run_state": "State of the run: 1 for the state that it is in.",
                "flavor_round_state": "State of the run's newest round: 1 for the state that it is in.",
            },
        ),
        *_families(
            Kind.GAUGE,
            _RUN,
            {
                "flavor_run_started_timestamp_seconds": "When the run began.",
                "flavor_run_recovered_timestamp_seconds": "When `flavor recover` has rebuilt the run last.",
                "flavor_run_removed_timestamp_seconds": "When `flavor rm` has removed the run, for a day after that.",
                "flavor_run_round": "Number of the run's newest round; 0 before the first.",
                "flavor_run_rounds": "Number of rounds that the run is to have.",
                "flavor_run_coordinator_up": "Whether a coordinator serves the run, which has not ended: 1 or 0.",
                "flavor_run_aggregator_missing": "Whether the run has work that no aggregator does: 1 or 0.",
                "flavor_run_held": "Whether the run waits and cannot go on by itself: 1 or 0.",
                "flavor_run_missing_clients": "How many more clients have to be ready before the next round can open; "
                "0 while a round is open.",
                "flavor_run_waiting_since_timestamp_seconds": "Since when the run waits for what it waits for now.",
                "flavor_run_heartbeat_timeout_seconds": "Silence after which a client of the run counts as gone.",
                "flavor_run_round_timeout_seconds": "Time from an opening of a round to its deadline.",
                "flavor_round_opened_timestamp_seconds": "When the newest round was opened.",
                "flavor_round_deadline_timestamp_seconds": "When the open round closes with the updates that it has.",
                "flavor_round_open_seconds": "For how long the newest round has been open, or was until it closed, "
                "without times for which the run had ended.",
                "flavor_round_aggregating_seconds": "For how long the newest round has been aggregated.",
                "flavor_round_last_seconds": "Seconds from the opening of the newest closed round to its end, "
                "without times for which the run had ended.",
                "flavor_round_median_seconds": "Median of the seconds of the newest 50 closed rounds.",
                "flavor_round_expected_updates": "Clients that have the task of the newest round.",
                "flavor_round_needed_updates": "Accepted updates that the newest round needs.",
                "flavor_round_accepted_updates": "Accepted updates of the newest round.",
                "flavor_round_quorum_margin": "How many of the clients of the open round can still be lost: those that "
                "have handed in or still can, less those that are needed.",
                "flavor_metric_best_round": "Round with the best value of the run's first metric."
                " Missing while no other round is of its sites.",
                "flavor_evaluation_sites": "Sites whose results count in the newest evaluation by sites.",
                "flavor_evaluation_expected_sites": "Sites that were to judge the model of the newest evaluation by "
                "sites.",
                "flavor_evaluations_incomplete_in_a_row": "Evaluations by sites, up to the newest with a result, that "
                "lack the result of a site that was to judge the model.",
                "flavor_evaluation_best_round": "Round of the best model by the run's --select.",
            },
        ),
        *_families(
            Kind.GAUGE,
            _EVALUATIONS,
            {
                "flavor_evaluation_round": "Round whose global model the newest evaluation with a result has judged.",
                "flavor_evaluation_last_seconds": "Seconds from the opening of that evaluation to its result.",
                "flavor_evaluations_open": "Evaluations that wait for results, or whose results are being merged.",
                "flavor_evaluation_opened_timestamp_seconds": "When the oldest open evaluation was opened.",
                "flavor_evaluation_deadline_timestamp_seconds": "When the oldest open evaluation goes on without the "
                "results that are missing (`--evaluation-timeout-s`).",
                "flavor_evaluations_failed_in_a_row": "Evaluations that have failed since the last one with a result.",
            },
        ),
        *_families(
            Kind.GAUGE,
            ("run", "phase"),
            {"flavor_run_clients": "Clients of the run, by what they are doing."},
        ),
        *_families(
            Kind.GAUGE,
            ("run", "metric"),
            {
                "flavor_metric_last": "Merged metrics of the newest closed round: at most 20, and 40 in a run.",
                "flavor_metric_best": "Best value so far of the run's first metric."
                " Missing while no other round is of its sites.",
                "flavor_evaluation_last": (
                    "Metrics of the newest evaluation of each kind, by the names of --select: plain means, pooled/NAME "
                    "of the examples of all sites, and central/NAME of the operator's own data. They are of a global "
                    "model, as no flavor_metric_last is."
                ),
                "flavor_evaluation_best": "Value of the best model by the run's --select.",
            },
        ),
        *_families(
            Kind.COUNTER,
            (*_EVALUATIONS, "outcome"),
            {
                "flavor_evaluations": "Evaluations that are over: closed with a result, failed, or skipped because the "
                "result was not needed any more."
            },
        ),
        *_families(
            Kind.COUNTER,
            ("run", "event"),
            {"flavor_events": "Events of the run's log, by kind."},
        ),
        *_families(
            Kind.COUNTER,
            ("run", "verdict", "reason"),
            {"flavor_updates": "Updates that were accepted or refused, with the class of the reason of a refusal."},
        ),
        *_families(
            Kind.COUNTER,
            ("run", "outcome"),
            {"flavor_aggregation_attempts": "Attempts to aggregate a round: begun, failed, or given back."},
        ),
        *_families(
            Kind.SUMMARY,
            _RUN,
            {
                "flavor_round_duration_seconds": "Seconds of closed rounds, from their opening on, without times for "
                "which the run had ended.",
                "flavor_aggregation_duration_seconds": "Seconds of closed rounds, from their last aggregation on.",
            },
        ),
        *_families(
            Kind.GAUGE,
            ("run", "client", "phase"),
            {
                "flavor_client_phase": "1 for what the client is doing. The other clients: how many are doing it.",
                "flavor_client_phase_seconds": "Seconds that the client has spent in each phase of the newest "
                "round, as its edge says. The other clients: their sum.",
            },
        ),
        *_families(
            Kind.GAUGE,
            _CLIENT,
            {
                "flavor_client_heartbeat_age_seconds": "Seconds since the client's last sign of life. The other "
                "clients: the largest.",
                "flavor_client_refused_in_a_row": "Refused updates of the client since its last accepted one. The "
                "other clients: the most.",
                "flavor_client_round_last_seconds": "Seconds that the client took for its newest round. The other "
                "clients: the largest.",
                "flavor_client_round_median_seconds": "Median of the seconds that the client took for a round. The "
                "other clients: the largest.",
                "flavor_client_examples": "Examples of the client's newest accepted update. The other clients: their "
                "sum.",
                "flavor_client_progress_ratio": "How far the client's script says that it is in the round, from 0 "
                "to 1. Not for the other clients.",
                "flavor_client_report_timestamp_seconds": "When the client's script reported last in this round, in "
                "seconds since 1970: a script that hangs reports nothing. Not for the other clients.",
            },
        ),
        *_families(
            Kind.COUNTER,
            ("run", "client", "direction"),
            {
                "flavor_client_transferred_bytes": "Bytes of models that the client's edge has sent or received, as it "
                "says. The other clients: their sum.",
            },
        ),
    )
}
"""Every family by its name."""
OTHERS = "(other clients)"
"""The label of clients that have none of their own: no name of a client has a space or a bracket."""
