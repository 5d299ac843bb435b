"""The settings of a run, and how durations and sizes are bounded. Frozen; only entry points read the environment."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flavor.errors import InvalidSetting
from flavor.settings import checked_settings

SMALL_UPDATE_BYTES = 4 * 1024 * 1024
"""Updates below this are inspected many in a job: a job of its own would cost more than the inspection."""
LONGEST_S = 10 * 365 * 86_400.0
"""No duration is longer: milliseconds of it must fit what Redis takes."""


class RunConfig(BaseModel):
    """What a coordinator decides for a run; stands in the run's hash as JSON and never changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    rounds: int = Field(ge=1, le=1_000_000)
    """Rounds to run."""
    min_clients: int = Field(default=1, ge=1)
    """Clients that must be ready before the first round, and the quorum unless one is set."""
    quorum: int | None = Field(default=None, ge=1)
    """Accepted updates with which a round may close; the share `fraction` of `min_clients` when None."""
    fraction: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the ready clients that each round samples; never fewer than the quorum."""
    seed: int = 0
    """Seed of that sampling."""
    round_timeout_s: float = Field(default=86_400.0, gt=0, le=LONGEST_S)
    """Deadline of a round, in seconds from its opening, on the server's clock."""
    heartbeat_timeout_s: float = Field(default=15.0, ge=0.3, le=LONGEST_S)
    """Lifetime of an edge's lease; an edge that is silent for longer is counted as gone."""
    aggregation_lease_s: float = Field(default=15.0, ge=0.3, le=LONGEST_S)
    """Lifetime of a worker's lease on a round; another attempt starts when it runs out."""
    aggregation_timeout_s: float = Field(default=3600.0, gt=0, le=LONGEST_S)
    """Longest that one aggregation job may run."""
    aggregation_attempts: int = Field(default=3, ge=1)
    """Attempts to aggregate a round before the run fails."""
    keep_rounds: int = Field(default=2, ge=0)
    """Rounds whose local updates stay in the store; 0 keeps all."""
    aggregator: str = "fedavg"
    """Reducer, or reducer and server step under one name, with its options."""
    server_step: str | None = None
    """Server step with its options; the aggregator's own when None."""
    settings: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables that each edge sets for its trainer, e.g. LEARNING_RATE; see `flavor.settings`."""
    queue: str = "flavor"
    """RQ queue that the aggregators listen on."""
    store: str
    """URL of the object store, as the coordinator sees it."""

    @field_validator("settings")
    @classmethod
    def _settings_may_be_set(cls, settings: Mapping[str, str]) -> Mapping[str, str]:
        return checked_settings(settings)

    @model_validator(mode="after")
    def _quorum_is_reachable(self) -> Self:
        if self.quorum is not None and self.quorum > self.min_clients:
            raise ValueError(f"quorum {self.quorum} is more than min_clients {self.min_clients}")
        return self

    @property
    def needed(self) -> int:
        """Accepted updates with which a round may close."""
        return self.quorum if self.quorum is not None else max(1, math.ceil(self.fraction * self.min_clients))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RunConfig:
        """A configuration from plain values; `InvalidSetting` names each bad one as its option."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidSetting(explained(error)) from None

    def to_mapping(self) -> dict[str, Any]:
        """As plain JSON values."""
        loaded: dict[str, Any] = json.loads(self.model_dump_json())
        return loaded


def explained(error: ValidationError) -> str:
    """One line that names each bad setting as its option."""
    lines = []
    for problem in error.errors():
        option = (
            "--" + "-".join(str(part) for part in problem["loc"]).replace("_", "-") if problem["loc"] else "settings"
        )
        if problem["loc"][:1] == ("settings",):
            lines.append(f"--set: {problem['msg'].removeprefix('Value error, ')}")
            continue
        given = "" if problem["loc"] == () else f" (given: {problem['input']!r})"
        lines.append(f"{option}: {problem['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(lines)
