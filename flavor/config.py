"""The settings of a run, and how durations and sizes are bounded. Frozen; only entry points read the environment."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.kinds import kind_named
from flavor.errors import InvalidSetting
from flavor.patterns import STATISTICS
from flavor.script_settings import checked_settings

SMALL_UPDATE_BYTES = 4 * 1024 * 1024
"""Updates below this are inspected many in a job: a job of its own would cost more than the inspection."""
DEFAULT_AGGREGATOR = "fedavg"
COMMAND = "command"
"""The `aggregator` of a run that only a user's own may aggregate."""
LONGEST_S = 10 * 365 * 86_400.0
"""No duration is longer: milliseconds of it must fit what Redis takes."""


def _quorum(value: Any) -> int | float | None:
    """A number of updates as an int, a share of a round's clients as a float."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        if text.isdigit() and int(text) >= 1:
            return int(text)
        if not text.isdigit() and 0 < number <= 1:
            return number
    except ValueError:
        pass
    raise ValueError("a number of updates is needed (3), or a share of the round's clients (0.6 or 60%)")


class RunConfig(BaseModel):
    """What a coordinator decides for a run; stands in the run's hash as JSON and never changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rounds: int = Field(ge=1, le=1_000_000)
    """Rounds to run."""
    min_clients: int = Field(default=1, ge=1)
    """Clients that must be ready before the first round, and the quorum unless one is set."""
    quorum: Annotated[int | float | None, BeforeValidator(_quorum)] = None
    """Accepted updates with which a round may close: a number, or as a float the share of the round's clients; the
    share `fraction` of `min_clients` when None."""
    on_quorum_lost: Literal["wait", "retry", "fail"] = "fail"
    """When a round cannot get enough updates: wait for its clients, open it again for those that are ready, or fail."""
    round_attempts: int = Field(default=3, ge=1)
    """How often a round is opened in all, with `on_quorum_lost="retry"`, before the run fails."""
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
    quarantine_after: int = Field(default=3, ge=0)
    """Updates of a client that are refused in a row until it is given no more tasks; 0 for never."""
    max_dataset_size: int | None = Field(default=None, ge=1)
    """Largest `datasetSize` that an update may claim, so that no client buys the whole average."""
    max_update_bytes: int | None = Field(default=None, ge=1)
    """Largest checkpoint that an update may be."""
    max_update_norm: float | None = Field(default=None, gt=0)
    """Largest L2 norm of an update's change of the global model, over all float tensors."""
    keep_rounds: int = Field(default=2, ge=0)
    """Rounds whose local updates stay in the store; 0 keeps all."""
    keep_globals: int = Field(default=0, ge=0)
    """Rounds whose global model, information and server state stay in the store, and the initial model; 0 keeps all."""
    share_names: bool = False
    """Whether sites read each other's names, numbers of examples and confusion matrices; else sums alone."""
    checkpoint: str = "tensors"
    """The kind of file that clients send: `tensors` (a state_dict), `opaque` (any bytes), or a package's own kind."""
    aggregator: str | None = None
    """Reducer, or reducer and server step under one name, with its options; `command` for a user's own; when None,
    the worker's command if it has one, else fedavg."""
    server_step: str | None = None
    """Server step with its options; the aggregator's own when None."""
    weights: Literal["datasetSize", "importance", "product", "equal"] = "datasetSize"
    """How much a site counts in a rule that weighs: by its examples, by the importance that it names, by the product of
    both, or like any other."""
    keep: tuple[str, ...] = ()
    """Patterns of the tensors that no round changes: the global model's stay, in a first round without one those of
    the first contributor by name."""
    equal: tuple[str, ...] = ()
    """Patterns of the tensors that must be the same at all sites: an update with another is refused."""
    statistics: tuple[str, ...] = STATISTICS
    """Patterns of the float tensors that are no parameters: no server step is taken with them, no edge rounds them."""
    compress: Literal["none", "bf16", "int8"] = "none"
    """What edges send once there is a global model: their parameters, or their change in so few bits."""
    require_signatures: bool = False
    """Whether updates of clients that have no pinned key must be signed, too."""
    settings: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables that each edge sets for its trainer, e.g. LEARNING_RATE; see `flavor.script_settings`."""
    queue: str = "flavor"
    """RQ queue that the aggregators listen on."""
    store: str
    """URL of the object store, as the coordinator sees it."""

    @field_validator("settings")
    @classmethod
    def _settings_may_be_set(cls, settings: Mapping[str, str]) -> Mapping[str, str]:
        return checked_settings(settings)

    @field_validator("keep_globals")
    @classmethod
    def _slow_sites_find_theirs(cls, rounds: int) -> int:
        if rounds == 1:
            raise ValueError("2 at least, or 0 for all: a slow site may still be fetching the model before the newest")
        return rounds

    @field_validator("keep", "equal", "statistics")
    @classmethod
    def _patterns_match_something(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if not all(pattern.strip() for pattern in patterns):
            raise ValueError("an empty pattern matches no tensor: name one, or a pattern like '*.labels'")
        return patterns

    @field_validator("checkpoint")
    @classmethod
    def _kind_is_there(cls, name: str) -> str:
        try:
            return kind_named(name).name
        except InvalidSetting as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _quorum_is_reachable(self) -> Self:
        if isinstance(self.quorum, int) and self.quorum > self.min_clients:
            raise ValueError(f"quorum {self.quorum} is more than min_clients {self.min_clients}")
        return self

    @model_validator(mode="after")
    def _rule_is_for_tensors(self) -> Self:
        has_tensors, name = self.kind.has_tensors, self.checkpoint
        if not has_tensors and (self.aggregator not in (None, COMMAND) or self.server_step is not None):
            rule = self.server_step if self.aggregator in (None, COMMAND) else self.aggregator
            raise ValueError(
                f"{rule!r} aggregates tensors, and {name} checkpoints have none that it could see: "
                "they need an aggregator of your own (`flavor-agg -m`, `flavor run --aggregator-main`)"
            )
        if not has_tensors and (self.compress != "none" or self.max_update_norm is not None):
            option = "--compress" if self.compress != "none" else "--max-update-norm"
            raise ValueError(f"{option} is for tensors, and {name} checkpoints have none that it could see")
        if (not has_tensors or self.aggregator == COMMAND) and (reason := self.not_for_command):
            raise ValueError(reason)
        return self

    @property
    def not_for_command(self) -> str:
        """Why an aggregator of the user's own would not do as this run asks; '' if it would."""
        if self.server_step is not None:
            return "an aggregator of your own takes the server step itself: leave out --server-step"
        for option, what in (("keep", "keeps tensors"), ("equal", "compares tensors"), ("weights", "weighs the sites")):
            if getattr(self, option) != type(self).model_fields[option].default:
                return f"--{option} is for the rules here: an aggregator of your own {what} itself: leave it out"
        return ""

    @property
    def kind(self) -> CheckpointKind:
        """What its checkpoints are."""
        return kind_named(self.checkpoint)

    @property
    def needed(self) -> int:
        """Accepted updates with which a round of `min_clients` clients may close."""
        if self.quorum is None:
            return max(1, math.ceil(self.fraction * self.min_clients))
        return self.quorum if isinstance(self.quorum, int) else math.ceil(self.quorum * self.min_clients)

    def needed_of(self, expected: int) -> int:
        """Accepted updates with which a round of `expected` clients may close."""
        return math.ceil(self.quorum * expected) if isinstance(self.quorum, float) else min(self.needed, expected)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RunConfig:
        """A configuration from plain values; `InvalidSetting` names each bad one as its option."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidSetting(explained(error)) from None

    @classmethod
    def of_run(cls, run: str, values: Mapping[str, Any]) -> RunConfig:
        """The configuration of a run that is there.

        `InvalidSetting` names each setting that this release does not know: to leave one out is to do something else
        than the run asks for.
        """
        if unknown := sorted(values.keys() - cls.model_fields):
            told = ", ".join(f"{name} ({_shown(values[name])})" for name in unknown)
            raise InvalidSetting(
                f"run {run!r} has settings that this release of flavor does not know: {told}: install the "
                "coordinator's release here"
            )
        return cls.parse(values)

    @classmethod
    def known(cls, values: Mapping[str, Any]) -> RunConfig:
        """What of a configuration this release knows; to be shown, not to act on."""
        return cls.parse({name: value for name, value in values.items() if name in cls.model_fields})

    def to_mapping(self) -> dict[str, Any]:
        """As plain JSON values."""
        loaded: dict[str, Any] = json.loads(self.model_dump_json())
        return loaded


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


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
