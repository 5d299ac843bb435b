"""One round in detail: what each client did when, and what became of its update."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from flavor.bus.runs import RunStore
from flavor.errors import FlavorError
from flavor.ledger.rounds import closed_round
from flavor.records.info import CONFUSION
from flavor.records.measured import Measured, PhaseStart
from flavor.records.pulse import Doing, Pulse
from flavor.records.round import Pause, RoundView
from flavor.records.states import RoundState
from flavor.records.verdict import Verdict
from flavor.results.kept import kept_info
from flavor.results.rounds import site_info
from flavor.store.protocol import ObjectStore
from flavor.view.strip import RoundRow

_MOST_INFOS = 200
"""How many clients' information is read from the store for one round."""
_PATIENCE_S = 2.0
"""How long that may take: the store may be a slow bucket."""


class Outcome(StrEnum):
    """What became of a client's update."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    TRAINS_ON = "trains_on"
    """It goes on with its task, in an asynchronous run: its update counts in a later round."""
    NONE = "none"
    """It has handed in nothing that was inspected."""


@dataclass(frozen=True)
class PhaseSpan:
    """A phase of one client."""

    doing: Doing
    start_ms: int
    end_ms: int | None
    """None for a phase that goes on, or whose end is not known."""


@dataclass(frozen=True)
class ClientRound:
    """One client in one round. Phases and bytes are its edge's own words, bounded by the times of the round."""

    client: str
    outcome: Outcome
    task_round: int = 0
    """The round whose task it does, or has done."""
    staleness: int = 0
    """How many rounds before this one that is."""
    reason: str = ""
    """Why its update was refused, or what was accepted."""
    refused_before: str = ""
    """Why an update of it was refused that it has followed by another one; '' where none was."""
    expected: bool = True
    """False for a client that an earlier opening of the round expected."""
    in_model: bool = False
    """Whether its update entered the model."""
    examples: int | None = None
    bytes: int | None = None
    """Size of its accepted update."""
    sent_bytes: int = 0
    received_bytes: int = 0
    """What its edge has moved for this round; 0 where that is not known."""
    phases: tuple[PhaseSpan, ...] = ()
    """Oldest first; empty where they are not known."""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundTimeline:
    """One round with its clients, sorted by name. Times are milliseconds since 1970 by the clock of the server."""

    row: RoundRow
    deadline_ms: int = 0
    reason: str = ""
    """Why it was closed, or is where it is."""
    notes: tuple[str, ...] = ()
    """What its aggregation noticed."""
    pauses: tuple[Pause, ...] = ()
    """For which times the run had ended before the round closed, oldest first: from and to."""
    clients: tuple[ClientRound, ...] = ()
    gone: str = ""
    """What is not known any more of this round, in a sentence; '' where all is there."""


def read_timeline(
    runs: RunStore, store: ObjectStore | None, row: RoundRow, *, now_ms: int, goes_on: bool, folder: Path | None = None
) -> RoundTimeline:
    """Return the timeline of the round of this row; what is pruned comes from its manifest, as far as it has it.

    What sites reported comes from the run's result `folder`, too. `goes_on` says that it is the newest round of a run
    that has not ended.

    Raises `BusUnavailable` and `DamagedRecord`.
    """
    view, gone, is_pruned = runs.read_round(row.round), "", False
    if view is not None and view.state is RoundState.CLOSED and not view.verdicts.keys() >= set(view.contributors):
        view = None
    if view is None:
        try:
            view = closed_round(runs, store, row.round, newest=row.round + 1)
            is_pruned = True
        except (FlavorError, OSError) as error:
            return RoundTimeline(row, gone=f"the details of the round are gone: {error}")
    if view is None:
        return RoundTimeline(row, gone="the details of the round are gone")
    going = _train_on(runs, view, goes_on=goes_on)
    measured = runs.measured(row.round)
    if not is_pruned and not measured and view.contributors and view.state is RoundState.CLOSED:
        gone = "phases were not recorded: the round was rebuilt from the store, or an earlier release has closed it"
    pulses = runs.pulses(view.expected) if view.state is not RoundState.CLOSED else {}
    names = sorted({*view.expected, *view.left_out, *view.verdicts})
    infos = _from_elsewhere(view, store, measured, folder)
    if is_pruned:
        gone = "phases and refusals were pruned: this is what the manifest has"
        if lacking := [name for name in view.contributors if name not in measured and name not in infos]:
            few = "single" if len(lacking) == len(view.contributors) else "some"
            gone += f", and the metrics of {few} sites were pruned, too, or cannot be read"
    clients = tuple(
        _client(view, name, measured.get(name), pulses.get(name), infos.get(name, {}), now_ms, going=name in going)
        for name in names
    )
    return RoundTimeline(
        row, view.deadline_ms, view.reason or (view.error or ""), view.notes, view.pauses, clients, gone
    )


