"""Who decides what a run does next: `decision.py` for rounds one after the other; others have their room beside it.

The stages of a round ask a `Policy` and act on what it says; they decide nothing themselves. A policy for rounds that
overlap is another module beside `decision.py`, with these functions; `policy_of` is where a run's setting chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flavor.config import RunConfig
from flavor.policy import decision
from flavor.policy.decision import Action
from flavor.policy.standing import Client, Standing
from flavor.records.round import RoundView
from flavor.records.verdict import Verdict


class Policy(Protocol):
    """Pure decisions from plain values, each with its reason in words. See `decision.py` for each."""

    def next_round(
        self, run: str, closed: int, clients: Mapping[str, Client], config: RunConfig, *, anew: bool = False
    ) -> tuple[Action, str, tuple[str, ...]]:
        """Between two rounds: open the next one (and for whom), wait, finish or fail."""

    def close_round(
        self,
        run: str,
        now_ms: int,
        round_: RoundView,
        standings: Mapping[str, tuple[Standing, str]],
        config: RunConfig,
    ) -> tuple[Action, str]:
        """In an open round: wait, aggregate, finish, open it again or fail."""

    def reopened(
        self,
        round_: RoundView,
        standings: Mapping[str, tuple[Standing, str]],
        clients: Mapping[str, Client],
        config: RunConfig,
    ) -> tuple[Action, str, tuple[str, ...]]:
        """A round that lost its quorum: for whom to open it again, or hold it until enough are there."""

    def agreed_structure(
        self, verdicts: Mapping[str, Verdict], *, open_: int, needed: int, closing: bool
    ) -> tuple[str, tuple[str, ...]] | None:
        """In a round that starts from no model: whose structure counts, and whose updates have another."""

    def supervise(
        self, now_ms: int, round_: RoundView, *, enqueued_ms: int, workers: int | None, config: RunConfig
    ) -> tuple[Action, str]:
        """In an aggregating round: wait, start another attempt, put the same one into the queue again, or fail."""


def policy_of(_: RunConfig) -> Policy:
    """The policy of a run with these settings."""
    return decision
