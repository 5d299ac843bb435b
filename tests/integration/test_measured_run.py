"""A real run leaves what people want to know: phases, bytes and metrics of each site, and a summary of each round."""

from __future__ import annotations

import json

from flavor.records.measured import Measured
from flavor.records.pulse import Doing
from flavor.records.summary import RoundSummary
from flavor.store.open import open_store
from flavor.view.described import described
from flavor.view.history import History, Outcome, Source
from tests.conftest import Bench

WAYS = ("sent", "received")
SLACK_MS = 2_000
"""By so much a site that waits for a busy machine may be wrong about the server's time."""


def test_a_run_leaves_what_happened_in_it(bench: Bench) -> None:
    """Site 2 saves NaN in round 2, and says nothing of its machine."""
    coordinator = bench.serve("--keep-rounds", 1, "--quorum", 1, rounds=3)
    bench.aggregator()
    bad = bench.trainer("--fail", "nan", "--at", 2, "--only", "c2")
    edges = [bench.edge("c1", bad), bench.edge("c2", bad, "--no-report")]
    assert coordinator.wait() == 0, coordinator.stderr
    assert [edge.wait() for edge in edges] == [0, 0], [edge.stderr for edge in edges]
    runs, keys = bench.runs, bench.runs.keys
    summaries = [RoundSummary.from_json(text) for text in runs.summaries()]
    assert [each.round for each in summaries] == [1, 2, 3]
    for summary in summaries:
        view = runs.read_round(summary.round)
        assert view is not None
        assert view.aggregating_ms is not None
        assert (summary.opened_ms, summary.aggregating_ms) == (view.opened_ms, view.aggregating_ms)
        assert summary.closed_ms == view.closed_ms
        assert view.opened_ms <= view.aggregating_ms <= summary.closed_ms
        measured = runs.measured(view.round)
        assert measured.keys() == view.verdicts.keys() == {"c1", "c2"}
        for client, each in measured.items():
            words = [start.doing for start in each.phases]
            first = [Doing.DOWNLOADING] if view.round > 1 else []
            assert words == [*first, Doing.TRAINING, Doing.UPLOADING, Doing.UPLOADED]
            times = [start.start_ms for start in each.phases]
            assert times == sorted(times), (client, view.round)
            assert view.opened_ms - SLACK_MS <= times[0] <= times[-1] <= each.judged_ms + SLACK_MS
            if view.verdicts[client].accepted:
                assert each.moved.sent_bytes >= view.inspected(client).size_bytes > 0
                assert each.judged_ms <= view.aggregating_ms
            assert (each.moved.received_bytes > 0) == (view.round > 1)
            info = json.loads(bench.redis.hget(keys.measured(view.round), client))["metrics"]
            assert info == dict(each.metrics)
    assert [(each.contributors, each.refused) for each in summaries] == [(2, 0), (1, 1), (2, 0)]
    for client, row in described(runs, bench.url)["clients"].items():
        sent, received = (
            sum(getattr(runs.measured(n)[client].moved, f"{way}_bytes") for n in (1, 2, 3)) for way in WAYS
        )
        assert row["sent_bytes"] >= sent > 0, "also after its edge has left, and of rounds shorter than a pulse"
        assert row["received_bytes"] >= received > 0
    status = {name: status for name, (status, _) in runs.clients(["c1", "c2"]).items()}
    assert status["c1"].version.startswith("flavor ")
    assert "Python 3." in status["c1"].version
    assert status["c2"].version == ""
    history = History(runs, open_store(str(bench.store)))
    assert [(row.source, row.seconds is not None) for row in history.strip()] == [(Source.SUMMARY, True)] * 3
    found = history.timeline(2)
    assert [(each.client, each.outcome) for each in found.clients] == [
        ("c1", Outcome.ACCEPTED),
        ("c2", Outcome.REFUSED),
    ]
    assert all(
        span.end_ms is not None and span.start_ms <= span.end_ms for each in found.clients for span in each.phases
    )
    assert found.gone == ""
    assert Measured() not in runs.measured(3).values()
