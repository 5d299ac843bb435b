"""The alert rules: each fires when it should, says what to do, and leaves out what another alert explains."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flavor.cli.main import COMMANDS
from flavor.metrics.table import FAMILIES, Kind
from tests.promtool import RULES, STEP_S, Case, check, needs_promtool

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "deploy" / "observability" / "grafana" / "dashboards" / "flavor.json"
STEPS = 41
"""Ten minutes."""
RUN = 'job="flavor",instance="i",run="mammo"'
A = f'{RUN},client="a"'

HEALTHY: dict[str, float] = {
    'up{job="flavor",instance="i"}': 1,
    'flavor_redis_up{job="flavor",instance="i"}': 1,
    'flavor_redis_persistence_ok{job="flavor",instance="i"}': 1,
    'flavor_redis_takes_writes{job="flavor",instance="i"}': 1,
    'flavor_redis_memory_used_bytes{job="flavor",instance="i"}': 50,
    'flavor_redis_memory_max_bytes{job="flavor",instance="i"}': 100,
    f"flavor_run_info{{{RUN}}}": 1,
    f"flavor_run_started_timestamp_seconds{{{RUN}}}": -60,
    f'flavor_run_state{{{RUN},flavor_run_state="running"}}': 1,
    f'flavor_run_state{{{RUN},flavor_run_state="failed"}}': 0,
    f"flavor_run_coordinator_up{{{RUN}}}": 1,
    f"flavor_run_aggregator_missing{{{RUN}}}": 0,
    f"flavor_run_held{{{RUN}}}": 0,
    f"flavor_run_missing_clients{{{RUN}}}": 0,
    f"flavor_run_round{{{RUN}}}": 4,
    f"flavor_run_heartbeat_timeout_seconds{{{RUN}}}": 15,
    f"flavor_run_waiting_since_timestamp_seconds{{{RUN}}}": 0,
    f"flavor_round_open_seconds{{{RUN}}}": 60,
    f"flavor_round_aggregating_seconds{{{RUN}}}": 0,
    f"flavor_round_median_seconds{{{RUN}}}": 100,
    f"flavor_run_round_timeout_seconds{{{RUN}}}": 400,
    f"flavor_round_opened_timestamp_seconds{{{RUN}}}": 0,
    f"flavor_round_deadline_timestamp_seconds{{{RUN}}}": 1000,
    f"flavor_round_needed_updates{{{RUN}}}": 2,
    f"flavor_round_accepted_updates{{{RUN}}}": 1,
    f"flavor_round_quorum_margin{{{RUN}}}": 1,
    f'flavor_client_phase{{{A},phase="training"}}': 1,
    f"flavor_client_heartbeat_age_seconds{{{A}}}": 2,
    f"flavor_client_refused_in_a_row{{{A}}}": 0,
}
REDIS_NEARLY_FULL = {'flavor_redis_memory_used_bytes{job="flavor",instance="i"}': 91}
REDIS_FULL = {**REDIS_NEARLY_FULL, 'flavor_redis_takes_writes{job="flavor",instance="i"}': 0}
UNCOORDINATED = {f"flavor_run_coordinator_up{{{RUN}}}": 0}
UNAGGREGATED = {f"flavor_run_aggregator_missing{{{RUN}}}": 1}
LOST = {f"flavor_round_quorum_margin{{{RUN}}}": -1}
NEAR = {f"flavor_round_deadline_timestamp_seconds{{{RUN}}}": 400}
REFUSED = {f"flavor_client_refused_in_a_row{{{A}}}": 3}
QUARANTINED: dict[str, float | None] = {
    f'flavor_client_phase{{{A},phase="training"}}': None,
    f'flavor_client_phase{{{A},phase="quarantined"}}': 1,
}
SILENT: dict[str, float | None] = {
    f'flavor_client_phase{{{A},phase="training"}}': None,
    f'flavor_client_phase{{{A},phase="gone"}}': 1,
    f"flavor_client_heartbeat_age_seconds{{{A}}}": 31,
}
SLOW = {f"flavor_round_open_seconds{{{RUN}}}": 290, f"flavor_round_aggregating_seconds{{{RUN}}}": 20}
LACKS_SITES = {f"flavor_run_missing_clients{{{RUN}}}": 1}
HELD = {f"flavor_run_held{{{RUN}}}": 1}
BETWEEN: dict[str, float | None] = {name: None for name in HEALTHY if re.match(r"flavor_round_(?!median)", name)}
NO_MEDIAN: dict[str, float | None] = {f"flavor_round_median_seconds{{{RUN}}}": None}
JUDGED = {
    f'flavor_evaluation_round{{{RUN},kind="sites"}}': 3,
    f'flavor_evaluation_last_seconds{{{RUN},kind="sites"}}': 100,
    f'flavor_evaluations_open{{{RUN},kind="sites"}}': 0,
    f'flavor_evaluations_failed_in_a_row{{{RUN},kind="sites"}}': 0,
}
"""A run whose models are judged, whose evaluations take as long as its rounds."""
JUDGING = {
    **JUDGED,
    f'flavor_evaluations_open{{{RUN},kind="sites"}}': 1,
    f'flavor_evaluation_opened_timestamp_seconds{{{RUN},kind="sites"}}': 0,
    f'flavor_evaluation_deadline_timestamp_seconds{{{RUN},kind="sites"}}': 3600,
}
FIRST_ONE: dict[str, float | None] = {
    name: None for name in JUDGED if re.match(r"flavor_evaluation_(round|last)", name)
}


def failed(times: int, kind: str = "sites") -> dict[str, float]:
    return {f'flavor_evaluations_failed_in_a_row{{{RUN},kind="{kind}"}}': times}


def incomplete(times: int) -> dict[str, float]:
    return {f"flavor_evaluations_incomplete_in_a_row{{{RUN}}}": times}


def kind(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The series of another kind of evaluations."""
    return {each.replace('kind="sites"', f'kind="{name}"'): value for each, value in changes.items()}


