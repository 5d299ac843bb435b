"""The stage of an open round: have its updates inspected, then aggregate it, reopen it, wait or end the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flavor.coordinator.attempts import begin_attempt
from flavor.coordinator.context import RunContext
from flavor.coordinator.round_as_read import CurrentRound
from flavor.counted import are, counted
from flavor.policy.advice import some
from flavor.policy.buffered import newcomers
from flavor.policy.decision import Action, agreed_structure
from flavor.policy.next_step import next_step
from flavor.policy.standing import Standing, standings
from flavor.records.round import Reference
from flavor.view.round_events import RoundNote, RoundReopened, StructureDecided


class OpenRound:
    """The `Stage` in which clients train and hand in their updates."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def step(self, round_: CurrentRound | None) -> bool:
        """See `Stage`."""
        assert round_ is not None
        context = self._context
        mode, has_model = context.config.buffered, context.current.view.global_model is not None
        if mode is not None and mode.buffer is not None and has_model and self._join(round_):
            return True
        uninspected = context.inspections.request(round_)
        standing = standings(round_.view, round_.updates, context.members.clients)
        since_ms = context.inspections.since_ms(round_)
        decision = next_step(context.known(round_.view, standing, uninspected=uninspected, uninspected_ms=since_ms))
        if self._decide_structure(round_, standing, closing=decision.action is Action.AGGREGATE):
            return True
        if decision.waits:
            context.waits.note(decision)
            return False
        if decision.action is Action.REOPEN:
            self._reopen(round_, decision.names, decision.reason)
        elif decision.action is Action.AGGREGATE:
            self._aggregate(round_, decision.reason)
        else:
            context.end(decision)
        return True

    def _join(self, round_: CurrentRound) -> bool:
        """Give clients that have become ready the task of an asynchronous round; return whether there are any."""
        context, before = self._context, round_.view
        if not (new := newcomers(before, context.members.clients)):
            return False
        expected = tuple(sorted({*before.expected, *new}))
        reason = f"{some(new)} {are(len(new))} ready, and {'gets' if len(new) == 1 else 'get'} the newest model"
        context.runs.join_round(context.lease.token, before.round, expected=expected, new=new, reason=reason)
        round_.view = replace(before, expected=expected)
        context.observer.hear(RoundNote(reason, before.round))
        return True

    def _aggregate(self, round_: CurrentRound, reason: str) -> None:
        verdicts = round_.view.verdicts
        self._context.late.expect(round_.view)
        contributors = [client for client in round_.view.expected if (v := verdicts.get(client)) and v.accepted]
        complete = len(contributors) == len(round_.view.expected)
        begin_attempt(self._context, round_, 1, contributors, reason, worth_telling=not complete)

    def _decide_structure(
        self, round_: CurrentRound, standing: Mapping[str, tuple[Standing, str]], *, closing: bool
    ) -> bool:
        """In a round that begins from no model, fix the structure of tensors that most updates have.

        Returns whether the acceptance of updates with another structure was taken back.
        """
        context, config, verdicts = self._context, self._context.config, round_.view.verdicts
        if context.current.view.global_model is not None or not config.kind.has_tensors:
            return False
        fixed = round_.view.reference
        if fixed is None:
            open_ = sum(each in (Standing.PENDING, Standing.SUBMITTED) for each, _ in standing.values())
            needed = config.needed_of(len(round_.view.expected))
            agreed = agreed_structure(verdicts, open_=open_, needed=needed, closing=closing)
            if agreed is None:
                return False
            leader, others = verdicts[agreed[0]], agreed[1]
            reference = Reference(leader.inspected.object.sealed(""), leader.structure)
        else:  # updates may have been accepted while the structure was fixed
            accepted = {client: verdict for client, verdict in verdicts.items() if verdict.accepted}
            path = fixed.object.path
            of_its_site = next((e.structure for e in accepted.values() if e.inspected.object.path == path), None)
            known = fixed.structure or of_its_site
            others = tuple(sorted(client for client, each in accepted.items() if known not in (None, each.structure)))
            reference = fixed
            if not others:
                return False
        having = sum(verdict.accepted for verdict in verdicts.values()) - len(others)
        differ = f", and {counted(len(others), 'other')} {'has' if len(others) == 1 else 'have'} not" if others else ""
        has = "has" if having == 1 else "have"
        reason = f"{counted(having, 'update')} {has} the tensors' names, shapes and dtypes of this round{differ}"
        context.runs.decide_structure(context.lease.token, round_.number, reference, others=others, reason=reason)
        context.current.read_round_view(round_)
        for client in others:  # the next inspection refuses them, and names what differs
            round_.requests.forget(client)
        context.observer.hear(StructureDecided(reason, round_.number, others, is_routine=not others))
        return bool(others)

    def _reopen(self, round_: CurrentRound, expected: tuple[str, ...], reason: str) -> None:
        """Open the round again for these clients, with a new deadline; clients that are new in it get its task."""
        context, before = self._context, round_.view
        number, opening = before.round, before.openings + 1
        new = [client for client in expected if client not in before.expected]
        left_out = tuple(sorted({*before.expected, *before.left_out} - set(expected)))
        timeout_s, why = context.deadlines.timeout(number, opening=before.all_openings + 1)
        reason = "; ".join(filter(None, (reason, why)))
        deadline_ms = context.runs.reopen_round(
            context.lease.token,
            number,
            expected=expected,
            new=new,
            left_out=left_out,
            opening=opening,
            timeout_s=timeout_s,
            reason=reason,
        )
        round_.view = replace(before, expected=expected, left_out=left_out, openings=opening, deadline_ms=deadline_ms)
        context.current.read_updates(new)  # a client that was left out may have handed in since
        context.observer.hear(RoundReopened(reason, number))
