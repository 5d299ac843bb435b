"""Joins a run: waits until the run is there, and holds what an edge knows of the run and of its own site."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from flavor.bus.runs import RunStore
from flavor.bus.subscription import Subscription
from flavor.config import RunConfig
from flavor.counted import counted
from flavor.edge import inbox
from flavor.edge.arrival import is_over, why_not_there
from flavor.edge.config import EdgeConfig
from flavor.edge.consent import told as told_of_run
from flavor.edge.membership import Membership
from flavor.edge.meter import Meter
from flavor.edge.workspace import Workspace
from flavor.errors import WaitTimeout
from flavor.ledger.keys import SigningKey
from flavor.outage import site_patience_s
from flavor.protocol import check_run
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.site_settings import settings_of
from flavor.view.observer import Observer, notices
from flavor.view.site_events import RunAwaited, RunJoining

_REMIND_S = 60.0
_TOGETHER_S = 3.0
"""A coordinator that was started together with this edge, as in a local run, may take so long to begin the run."""


@dataclass(frozen=True)
class Site:
    """One client of the run that it has joined: its settings, and how it talks to the run and to its user."""

    config: EdgeConfig
    runs: RunStore
    membership: Membership
    run: RunView
    """The run as it was when this client joined."""
    settings: RunConfig
    workspace: Workspace
    key: SigningKey
    observer: Observer
    """Hears what happens at this site."""
    meter: Meter = field(default_factory=Meter)
    """Measures what this site does in each round."""

    @property
    def is_buffered(self) -> bool:
        """Whether the run is asynchronous: this site goes on with its task until it gets another one."""
        return self.settings.buffered is not None

    @property
    def uses_signed_urls(self) -> bool:
        """Whether this site uses the bucket by URLs that the coordinator signs, and not by its own credentials."""
        return self.settings.signed_urls and not self.config.names_store

    def newest_task(self, round_: int) -> int:
        """Return the round of the task that this site is to do while the run is in `round_`; 0 for none.

        In a synchronous run that is the run's round, of which a site that was not sampled has no task.
        """
        mode = self.settings.buffered
        return round_ if mode is None else self.membership.newest_task(round_, mode.max_staleness)

    @property
    def patience_s(self) -> float:
        """How long this site waits for a Redis or a store that is away."""
        own = self.config.patience_s
        return site_patience_s(self.settings.longest_round_s) if own is None else own

    @property
    def script_settings(self) -> dict[str, str]:
        """The variables that this site's scripts get: those of the run for it, or its own in place of these."""
        return {**settings_of(self.settings, self.config.client), **self.config.own_settings}

    def shared(self, text: str) -> str | None:
        """`text`, if the site's own user shares the trainer's output with the run's operator (`--report-output`)."""
        return text if self.config.report_output else None


def await_run(config: EdgeConfig, runs: RunStore, subscription: Subscription, *, observer: Observer) -> RunView:
    """Wait until the run is there, and has not ended unless this site takes part in runs that are over (`stays`).

    Raises `RunError`, or what fits the run's end, when it is over, and `WaitTimeout` when it does not appear within
    `join_timeout_s`.
    """
    deadline = None if config.join_timeout_s is None else time.monotonic() + config.join_timeout_s
    tell_at, told = time.monotonic(), ""
    quiet_until = tell_at + _TOGETHER_S
    while True:
        view = runs.find()
        if view is not None and (config.stays or not view.state.ended):
            break
        if view is not None and view.state is RunState.FINISHED:
            raise is_over(view, "ask its operator for another run")
        why = why_not_there(config.run, view)
        now = time.monotonic()
        is_early = view is None and now < quiet_until
        if not is_early and (why != told or now >= tell_at):
            observer.hear(RunAwaited(why, run=config.run))
            told, tell_at = why, now + _REMIND_S
        left_s = quiet_until - now if is_early else inbox.RELISTEN_S
        left_s = left_s if deadline is None else min(left_s, deadline - now)
        if left_s <= 0:
            within = f"within {config.join_timeout_s:g} s"
            if view is not None:
                raise is_over(view, f"it did not go on {within}: start this again once its operator resumed it")
            raise WaitTimeout(f"run {config.run!r} did not appear {within}: {why}")
        subscription.wait(left_s)
    check_run(config.run, view.protocol, view.release, view.needs)
    return view


def tell_joining(site: Site) -> None:
    """Tell the site's user which run this client joins, and what the run asks of the site."""
    signs = f"signing with key {site.key.public.fingerprint}, {site.config.key_path}"
    rounds, run = counted(site.run.rounds, "round"), site.run
    site.observer.hear(RunJoining(signs, rounds, run.run_id, site.config.client, run=site.config.run))
    tell = notices(site.observer)
    if given := site.workspace.given:
        tell(f"taken from the environment: {', '.join(f'{name}={path}' for name, path in given.items())}")
    for line in told_of_run(site.settings, site.config.client, own=site.config.own_settings):
        tell(line)