ENDED: dict[str, float | None] = {
    **{name: None for name in HEALTHY if re.match(r"flavor_(client|round|run_(coord|aggr|held|wait))", name)},
    f'flavor_run_state{{{RUN},flavor_run_state="running"}}': 0,
}
FAILED = {**ENDED, f'flavor_run_state{{{RUN},flavor_run_state="failed"}}': 1}
BLIND: dict[str, float | None] = {
    **{name: None for name in HEALTHY if not name.startswith("up")},
    'flavor_redis_up{job="flavor",instance="i"}': 0,
}


def case(*changes: dict[str, Any], at: dict[int, list[str]], since: int = 0) -> Case:
    """A run that is well, and from a step on is not."""
    changed = {name: value for each in changes for name, value in each.items()}
    return Case(
        {
            name: [HEALTHY.get(name)] * since + [changed.get(name, HEALTHY.get(name))] * (STEPS - since)
            for name in (HEALTHY | changed)
        },
        at,
    )


def renamed(found: Case, **labels: str) -> dict[str, Any]:
    """The series of another run, or of another instance."""
    series = found.series
    for label, value in labels.items():
        series = {re.sub(rf'\b{label}="[^"]*"', f'{label}="{value}"', name): each for name, each in series.items()}
    return dict(series)


def both(one: Case, other: dict[str, Any], at: dict[int, list[str]]) -> Case:
    return Case({**other, **one.series}, at)


