"""Writes into the client's hash how this site stands in its run, for the coordinator and the operator."""

from __future__ import annotations

import contextlib
import functools
import platform

import flavor
from flavor.edge.joining import Site
from flavor.edge.notice import Failure, Notice, shortened
from flavor.edge.part import Part
from flavor.edge.waiting import awaited, goes_on_unmended, quarantine
from flavor.errors import NotAdmitted
from flavor.records.client import ClientStatus
from flavor.records.remarks import Remark
from flavor.records.states import ClientState
from flavor.view.site_events import QuarantineEnded, RunJoined, SiteQuarantined


@functools.cache
def _version() -> str:
    """What this edge runs on."""
    return f"flavor {flavor.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


class Standing:
    """Holds the site's `part`, and writes the client's status whenever it changes."""

    def __init__(self, site: Site, part: Part | None = None) -> None:
        self._site = site
        self.part = part or Part()
        self.noticed = False
        """Whether the run was told why this edge ends, so that leaving need not be announced."""
        self.quarantined = ""
        """That the run gives this site no tasks, and why; '' where it does."""
        self._quarantined_by_run = False  # whether the coordinator itself has told so
        self.remarks: set[Remark] = set()
        """What this edge has warned the site's user of; any thread may add to it."""
        self._remarked: tuple[Remark, ...] = ()  # those of them that the run was told of
        self._joined = False  # whether the run was told that this client is there
        self._admitted = False  # whether the site's user was told so
        self._store_awaited = ""  # what this edge waits for at the store; '' for nothing
        self._stuck = ""  # what the run was told about a trainer that does not finish its round

    def join(self) -> None:
        """Tell the run that this client is there."""
        self._joined = True
        self._report(ClientState.JOINED)

    def announce(self) -> None:
        """Tell the run again whether this client's trainer is ready, and what this client waits for."""
        if not self.part.has_left:
            stuck = self._store_awaited or (self._stuck if self.part.stalled else "")
            state = ClientState.READY if self.part.is_ready else ClientState.JOINED
            self._report(state, stuck, awaits_store=bool(self._store_awaited))

    def tell_remarks(self) -> None:
        """Tell the run what this edge has warned the site's user of, if there is more."""
        if len(self.remarks) > len(self._remarked) and self._site.config.report:
            self.announce()

    def await_store(self, what: str) -> None:
        """Tell the run what this client waits for at the store; '' once it no longer waits."""
        self._store_awaited = what and f"it waits for {what}"
        if self._joined:
            self.announce()

    def stall(self) -> None:
        """Tell the run that the trainer does not finish its round."""
        self._stuck = f"it waits for {awaited(self.part)}"
        self.announce()

    def leave(self) -> None:
        """Tell the run that the trainer has ended by itself."""
        self.part = self.part.left()
        self._report(ClientState.LEFT, f"its trainer ended after round {self.part.behind}")

    def give_notice(self, notice: Notice, text: str = "") -> None:
        """Tell the run why this edge ends; `text` is for its operator where the site's user shares it."""
        self.noticed = True
        state = ClientState.STOPPED if notice.failure is Failure.SIGNAL else ClientState.FAILED
        with contextlib.suppress(Exception):  # the coordinator misses such an edge by its lease
            self._report(state, notice.reason, notice, text)

    def check_admitted(self) -> None:
        """Raise `NotAdmitted` when the coordinator does not let this client take part, by the key that it has now."""
        site = self._site
        told = site.membership.admission()
        if told is None or not told.is_about(str(site.key.public)):
            return
        if not told.is_admitted:
            signs = f"this edge signs with {site.config.key_path}"
            refusal = f"run {site.config.run!r} does not admit {site.config.client!r}: {told.reason} ({signs})"
            raise NotAdmitted(refusal, told=told.reason)
        if not self._admitted:
            self._admitted = True
            site.observer.hear(RunJoined(run=site.config.run))
        self._read_quarantine(told.quarantined)

    def quarantine(self, refused: int) -> str:
        """Note that so many refused updates have quarantined this site, 0 for none; returns what to tell its user."""
        config = self._site.config
        self.quarantined = quarantine(config.run, config.client, refused) if refused else ""
        return self.quarantined

    def _read_quarantine(self, refused: int) -> None:
        """Tell the site's user that the coordinator has quarantined this site, or no longer does.

        An aggregator's answer may be here before the coordinator has read it: only the coordinator ends a quarantine
        that it has told itself.
        """
        before = self.quarantined
        if refused and self.quarantine(refused) != before:
            self._site.observer.hear(SiteQuarantined(self.quarantined))
        elif not refused and self._quarantined_by_run:
            self.quarantine(0)
            ended = "the run's operator has ended the quarantine of this site"
            waits, round_ = awaited(self.part, is_buffered=self._site.is_buffered), self.part.refused
            if waits and round_ and round_ == self.part.behind:
                view = self._site.runs.find()
                is_newer = view is not None and view.round > round_  # it has heard of no round while quarantined
                ended += f"; {goes_on_unmended(round_)}" if is_newer else f"; it waits for {waits}"
            self._site.observer.hear(QuarantineEnded(ended))
        self._quarantined_by_run = bool(refused)

    def _report(
        self,
        state: ClientState,
        reason: str = "",
        notice: Notice | None = None,
        text: str = "",
        *,
        awaits_store: bool = False,
    ) -> None:
        """Write the client's status; `text` is the site's own about a failure, written where its user shares it."""
        site = self._site
        self._remarked = tuple(sorted(self.remarks)) if site.config.report else ()
        site.membership.report(
            ClientStatus(
                state,
                reason,
                failure=notice.failure if notice is not None else "",
                exit_code=notice.exit_code_text if notice is not None else "",
                report=shortened(site.shared(text)) or "",
                behind=self.part.behind,
                public_key=str(site.key.public),
                protocol=site.run.protocol,
                release=flavor.__version__,
                version=_version() if site.config.report else "",
                awaits_store=awaits_store,
                evaluates=site.config.evaluator is not None,
                allows_cross=site.config.allow_cross,
                role=site.config.role,
                sets=tuple(sorted(site.config.own_settings)) if site.config.report else (),
                remarks=self._remarked,
            )
        )
