"""A site that was lost before its run ended is told from those that have ended with the run."""

from __future__ import annotations

from flavor.cli.status_lines import columns_of
from flavor.records.states import RunState
from flavor.view.client_events import ClientJoined, ClientLost
from flavor.view.described import described
from flavor.view.facts import time_of
from flavor.view.round_events import RunResumed
from flavor.view.snapshot import Phase, take_snapshot
from tests.driven import Driven
from tests.view.test_newest import followed, says


def test_the_site_that_made_a_run_fail_is_gone_with_its_reason(url: str) -> None:
    """It was shown last, as one that had ended with the run, without a word."""
    driven = Driven(url)
    for client in "abc":
        says(driven, client, "ready")
    driven.open(["a", "b", "c"])
    driven.accept("a")
    runs, why = driven.runs, "its heartbeat stopped"
    for client in "bc":
        runs.log(ClientLost.name, client=client, reason=why)
    runs.log(ClientJoined.name, client="c", reason="again")
    runs.end(RunState.FAILED, "3 updates are needed and 2 can come; b: its heartbeat stopped")
    clients = take_snapshot(runs).clients
    assert [(clients[name].phase, clients[name].reason) for name in "abc"] == [
        (Phase.DONE, ""),
        (Phase.GONE, why),
        (Phase.OVER, ""),
    ]
    found = described(runs, url)
    columns = {column.head: column.cells for column in columns_of(found)}
    assert (columns["STATE"]["b"], columns["WHY"]["b"]) == ("gone", why)
    assert followed(driven).read().document["clients"]["b"]["phase"] == "gone"
    runs.log(RunResumed.name, reason="resumed")
    assert take_snapshot(runs).clients["b"].phase is Phase.OVER, "it was lost before the run was resumed"


def test_a_site_that_came_back_and_ended_with_the_run_was_not_lost(url: str) -> None:
    """It was shown as gone, for the reason for which it had failed rounds before."""
    driven = Driven(url)
    says(driven, "a", "ready")
    driven.open(["a"])
    lost_ms = time_of(driven.runs.log(ClientLost.name, client="a", reason="its disk was full"))
    driven.runs.redis.hset(driven.runs.keys.client("a").hash, "told_ms", lost_ms + 1)
    driven.runs.end(RunState.FINISHED, "all rounds are closed")
    found = take_snapshot(driven.runs).clients["a"]
    assert (found.phase, found.reason) == (Phase.OVER, "")