SLOW_ONE = ["FlavorEvaluationSlow"]
INCOMPLETE = ["FlavorEvaluationsIncomplete"]
CASES = {
    "all is well": case(at={0: [], 300: [], 600: []}),
    "Redis is away": case(BLIND, since=4, at={60: [], 75: [], 90: ["FlavorUnobserved"], 600: ["FlavorUnobserved"]}),
    "flavor metrics has ended": case(
        BLIND,
        {'flavor_redis_up{job="flavor",instance="i"}': None, 'up{job="flavor",instance="i"}': 0},
        since=4,
        at={60: [], 600: ["FlavorUnobserved"]},
    ),
    "Redis is nearly full": case(REDIS_NEARLY_FULL, at={0: [], 15: ["FlavorRedisNearlyFull"]}),
    "Redis is nearly full for long, and the coordinator ends": case(
        REDIS_NEARLY_FULL, UNCOORDINATED, at={600: ["FlavorCoordinatorGone", "FlavorRedisNearlyFull"]}
    ),
    "Redis could not save for long, takes writes, and a site is gone": case(
        {'flavor_redis_persistence_ok{job="flavor",instance="i"}': 0},
        SILENT,
        at={600: ["FlavorRedisNearlyFull", "FlavorSiteSilent a"]},
    ),
    "Redis has no limit": case({'flavor_redis_memory_max_bytes{job="flavor",instance="i"}': 0}, at={300: []}),
    "Redis cannot write": case(
        {'flavor_redis_persistence_ok{job="flavor",instance="i"}': 0}, at={15: ["FlavorRedisNearlyFull"]}
    ),
    "Redis takes no writes": case(
        {'flavor_redis_takes_writes{job="flavor",instance="i"}': 0}, at={15: ["FlavorRedisNearlyFull"]}
    ),
    "Redis takes no writes, and nobody is seen alive": case(
        {'flavor_redis_takes_writes{job="flavor",instance="i"}': 0},
        *(UNCOORDINATED, UNAGGREGATED, LOST, SILENT, SLOW),
        at={600: ["FlavorRedisNearlyFull"]},
    ),
    "failed": case(FAILED, since=4, at={45: [], 60: ["FlavorRunFailed"], 600: ["FlavorRunFailed"]}),
    "finished": case(ENDED, since=4, at={60: [], 600: []}),
    "lost by Redis": case(
        {name: None for name in HEALTHY if "run=" in name},
        since=4,
        at={45: [], 60: ["FlavorRunFailed"], 600: ["FlavorRunFailed"]},
    ),
    "removed after its end": case(
        {name: None for name in HEALTHY if "run=" in name},
        since=4,
        at={600: []},
    ),
    "no coordinator": case(UNCOORDINATED, since=4, at={75: [], 90: ["FlavorCoordinatorGone"]}),
    "no aggregator": case(UNAGGREGATED, since=4, at={75: [], 90: ["FlavorNoAggregator"]}),
    "quorum lost": case(LOST, since=4, at={60: [], 75: ["FlavorNoQuorum"]}),
    "deadline near": case(NEAR, at={360: [], 390: ["FlavorNoQuorum"], 600: ["FlavorNoQuorum"]}),
    "deadline near, with the quorum": case(NEAR, {f"flavor_round_accepted_updates{{{RUN}}}": 2}, at={390: [], 600: []}),
    "resumed after twelve hours": case(
        {f"flavor_round_opened_timestamp_seconds{{{RUN}}}": -12 * 3600, **NEAR},
        at={15: [], 300: [], 360: [], 390: ["FlavorNoQuorum"]},
    ),
    "reopened again and again": case(
        {f"flavor_round_opened_timestamp_seconds{{{RUN}}}": -20 * 400, **NEAR},
        at={15: [], 360: [], 390: ["FlavorNoQuorum"]},
    ),
    "refused twice": case({f"flavor_client_refused_in_a_row{{{A}}}": 2}, at={300: []}),
    "refused three times": case(REFUSED, since=4, at={45: [], 60: ["FlavorSiteRefused a"]}),
    "quarantined after two": case(QUARANTINED, at={0: ["FlavorSiteRefused a"]}),
    "silent": case(SILENT, since=4, at={45: [], 60: ["FlavorSiteSilent a"]}),
    "silent for less than two heartbeats": case(
        SILENT, {f"flavor_client_heartbeat_age_seconds{{{A}}}": 29}, at={300: []}
    ),
    "left": case({**SILENT, f'flavor_client_phase{{{A},phase="gone"}}': None}, at={300: []}),
    "slow": case(SLOW, since=4, at={105: [], 120: ["FlavorRoundSlow"]}),
    "slow rounds of a second": case(
        {f"flavor_round_median_seconds{{{RUN}}}": 1, f"flavor_round_open_seconds{{{RUN}}}": 29}, at={300: []}
    ),
    "long between two rounds": case(BETWEEN, at={360: [], 375: ["FlavorRoundSlow"]}),
    "held in the first round": case(NO_MEDIAN, HELD, SLOW, at={45: [], 60: ["FlavorRoundSlow"]}),
    "a first round that takes its time": case(NO_MEDIAN, SLOW, at={0: [], 600: []}),
    "waits for its sites to join": case(
        BETWEEN, NO_MEDIAN, HELD, {f"flavor_run_round{{{RUN}}}": 0}, at={300: [], 600: []}
    ),
    "an evaluation failed": case(JUDGED, failed(1), at={0: [], 600: []}),
    "the first evaluation failed": case(JUDGED, FIRST_ONE, failed(1), at={0: ["FlavorEvaluationsFail"]}),
    "two in a row failed": case(JUDGED, failed(2), since=4, at={45: [], 60: ["FlavorEvaluationsFail"]}),
    "those on the operator's data fail": case(
        JUDGED, kind("central", JUDGED), failed(2, "central"), at={600: ["FlavorEvaluationsFail"]}
    ),
    "those that were asked for fail": case(failed(9, "asked"), at={600: []}),
    "evaluations failed before the end": case(JUDGED, failed(2), ENDED, at={600: []}),
    "an evaluation lacks a site": case(JUDGED, incomplete(1), at={0: [], 600: []}),
    "two in a row lack a site": case(JUDGED, incomplete(2), since=4, at={45: [], 60: INCOMPLETE, 600: INCOMPLETE}),
    "a site holds each evaluation to its timeout": case(
        JUDGING,
        BETWEEN,
        incomplete(2),
        {
            f'flavor_evaluation_last_seconds{{{RUN},kind="sites"}}': 400,
            f'flavor_evaluation_deadline_timestamp_seconds{{{RUN},kind="sites"}}': 400,
        },
        at={0: INCOMPLETE, 300: INCOMPLETE, 435: INCOMPLETE},
    ),
    "evaluations lacked a site before the end": case(JUDGED, incomplete(2), ENDED, at={600: []}),
    "evaluations lacked a site, and fail now": case(
        JUDGED, incomplete(2), failed(2), at={600: ["FlavorEvaluationsFail"]}
    ),
    "evaluations lack a site, and those on the operator's data fail": case(
        JUDGED,
        incomplete(2),
        kind("central", JUDGED),
        failed(2, "central"),
        at={600: ["FlavorEvaluationsFail", *INCOMPLETE]},
    ),
    **{
        f"evaluations lack a site, and {alert}": case(JUDGED, incomplete(2), cause, at={600: [alert]})
        for cause, alert in (
            (REDIS_FULL, "FlavorRedisNearlyFull"),
            (UNCOORDINATED, "FlavorCoordinatorGone"),
            (UNAGGREGATED, "FlavorNoAggregator"),
            (LOST, "FlavorNoQuorum"),
        )
    },
    "an evaluation takes three times as long": case(
        JUDGING, BETWEEN, at={300: [], 360: [], 375: ["FlavorEvaluationSlow"], 600: ["FlavorEvaluationSlow"]}
    ),
    "a first evaluation takes its time": case(JUDGING, FIRST_ONE, BETWEEN, at={300: [], 600: []}),
    "a first evaluation is near its timeout": case(
        JUDGING,
        FIRST_ONE,
        BETWEEN,
        {f'flavor_evaluation_deadline_timestamp_seconds{{{RUN},kind="sites"}}': 400},
        at={420: [], 435: ["FlavorEvaluationSlow"]},
    ),
    "quick evaluations": case(
        JUDGING, BETWEEN, {f'flavor_evaluation_last_seconds{{{RUN},kind="sites"}}': 1}, at={75: [], 105: SLOW_ONE}
    ),
    "one on the operator's data is slow, and the rounds go on": case(
        kind("central", JUDGING), at={300: [], 600: ["FlavorEvaluationSlow"]}
    ),
    "one that was asked for is slow": case(kind("asked", JUDGING), at={600: []}),
    "a round is slow while one on the operator's data is, too": case(
        kind("central", JUDGING), SLOW, at={600: ["FlavorEvaluationSlow", "FlavorRoundSlow"]}
    ),
    "no aggregator merges an evaluation": case(JUDGING, BETWEEN, HELD, at={600: ["FlavorRoundSlow"]}),
    "the next round lacks sites while one on the operator's data goes on": case(
        kind("central", JUDGING), BETWEEN, HELD, at={300: [], 600: ["FlavorEvaluationSlow", "FlavorRoundSlow"]}
    ),
    # one fault, one alert
    "evaluators hang until they fail": case(JUDGING, BETWEEN, failed(2), at={600: ["FlavorEvaluationsFail"]}),
    "evaluations fail because their sites are gone": case(
        JUDGED, failed(2), SILENT, BETWEEN, HELD, LACKS_SITES, at={600: ["FlavorSiteSilent a"]}
    ),
    **{
        f"an evaluation is slow, and {alert}": case(kind("central", JUDGING), cause, at={600: [alert]})
        for cause, alert in (
            (REDIS_FULL, "FlavorRedisNearlyFull"),
            (UNCOORDINATED, "FlavorCoordinatorGone"),
            (UNAGGREGATED, "FlavorNoAggregator"),
        )
    },
    "evaluations fail, and another site is gone": case(
        JUDGED, failed(2), SILENT, at={600: ["FlavorEvaluationsFail", "FlavorSiteSilent a"]}
    ),
    "of all faults the server's": case(
        REDIS_FULL, UNCOORDINATED, UNAGGREGATED, LOST, SILENT, SLOW, at={600: ["FlavorRedisNearlyFull"]}
    ),
    "then the coordinator's": case(
        UNCOORDINATED, UNAGGREGATED, LOST, NEAR, SILENT, SLOW, at={600: ["FlavorCoordinatorGone"]}
    ),
    "then the aggregators'": case(UNAGGREGATED, LOST, NEAR, SILENT, SLOW, at={600: ["FlavorNoAggregator"]}),
    "then the quorum": case(LOST, NEAR, SILENT, REFUSED, SLOW, HELD, at={600: ["FlavorNoQuorum"]}),
    "then a site's": case(SILENT, BETWEEN, HELD, LACKS_SITES, at={600: ["FlavorSiteSilent a"]}),
    "then that of a site that was refused": case(
        QUARANTINED, BETWEEN, HELD, LACKS_SITES, at={600: ["FlavorSiteRefused a"]}
    ),
    "refused, and gone since": case(SILENT, REFUSED, at={600: ["FlavorSiteRefused a"]}),
    # an open round does not wait for a site that is gone or shut out, nor do other waits between rounds
    "slow because of another site than the silent one": case(
        SILENT, SLOW, HELD, at={600: ["FlavorSiteSilent a", "FlavorRoundSlow"]}
    ),
    "slow because of another site than the quarantined one": case(
        QUARANTINED, SLOW, at={600: ["FlavorSiteRefused a", "FlavorRoundSlow"]}
    ),
    "held between rounds, and no site would help": case(
        QUARANTINED, BETWEEN, HELD, at={600: ["FlavorSiteRefused a", "FlavorRoundSlow"]}
    ),
}
for cause, alert in (
    (REDIS_FULL, "FlavorRedisNearlyFull"),
    (UNCOORDINATED, "FlavorCoordinatorGone"),
    (UNAGGREGATED, "FlavorNoAggregator"),
    (LOST, "FlavorNoQuorum"),
):
    for number, effect in enumerate((REFUSED, SILENT, SLOW, {**JUDGED, **failed(2)})):
        CASES[f"{alert} and {number}"] = case(cause, effect, at={600: [alert]})
