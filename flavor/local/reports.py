"""A site's own text about a failure. In a local run the site's user is the operator, and may read it."""

from __future__ import annotations

import os
from pathlib import Path

from flavor.bus.runs import RunStore
from flavor.local.judging import judged_model, judging_line
from flavor.local.progress import Progress
from flavor.view.client_events import ClientLost, UpdateRefused
from flavor.view.evaluation_events import EvaluationEvent
from flavor.view.event import Event
from flavor.view.round_events import AttemptFailed, RoundNote

_SHARED_LINES = 200


def shared(redis_url: str | None) -> list[str]:
    """The option by which the sites of a local run share the last output of their scripts, which its page shows.

    On a server of the user's, others may read it: there FLAVOR_SHARE_LOG alone shares.
    """
    return ["--share-log", str(_SHARED_LINES)] if not redis_url and "FLAVOR_SHARE_LOG" not in os.environ else []


def with_report(reason: str, report: str | None) -> str:
    """Join a reason and the site's own text. A beginning that both share appears once."""
    if not report:
        return reason
    before, known, detail = report.partition(reason.rpartition("its trainer ")[2].rstrip('"'))
    return f"{reason}{detail}" if known and before in ("the trainer ", "") else f"{reason} ({report})"


def report_of(runs: RunStore, event: Event) -> str | None:
    """Return the site's own text about the failure in this event; None if the event is no failure or has no text."""
    match event:
        case ClientLost(client=client):
            return runs.clients([client])[client][0].report
        case UpdateRefused(client=client, round=int(round_)):
            return getattr(runs.updates(round_, [client]).get(client), "report", None)
    return None


def show(progress: Progress, runs: RunStore, event: Event, logs: Path, told: set[str]) -> None:
    """Show what `flavor run` prints of this event: a line, as `told_line`, and a model that the run has had judged."""
    if line := told_line(runs, event, logs, told):
        progress.tell(line)
    if (model := judged_model(runs, event)) is not None:
        progress.judged(model)


def told_line(runs: RunStore, event: Event, logs: Path, told: set[str]) -> str:
    """The line of `flavor run` about this event, with the site's own text; '' for an event that it does not print.

    `logs` is the folder of the logs. `told` has what is printed once, and gets what this line says of that.
    """
    if isinstance(event, EvaluationEvent):
        return judging_line(runs, event, logs, told)
    if not isinstance(event, UpdateRefused | ClientLost | AttemptFailed | RoundNote):
        return ""
    line = f"{getattr(event, 'client', '') or 'aggregator'}: {with_report(event.reason, report_of(runs, event))}"
    if not isinstance(event, ClientLost):
        return line
    fault = f"lost {event.client}"
    if fault in told:
        return ""
    told.add(fault)
    return f"{line}; its log: {logs / f'{event.client}.log'}"
