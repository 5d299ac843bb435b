"""A site that was lost before its run ended is told from those that have ended with the run."""

from __future__ import annotations

from flavor.cli.status_lines import columns_of
from flavor.records.states import RunState
from flavor.view.client_events import ClientJoined, ClientLost
from flavor.view.described import described
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