OTHER_SITE = {name: values for name, values in renamed(CASES["silent"], client="b").items() if "client=" in name}
OTHER_RUN = {name: values for name, values in renamed(CASES["silent"], run="other").items() if "run=" in name}
CASES |= {
    "two sites": both(CASES["refused three times"], OTHER_SITE, {600: ["FlavorSiteRefused a", "FlavorSiteSilent b"]}),
    "two runs": both(CASES["no coordinator"], OTHER_RUN, {600: ["FlavorCoordinatorGone", "FlavorSiteSilent a"]}),
    "two servers": both(
        CASES["Redis is nearly full"],
        renamed(CASES["silent"], instance="j"),
        {600: ["FlavorRedisNearlyFull", "FlavorSiteSilent a"]},
    ),
}
_ENDED_BEFORE = f'flavor_run_state{{{RUN},flavor_run_state="running"}}'
CASES["removed after its end"] = Case(
    {**CASES["removed after its end"].series, _ENDED_BEFORE: [1, 1, 1, 0] + [None] * (STEPS - 4)}, {600: []}
)
_GONE: dict[str, float | None] = {name: None for name in HEALTHY if "run=" in name}
_REMOVED = f"flavor_run_removed_timestamp_seconds{{{RUN}}}"
CASES |= {
    "stopped and removed between two scrapes": case(_GONE, {_REMOVED: 60}, since=4, at={60: [], 600: []}),
    "lost, and an earlier run of its name was removed": Case(
        {**case(_GONE, since=4, at={}).series, _REMOVED: [None] * 4 + [-61] * (STEPS - 4)},
        {45: [], 60: ["FlavorRunFailed"], 600: ["FlavorRunFailed"]},
    ),
    "lost after an earlier one of its name was removed, and given up later": Case(
        {**case(_GONE, since=4, at={}).series, _REMOVED: [None] * 4 + [-61] * 16 + [300] * (STEPS - 20)},
        {60: ["FlavorRunFailed"], 285: ["FlavorRunFailed"], 300: [], 600: []},
    ),
    "lost, and it was removed before it was rebuilt": Case(
        {
            **case(_GONE, since=4, at={}).series,
            f"flavor_run_recovered_timestamp_seconds{{{RUN}}}": [-30] * 4 + [None] * (STEPS - 4),
            _REMOVED: [None] * 4 + [-45] * (STEPS - 4),
        },
        {60: ["FlavorRunFailed"], 600: ["FlavorRunFailed"]},
    ),
    "lost, and given up later": Case(
        {**case(_GONE, since=4, at={}).series, _REMOVED: [None] * 20 + [300] * (STEPS - 20)},
        {285: ["FlavorRunFailed"], 300: [], 600: []},
    ),
}
_HOUR = 3600 // STEP_S
_TO_BE_LOST = {name: [HEALTHY[name]] * 4 + [None] * (3 * _HOUR - 4) for name in HEALTHY if "run=" in name}
_UP, _REDIS_UP = (f'{name}{{job="flavor",instance="i"}}' for name in ("up", "flavor_redis_up"))
CASES |= {
    "lost for long": Case(
        {**_TO_BE_LOST, _UP: [1] * (3 * _HOUR), _REDIS_UP: [1] * (3 * _HOUR)},
        {60: ["FlavorRunFailed"], 7200: ["FlavorRunFailed"], 10_500: ["FlavorRunFailed"]},
    ),
    "lost in a long outage": Case(
        {**_TO_BE_LOST, _UP: [1] * (3 * _HOUR), _REDIS_UP: [1] * 4 + [0] * (2 * _HOUR - 4) + [1] * _HOUR},
        {7185: ["FlavorUnobserved"], 7200: ["FlavorRunFailed"], 10_500: ["FlavorRunFailed"]},
    ),
}
FORGOTTEN_S = 45
"""RQ forgets an aggregator that was killed after half a minute; then the coordinator and the scrape have to notice."""
KILLED = case(SLOW, since=4, at={})
_UNTIL = 4 + FORGOTTEN_S // STEP_S
CASES["the aggregators are killed in quick rounds"] = Case(
    {**KILLED.series, next(iter(UNAGGREGATED)): [0] * _UNTIL + [1] * (STEPS - _UNTIL)},
    {120: [], 135: ["FlavorNoAggregator"]},
    ever={600: ["FlavorNoAggregator"]},
)


