"""What a site itself says of a failure: on this machine its user is the operator, and may read it."""

from __future__ import annotations

from flavor.bus.runs import RunStore
from flavor.view.client_events import ClientLost, UpdateRefused
from flavor.view.event import Event


def with_report(reason: str, report: str | None) -> str:
    """A reason with what the site itself says about it; what both say once."""
    if not report:
        return reason
    before, known, detail = report.partition(reason.rpartition("its trainer ")[2])
    return f"{reason}{detail}" if known and before in ("the trainer ", "") else f"{reason} ({report})"


def report_of(runs: RunStore, event: Event) -> str | None:
    """What the site itself says about this event: here its user is the operator."""
    match event:
        case ClientLost(client=client):
            return runs.clients([client])[client][0].report
        case UpdateRefused(client=client, round=int(round_)):
            return getattr(runs.updates(round_, [client]).get(client), "report", None)
    return None
