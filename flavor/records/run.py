"""The record of a run in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flavor.protocol import OLDEST, needs_in, release_of, spoken
from flavor.records.damage import field_of, number, optional_of, table, texts
from flavor.records.evaluation import BestModel
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.states import RunState

_LONGEST_REASON = 10_000
"""Longest reason of a run that is read, in characters: sites print it."""


@dataclass(frozen=True)
class RunView:
    """A run, as its hash in Redis describes it."""

    run: str
    state: RunState
    round: int
    rounds: int
    config: Mapping[str, Any]
    reason: str
    global_model: GlobalModel | None
    created_ms: int
    ended_ms: int | None
    manifest: ObjectRef | None = None
    """Manifest of the newest closed round; before the first, the run's record in the store."""
    recovered_ms: int = 0
    """When the run was rebuilt from the store; 0 if it was not."""
    recovered_round: int = 0
    """The newest closed round at that time."""
    run_id: str = ""
    """32 hexadecimal digits that no other run has, of this name or another; '' in a run of protocol 1."""
    protocol: int = OLDEST
    """Protocol version of the run; 0 where the hash names none."""
    release: str = ""
    """The release of flavor with which the run was begun; '' for 0.1.0 and earlier, and in a run of protocol 2 that
    `flavor recover` has rebuilt."""
    needs: tuple[str, ...] = ()
    """The features (`flavor.protocol.FEATURES`) that the run needs; also such as this release does not know."""
    changed: tuple[str, ...] = ()
    """The settings that `flavor resume` has changed since the run began."""
    resumed_ms: int = 0
    """When the run was resumed last; 0 if it was not."""
    resumed_round: int | None = None
    """The newest closed round when the run was resumed last; None if it was not."""
    paused_ms: int = 0
    """For how long the run had ended before it was resumed, all times together."""
    best: BestModel | None = None
    """The best evaluated model so far, where the run selects one."""
    whole: ObjectRef | None = None
    """The whole initial model, in a run that shares a part of the model and began with one (`--init-model`)."""
    begun_from: str = ""
    """The model of another run from which it began (`--from-run`), in words; '' for none."""
    is_met: bool = False
    """Whether the run has finished because it has reached its goal (`--stop-when`, `--stop-after-no-gain`)."""

    @property
    def took_s(self) -> float | None:
        """How long a run took that has ended, without times for which it had ended before; None while it goes on."""
        if self.ended_ms is None or not self.created_ms:
            return None
        return max(0, self.ended_ms - self.created_ms - self.paused_ms) / 1000

    @property
    def incarnation(self) -> tuple[str, int, int]:
        """Differs between a run and another run, or a rebuilt one, of the same name."""
        return self.run_id, self.created_ms, self.recovered_ms

    @classmethod
    def from_hash(cls, run: str, fields: Mapping[str, str]) -> RunView:
        """Read the hash's fields. Raises `DamagedRecord`."""
        return cls(
            run=run,
            state=field_of(fields, "state", RunState),
            round=field_of(fields, "round", number),
            rounds=field_of(fields, "rounds", number),
            config=field_of(fields, "config", table),
            reason=fields.get("reason", "")[:_LONGEST_REASON],
            global_model=GlobalModel.from_hash(fields),
            created_ms=field_of(fields, "created_ms", number, "0"),
            ended_ms=optional_of(fields, "ended_ms", number),
            manifest=ObjectRef.from_hash(fields, "manifest_"),
            recovered_ms=field_of(fields, "recovered_ms", number, "0"),
            recovered_round=field_of(fields, "recovered_round", number, "0"),
            run_id=fields.get("run_id", ""),
            protocol=spoken(fields.get("protocol")),
            release=release_of(fields.get("release")),
            needs=needs_in(fields.get("needs", "")),
            changed=field_of(fields, "changed", texts, "[]"),
            resumed_ms=field_of(fields, "resumed_ms", number, "0"),
            resumed_round=optional_of(fields, "resumed_round", number),
            best=BestModel.from_hash(fields),
            whole=ObjectRef.from_hash(fields, "whole_"),
            begun_from=fields.get("begun_from", "")[:_LONGEST_REASON],
            is_met=fields.get("met") == "1",
            paused_ms=field_of(fields, "paused_ms", number, "0"),
        )