@needs_promtool
def test_what_fires(tmp_path: Path) -> None:
    check(CASES, tmp_path)


@needs_promtool
def test_promtool_can_read_the_rules_and_each_query_of_the_dashboard(tmp_path: Path) -> None:
    checked = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    queries = {
        f"q:{number}": query.replace("$run", "mammo").replace("$__rate_interval", "1m")
        for number, query in enumerate(queries_of(json.loads(DASHBOARD.read_text())))
    }
    rules = [{"record": name, "expr": query} for name, query in queries.items()]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def queries_of(value: Any) -> list[str]:
    """Every query in a dashboard."""
    if isinstance(value, dict):
        own = [value["expr"]] if isinstance(value.get("expr"), str) else []
        return own + [query for each in value.values() for query in queries_of(each)]
    return [query for each in value for query in queries_of(each)] if isinstance(value, list) else []


def test_rules_and_dashboard_name_metrics_that_there_are() -> None:
    there = {family.shown for family in FAMILIES.values()}
    there |= {
        f"{name}{end}" for name, each in FAMILIES.items() if each.kind is Kind.SUMMARY for end in ("_sum", "_count")
    }
    text = RULES.read_text() + "\n".join(queries_of(json.loads(DASHBOARD.read_text())))
    named = set(re.findall(r"\bflavor_\w+\b", text))
    assert len(named) > 25
    assert named - there == set()
    recorded = set(re.findall(r"record: (\S+)", text))
    assert set(re.findall(r"\bflavor:\w+\b", text)) == recorded


