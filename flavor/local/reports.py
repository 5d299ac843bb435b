"""What a site itself says of a failure: on this machine its user is the operator, and may read it."""

from __future__ import annotations

from collections.abc import Mapping

from flavor.bus.runs import RunStore


def with_report(reason: str, report: str | None) -> str:
    """A reason with what the site itself says about it; what both say once."""
    if not report:
        return reason
    before, known, detail = report.partition(reason.rpartition("its trainer ")[2])
    return f"{reason}{detail}" if known and before in ("the trainer ", "") else f"{reason} ({report})"


def report_of(runs: RunStore, entry: Mapping[str, str]) -> str | None:
    """What the site itself says about this entry of the log: here its user is the operator."""
    client = entry.get("client", "")
    if entry["event"] == "client.lost":
        report = runs.clients([client])[client][0].get("report")
    elif entry["event"] == "update.refused":
        report = getattr(runs.updates(int(entry["round"]), [client]).get(client), "report", None)
    else:
        report = None
    return report
