"""The protocol of policies, which decide what a run does next.

The stages of a round ask a `Policy`, and act on its answer; they decide nothing themselves. `decision.py` is the policy
of rounds that follow each other. A policy for rounds that overlap is another module beside it with the same functions,
and `policy_of` chooses it by a setting of the run.
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
    """Pure decisions from plain values, each with its reason in words; `decision.py` documents each one."""

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
        """In a round that lost its quorum: open it again (and for whom), or wait until enough clients are ready."""

    def agreed_structure(
        self, verdicts: Mapping[str, Verdict], *, open_: int, needed: int, closing: bool
    ) -> tuple[str, tuple[str, ...]] | None:
        """In a round that starts from no model: whose structure counts, and whose updates have another."""

    def supervise(
        self, now_ms: int, round_: RoundView, *, enqueued_ms: int, workers: int | None, config: RunConfig
    ) -> tuple[Action, str]:
        """In an aggregating round: wait, start another attempt, put the same one into the queue again, or fail."""


def policy_of(_: RunConfig) -> Policy:
    """Return the policy of a run with these settings."""
    return decision