def alerts() -> dict[str, str]:
    """Each alert's text, by its name."""
    parts = re.split(r"^      - alert: (\w+)\n", RULES.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    commands = {name for listed in COMMANDS.values() for name in listed}
    for name, text in alerts().items():
        assert re.search(r"^          severity: (critical|warning)$", text, flags=re.MULTILINE), name
        assert re.search(r"^          summary: \S", text, flags=re.MULTILINE), name
        description = text.partition("description: >-")[2]
        assert "`" in description, f"{name} names a command"
        used = set(re.findall(r"`flavor (\w+)", description))
        assert used <= commands, name


def test_the_documents_name_every_alert() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(Flavor\w+)` \| (\w+) \|", page, flags=re.MULTILINE)
    severities = {name: re.search(r"severity: (\w+)", text) for name, text in alerts().items()}
    assert dict(rows) == {name: found[1] for name, found in severities.items() if found}


@pytest.mark.parametrize("name", ["prometheus.yml", "compose-prometheus.yml"])
@needs_promtool
def test_promtool_can_read_the_configuration(name: str, tmp_path: Path) -> None:
    text = (RULES.parent / name).read_text()
    (tmp_path / "metrics.token").write_text("only-a-demo")
    (tmp_path / "rules.yml").write_text(RULES.read_text())
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace("/tmp/metrics.token", "metrics.token"))
    checked = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert re.search(r"^  - job_name: flavor$", text, flags=re.MULTILINE), "the rules name it"
