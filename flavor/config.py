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
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from flavor import deadline_settings, mode_settings, site_settings, store_settings
from flavor import evaluation_settings as evaluation
from flavor import tensor_settings as tensors
from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.kinds import check_kind_name, kind_named
from flavor.errors import InvalidSetting
from flavor.option_groups import Group
from flavor.parts import Parts
from flavor.policy.mode import Buffered
from flavor.protocol import FEATURES, here
from flavor.rule_settings import conflict_of_rule
from flavor.script_settings import checked_settings
from flavor.setting import LONGEST_S, explained, quorum_of, setting
from flavor.store.url import why_unsigned

SMALL_UPDATE_BYTES = 4 * 1024 * 1024
"""Updates below this are inspected many in a job: a job of its own would cost more than the inspection."""
DEFAULT_AGGREGATOR = "fedavg"
RULE = "NAME[:OPTION=VALUE,...]"
_TO_SHOW, _OF_RUN, RESUMED = dict[str, object](), {"run": object()}, {"resumed": object()}
"""Validation contexts: of `RunConfig.known` and `of_run`, which import no package of a kind, and of `flavor.resume`."""


class RunConfig(BaseModel):
    """The settings of a run, as JSON in the run's hash. Only `flavor resume` changes them: those that `may_change`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rounds: int = setting(
        "Number of rounds to run.", Group.RUN, may_change=True, variable="FLAVOR_ROUNDS", ge=1, le=1_000_000
    )
    min_clients: int = setting(
        "Number of clients that must be ready before the first round opens. Without --quorum, a round also needs that "
        "many accepted updates to close (with --fraction: this share of them).",
        Group.RUN,
        default=1,
        may_change=True,
        variable="FLAVOR_MIN_CLIENTS",
        ge=1,
    )
    quorum: Annotated[int | float | None, BeforeValidator(quorum_of)] = setting(
        "Number of accepted updates with which a round may close, e.g. 3, or their share of the round's clients, e.g. "
        "0.6 or 60%.",
        Group.CLOSING,
        default=None,
        may_change=True,
        metavar="NUMBER|SHARE",
        absent="the number of clients that --min-clients and --fraction give",
    )
    """An int is a number of updates, a float is a share."""
    on_quorum_lost: Literal["wait", "retry", "fail"] = setting(
        "Decide what happens when a round cannot reach the quorum, or has not reached it at the deadline: wait for the "
        "round's sites to come back, reopen the round for the sites that are ready (retry), or fail the run.",
        Group.CLOSING,
        default="fail",
        may_change=True,
    )
    mode: mode_settings.ModeText = mode_settings.MODE
    round_attempts: int = setting(
        "Maximum number of times that a round is opened with --on-quorum-lost retry.",
        Group.CLOSING,
        default=3,
        may_change=True,
        ge=1,
    )
    fraction: float = setting(
        "Share of the ready clients that each round samples.", Group.RUN, default=1.0, gt=0.0, le=1.0
    )
    """A round never samples fewer clients than the quorum."""
    seed: int = setting("Random seed for client sampling, together with the run's name.", Group.RUN, default=0)
    round_timeout_s: deadline_settings.RoundTimeout = deadline_settings.ROUND_TIMEOUT_S
    heartbeat_timeout_s: float = setting(
        "Seconds of silence after which an edge counts as gone.",
        Group.CLOSING,
        default=15.0,
        may_change=True,
        ge=0.3,
        le=LONGEST_S,
    )
    """Lifetime of an edge's lease."""
    aggregation_lease_s: float = setting(
        "Seconds of silence after which an aggregator's work is given to another aggregator.",
        Group.CLOSING,
        default=15.0,
        may_change=True,
        ge=0.3,
        le=LONGEST_S,
    )
    """Lifetime of a worker's lease on a round."""
    aggregation_timeout_s: float = setting(
        "Maximum duration of one aggregation, in seconds.",
        Group.CLOSING,
        default=3600.0,
        may_change=True,
        gt=0,
        le=LONGEST_S,
    )
    aggregation_attempts: int = setting(
        "Maximum number of attempts to aggregate a round before the run fails.",
        Group.CLOSING,
        default=3,
        may_change=True,
        ge=1,
    )
    quarantine_after: int = setting(
        "Number of consecutive refused updates after which a client is quarantined; 0 for never.",
        Group.LIMITS,
        default=3,
        may_change=True,
        ge=0,
    )
    evaluate: evaluation.EvaluateMode = evaluation.EVALUATE
    evaluation_timeout_s: float = evaluation.EVALUATION_TIMEOUT_S
    select: evaluation.SelectRule = evaluation.SELECT
    stop_when: evaluation.Goals = evaluation.STOP_WHEN
    stop_after_no_gain: evaluation.Patience = evaluation.STOP_AFTER_NO_GAIN
    max_dataset_size: int | None = setting(
        "Maximum datasetSize that an update may claim.",
        Group.LIMITS,
        default=None,
        may_change=True,
        absent="no limit",
        ge=1,
    )
    """A limit keeps one client from buying the whole average."""
    max_update_bytes: int | None = setting(
        "Maximum size of an update: bytes, or with a unit (50MB). Set a limit where sites are not trusted.",
        Group.LIMITS,
        default=None,
        may_change=True,
        absent="no limit",
        ge=1,
    )
    max_update_norm: float | None = setting(
        "Maximum L2 norm of an update's change of the global model, over all float tensors and all integers that are "
        "no counters. Without --init-model, updates of round 1 have no limit, because there is no global model yet.",
        Group.LIMITS,
        default=None,
        may_change=True,
        absent="no limit",
        gt=0,
    )
    keep_rounds: int = store_settings.KEEP_ROUNDS
    keep_globals: store_settings.KeepGlobals = store_settings.KEEP_GLOBALS
    share_names: bool = setting(
        "Let sites read each other's names, numbers of examples and confusion matrices. Without this option, sites "
        "read sums only.",
        Group.LIMITS,
        default=False,
    )
    checkpoint: str = setting(
        "Kind of the clients' checkpoints: tensors (a state_dict), opaque (any file that your own aggregator reads), "
        "or a kind that a package adds.",
        Group.MODEL,
        default="tensors",
        metavar="KIND",
    )
    aggregator: str | None = setting(
        "Choose the aggregation rule by name, e.g. fedavg, median or krum:f=1; `flavor aggregators` lists all "
        "installed rules. `command` is your own aggregator, which `flavor-agg -m` starts.",
        Group.MODEL,
        default=None,
        metavar=RULE,
        absent="command where flavor-agg has one, else fedavg",
    )
    """A reducer, or a reducer and a server step under one name, with its options; or `COMMAND`."""
    server_step: str | None = setting(
        "Choose the optimizer step that updates the global model, e.g. nesterov:lr=0.7; `flavor aggregators` lists all "
        "installed steps.",
        Group.MODEL,
        default=None,
        metavar=RULE,
        absent="the aggregator's own",
    )
    weights: Literal["datasetSize", "importance", "product", "equal"] = setting(
        "Weight of a site in rules that weigh sites (mean, geometric_median): its number of examples, the importance "
        "that its script reports, the product of both, or the same weight for all sites.",
        Group.MODEL,
        default="datasetSize",
    )
    share: tensors.Patterns = tensors.SHARE
    local: tensors.Patterns = tensors.LOCAL
    keep: tensors.Patterns = tensors.KEEP
    equal: tensors.Patterns = tensors.EQUAL
    statistics: tensors.Patterns = tensors.STATISTICS
    """Edges do not round these tensors, either."""
    compress: Literal["none", "bf16", "int8"] = setting(
        "Encoding of updates from the second round on: float32 parameters (none), or their change in 16 bits (bf16) or "
        "8 bits (int8). int8 drops a change below 1/254 of the largest change in its block of 4,096 numbers.",
        Group.MODEL,
        default="none",
    )
    require_signatures: bool = setting(
        "Refuse unsigned updates from all clients. Without this option, they are refused only from clients whose key "
        "is known.",
        Group.LIMITS,
        default=False,
    )
    settings: Mapping[str, str] = setting(
        "Set an environment variable for every training script, e.g. LEARNING_RATE=0.01. May be repeated.",
        Group.SCRIPT,
        default=dict,
        metavar="NAME=VALUE",
        option="--set",
    )
    """See `flavor.script_settings`."""
    set_for: site_settings.SetFor = site_settings.SET_FOR
    queue: str = setting(
        "Name of the RQ queue that the aggregators work on.",
        Group.AGGREGATORS,
        default="flavor",
        may_change=True,
        variable="FLAVOR_QUEUE",
    )
    store: str = setting("URL of the object store, as the coordinator reaches it.", Group.STORE)
    signed_urls: bool = store_settings.SIGNED_URLS

    @field_validator("settings")
    @classmethod
    def _settings_may_be_set(cls, settings: Mapping[str, str]) -> Mapping[str, str]:
        return checked_settings(settings)

    @field_validator("checkpoint")
    @classmethod
    def _kind_is_there(cls, name: str, info: ValidationInfo) -> str:
        if info.context is _TO_SHOW:
            return name
        try:
            if info.context is _OF_RUN:
                check_kind_name(name)
                return name
            return kind_named(name).name
        except InvalidSetting as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _settings_go_together(self, info: ValidationInfo) -> Self:
        if isinstance(self.quorum, int) and self.quorum > self.min_clients:
            raise ValueError(f"quorum {self.quorum} is more than min_clients {self.min_clients}")
        rules = evaluation.ruled_by_sites(self) if info.context is None else []  # a run that is there keeps its own
        if self.signed_urls and (reason := why_unsigned(self.store)):
            raise ValueError(reason)
        if reason := evaluation.conflict_of(self) or mode_settings.conflict_of_mode(self, rules):
            raise ValueError(reason)
        if info.context is None and (
            reason := evaluation.conflict_of_names(self) or mode_settings.conflict_of_full_quorum(self)
        ):
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _rule_is_for_tensors(self, info: ValidationInfo) -> Self:
        if info.context is _TO_SHOW or info.context is _OF_RUN:  # the coordinator, which has the kind, has checked it
            return self
        if reason := conflict_of_rule(self, has_tensors=self.kind.has_tensors):
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
        """The kind of the run's checkpoints. Raises `InvalidSetting` where its package is not installed."""
        return kind_named(self.checkpoint)

    @property
    def parts(self) -> Parts:
        """Which tensors are shared."""
        return Parts(self.share, self.local)

    @property
    def buffered(self) -> Buffered | None:
        """The settings of updates that count in a later round; None in a run that is synchronous for all sites."""
        return Buffered.parse(self.mode)

    @property
    def longest_round_s(self) -> float:
        """The longest time that a round may wait for updates, in seconds after its opening."""
        return deadline_settings.longest_s_of(self.round_timeout_s)

    @property
    def needed(self) -> int:
        """Accepted updates with which a round of `min_clients` clients may close."""
        if (mode := self.buffered) is not None and mode.buffer is not None:
            return mode.buffer
        if self.quorum is None:
            return max(1, math.ceil(self.fraction * self.min_clients))
        return self.quorum if isinstance(self.quorum, int) else math.ceil(self.quorum * self.min_clients)

    def needed_of(self, expected: int) -> int:
        """Accepted updates with which a round of `expected` clients may close."""
        return math.ceil(self.quorum * expected) if isinstance(self.quorum, float) else min(self.needed, expected)

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of one setting."""
        return cls.model_fields[name].default

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The defaults of all settings that have one, as plain JSON values."""
        return {n: v for n, v in cls(rounds=1, store="-").every_setting().items() if n not in ("rounds", "store")}

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, context: object = None) -> RunConfig:
        """Make a configuration of plain values; `InvalidSetting` names each bad value as its option."""
        try:
            return cls.model_validate(dict(values), context=context)
        except ValidationError as error:
            raise InvalidSetting(explained(error)) from None

    @classmethod
    def of_run(cls, run: str, values: Mapping[str, Any], *, by: str = "") -> RunConfig:
        """The configuration of a run that is there, and was begun `by` a release of flavor.

        `InvalidSetting` names each setting that this release does not know: to leave one out is to do something else
        than the run asks for. A package's kind of checkpoints must be installed here, and is imported by `kind` alone.
        """
        cls.check_known(run, values, by=by)
        return cls.parse(values, context=_OF_RUN)

    @classmethod
    def check_known(cls, run: str, values: Mapping[str, Any], *, by: str = "") -> None:
        """Raise `InvalidSetting` that names each setting of a run that this release does not know; see `of_run`."""
        if unknown := sorted(values.keys() - cls.model_fields):
            told = ", ".join(f"{name[:80]} ({json.dumps(values[name])[:80]})" for name in unknown)
            begun = f"was begun by flavor {by} and " if by else ""
            raise InvalidSetting(
                f"run {run!r} {begun}has settings that {here()} does not know: {told}: install the coordinator's "
                "release here"
            )

    @classmethod
    def known(cls, values: Mapping[str, Any]) -> RunConfig:
        """Read a run's configuration to show the run, not to act on it.

        Leaves out settings that this release does not know, and accepts a kind of checkpoints whose package is not
        installed here: then only `kind` raises.
        """
        return cls.parse({name: value for name, value in values.items() if name in cls.model_fields}, context=_TO_SHOW)

    def every_setting(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        loaded: dict[str, Any] = json.loads(self.model_dump_json())
        return loaded

    def to_mapping(self) -> dict[str, Any]:
        """As plain JSON values, as a run keeps them: without the features (`flavor.protocol`) that are not in use.

        A release that lacks such a feature would refuse the name of its setting, and can do what the run asks for.
        """
        fields, every = type(self).model_fields, self.every_setting()
        unused = {name for name in FEATURES.keys() & fields if getattr(self, name) == fields[name].default}
        return {name: value for name, value in every.items() if name not in unused}