def _train_on(runs: RunStore, view: RoundView, *, goes_on: bool) -> Collection[str]:
    """Return the clients that go on with an earlier task, or went on with theirs after the round.

    What is trained when the run ends counts in no round.
    """
    if not view.is_buffered:
        return ()
    later = runs.read_round(view.round + 1) if view.state is RoundState.CLOSED else view
    if later is None:  # it is not open yet, or was pruned
        return [client for client in view.expected if client not in view.verdicts] if goes_on else ()
    return [client for client in view.expected if later.since.get(client) == view.task_round(client)]


def _from_elsewhere(
    view: RoundView, store: ObjectStore | None, measured: Mapping[str, Measured], folder: Path | None
) -> dict[str, Mapping[str, Any]]:
    """Return the metrics of contributors of whom Redis has none, as far as the folder or the store has them."""
    found: dict[str, Mapping[str, Any]] = {}
    until = time.monotonic() + _PATIENCE_S
    for client in [name for name in view.contributors if name not in measured][:_MOST_INFOS]:
        if time.monotonic() >= until:
            break
        with contextlib.suppress(FlavorError, OSError):
            if (info := kept_info(folder, view.round, client)) is None and store is not None:
                info = site_info(view, store, client)
            if info is not None:
                found[client] = info["metrics"]
    return found


def _client(
    view: RoundView,
    name: str,
    measured: Measured | None,
    pulse: Pulse | None,
    info: Mapping[str, Any],
    now_ms: int,
    *,
    going: bool,
) -> ClientRound:
    verdict = view.verdicts.get(name)
    task = view.task_round(name)
    known = measured or Measured().with_metrics(info, last=CONFUSION)
    return client_round(
        name,
        verdict,
        known,
        spans(known, _under_way(pulse, task), opened_ms=view.opened_ms, closed_ms=view.closed_ms, now_ms=now_ms),
        task_round=task,
        staleness=view.round - task,
        trains_on=going,
        expected=name in view.expected,
        in_model=view.state is RoundState.CLOSED and name in view.in_model,
    )


def client_round(
    name: str,
    verdict: Verdict | None,
    measured: Measured,
    phases: tuple[PhaseSpan, ...],
    *,
    task_round: int,
    staleness: int,
    trains_on: bool = False,
    expected: bool = True,
    in_model: bool = False,
) -> ClientRound:
    """Return what one client did in a round."""
    update = verdict.update if verdict is not None else None
    return ClientRound(
        client=name,
        outcome=_outcome(verdict, trains_on=trains_on),
        task_round=task_round,
        staleness=staleness,
        reason=verdict.reason if verdict is not None else "",
        refused_before=verdict.refused_before if verdict is not None else "",
        expected=expected,
        in_model=in_model,
        examples=update.num_examples if update is not None else None,
        bytes=update.size_bytes if update is not None else None,
        sent_bytes=measured.moved.sent_bytes,
        received_bytes=measured.moved.received_bytes,
        phases=phases,
        metrics=measured.metrics,
    )


def _outcome(verdict: Verdict | None, *, trains_on: bool) -> Outcome:
    if verdict is None:
        return Outcome.TRAINS_ON if trains_on else Outcome.NONE
    return Outcome.ACCEPTED if verdict.accepted else Outcome.REFUSED


def _under_way(pulse: Pulse | None, round_: int) -> PhaseStart | None:
    """Return what a client that has handed in nothing does in this round, as its edge says."""
    if pulse is None or pulse.doing is None or pulse.round != round_:
        return None
    return PhaseStart(pulse.doing, pulse.since_ms)


def spans(
    measured: Measured, under_way: PhaseStart | None, *, opened_ms: int, closed_ms: int | None, now_ms: int
) -> tuple[PhaseSpan, ...]:
    """Return the phases of a client in a round, each within the times of the round, also where the edge says otherwise.

    A client without phases has the one that is under way.
    """
    last = closed_ms or max(now_ms, opened_ms)
    end_ms = measured.judged_ms or closed_ms
    if not measured.phases and under_way is not None:
        measured, end_ms = replace(measured, phases=(under_way,)), None
    within = measured.within(opened_ms, last)
    ends: list[int | None] = [start_ms for _, start_ms in within[1:]]
    ends.append(min(max(end_ms, within[-1][1]), last) if within and end_ms else None)
    return tuple(PhaseSpan(doing, start_ms, end) for (doing, start_ms), end in zip(within, ends, strict=False))


def read_client(runs: RunStore, rows: Sequence[RoundRow], client: str, *, now_ms: int) -> list[tuple[int, ClientRound]]:
    """Return what one client did in each of these rounds in which its update was judged, as far as Redis has them.

    Raises `BusUnavailable` and `DamagedRecord`.
    """
    found = runs.of_client([row.round for row in rows], client)
    return [
        (
            row.round,
            client_round(
                client,
                verdict,
                measured,
                _spans_in(row, measured, now_ms),
                task_round=task,
                staleness=row.round - task,
                in_model=in_model,
            ),
        )
        for row in rows
        if row.round in found
        for verdict, measured, in_model, task in [found[row.round]]
    ]


def _spans_in(row: RoundRow, measured: Measured, now_ms: int) -> tuple[PhaseSpan, ...]:
    return spans(measured, None, opened_ms=row.opened_ms, closed_ms=row.closed_ms or None, now_ms=now_ms)
