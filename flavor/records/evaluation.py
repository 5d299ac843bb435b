"""An evaluation: sites judge one model on their own data, and train nothing.

An evaluation belongs to the round that has made its model. `AUTOMATIC` is the one that the coordinator opens by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flavor.records.comparison import NOT_COMPARED, Comparison
from flavor.records.damage import damage_in, field_of, number, optional_of, table, texts
from flavor.records.lacking import Lacking, SomeSites, read_lacking
from flavor.records.model import GlobalModel
from flavor.records.names import count
from flavor.records.not_finite import read_words
from flavor.records.numbers import finite, whole
from flavor.records.objects import ObjectRef
from flavor.records.reporters import kept_reporters, read_reporters
from flavor.records.states import EvaluationState
from flavor.records.subject import OfModel, Subject
from flavor.records.summary import LONGEST_NAME, kept_metrics
from flavor.records.update import LONGEST_TRY, UNSAID, Refused

AUTOMATIC = 0
"""The number of the evaluation that the coordinator opens; those that somebody asks for have numbers from 1 on."""
CENTRAL = 999_999_999
"""The number of the evaluation of a model on the operator's own data, by a worker (`flavor-agg -e`)."""


class EvaluationKind(StrEnum):
    """Who has a model judged, and on which data."""

    SITES = "sites"
    """The coordinator, by the sites."""
    CENTRAL = "central"
    """The coordinator, on the operator's own data."""
    ASKED = "asked"
    """Somebody who has asked for it (`flavor evaluate`), by sites."""

    @classmethod
    def of(cls, number: int) -> EvaluationKind:
        """Return the kind of the evaluation of this number."""
        return {AUTOMATIC: cls.SITES, CENTRAL: cls.CENTRAL}.get(number, cls.ASKED)


MOST_METRICS = 20
"""Metrics of one site that its verdict keeps: the first ones."""
MOST_BYTES = 8192
"""The whole summary as JSON."""

RESULT_FIELDS = (
    *("info_path", "info_digest", "num_examples", "model", "public_key", "signature"),
    *("refused", "failure", "exit_code", "report", "try"),
)
"""The fields that are read from the hash of a result."""


@dataclass(frozen=True)
class EvaluationTask:
    """The task of one site in one evaluation, as `open_evaluation.lua` writes it."""

    round: int
    """The round that has made the model."""
    number: int
    model: GlobalModel
    deadline_ms: int
    """When the evaluation goes on without this site, by the clock of the Redis server."""

    @classmethod
    def from_hash(cls, round_: int, number_: int, fields: Mapping[str, str]) -> EvaluationTask | None:
        """Read the task's hash; None where the site has no task in this evaluation. Raises `DamagedRecord`."""
        model = GlobalModel.from_hash(fields) if fields else None
        if model is None:
            return None
        return cls(round_, number_, model, field_of(fields, "deadline_ms", number))


@dataclass(frozen=True)
class Result:
    """What a site has measured of a model. Read from Redis, no field of it is verified."""

    info: ObjectRef
    """Its info.json."""
    num_examples: int
    """`datasetSize` in its info.json; `UNSAID` for a missing number."""
    model: str
    """SHA-256 of the model that was judged."""
    public_key: str = ""
    """`ed25519:HEX`; '' for an unsigned result."""
    signature: str = ""
    """Signature by that key on the result's `EvaluationStatement` (`flavor.ledger.statement`)."""
    try_id: str = ""

    def to_hash(self) -> dict[str, str]:
        """The fields that its edge writes."""
        fields = {
            "info_path": self.info.path,
            "info_digest": self.info.digest,
            "num_examples": str(self.num_examples),
            "model": self.model,
            "try": self.try_id,
        }
        if self.signature:
            fields |= {"public_key": self.public_key, "signature": self.signature}
        return fields


def result_from_hash(fields: Mapping[str, str]) -> Result | Refused:
    """Read what a site has written, which may be anything."""
    try_id = fields.get("try", "")[:LONGEST_TRY]
    if "refused" in fields:
        return Refused(
            fields["refused"],
            fields.get("failure", ""),
            fields.get("exit_code", ""),
            fields.get("report"),
            try_id,
        )
    examples = count(fields.get("num_examples"))
    return Result(
        ObjectRef(fields.get("info_path", ""), fields.get("info_digest", "")),
        UNSAID if examples is None else examples,
        fields.get("model", ""),
        fields.get("public_key", ""),
        fields.get("signature", ""),
        try_id,
    )


def kept_words(words: Mapping[str, str]) -> dict[str, str]:
    """Return the first of a site's metrics without a finite value, as many as a verdict keeps; no long names."""
    return dict([(name, word) for name, word in words.items() if len(name) <= LONGEST_NAME][:MOST_METRICS])


@dataclass(frozen=True)
class ResultVerdict:
    """What became of one site's result."""

    accepted: bool
    reason: str
    result: Result | None = None
    """The inspected result; None for one that was refused."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The first finite metrics of the site, in the order of `first_names`."""
    not_finite: Mapping[str, str] = field(default_factory=dict)
    """The first metrics that the site reports without a finite value; see `flavor.records.not_finite.without_value`."""
    is_cut: bool = False
    """Whether the site reports finite metrics that are not among `metrics`."""
    are_words_cut: bool = False
    """Whether it reports metrics without a finite value that are not among `not_finite`."""
    unread: str = ""
    """Why the site's metrics are not known, in a run that was rebuilt; '' where they are."""

    def to_json(self) -> str:
        """Write it as it stands in Redis."""
        fields: dict[str, Any] = {"accepted": self.accepted, "reason": self.reason}
        if self.result is not None:
            fields |= {**self.result.to_hash(), "num_examples": self.result.num_examples}
            fields["metrics"] = dict(self.metrics)
            if self.not_finite:
                fields["not_finite"] = dict(self.not_finite)
            if self.is_cut or len(self.metrics) >= MOST_METRICS:
                fields["cut"] = self.is_cut
            if self.are_words_cut or len(self.not_finite) >= MOST_METRICS:
                fields["words_cut"] = self.are_words_cut
            if self.unread:
                fields["unread"] = self.unread
        return json.dumps(fields, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ResultVerdict:
        """Read what stands in Redis. Raises `DamagedRecord`."""
        with damage_in("verdict on a result"):
            fields = table(text)
            result = None
            if fields.get("info_path"):
                examples = fields["num_examples"]
                if type(examples) is not int:
                    raise ValueError("its num_examples is of another type")
                named = {name: str(fields.get(name, "")) for name in ("model", "public_key", "signature")}
                info = ObjectRef(str(fields["info_path"]), str(fields.get("info_digest", "")))
                result = Result(info, examples, **named, try_id=str(fields.get("try", "")))
            metrics = kept_metrics(fields.get("metrics") or {}, MOST_METRICS)
            words = kept_words(read_words(fields.get("not_finite")))
            return cls(
                accepted=bool(fields["accepted"]),
                reason=str(fields["reason"]),
                result=result,
                metrics=metrics,
                not_finite=words,
                is_cut=bool(fields.get("cut", len(metrics) >= MOST_METRICS)),  # an earlier release does not say it
                are_words_cut=bool(fields.get("words_cut", len(words) >= MOST_METRICS)),
                unread=str(fields.get("unread", "")),
            )


@dataclass(frozen=True)
class EvaluationView(OfModel):
    """An evaluation's hash and its verdicts, read."""

    round: int
    number: int
    state: EvaluationState
    model: GlobalModel
    expected: tuple[str, ...]
    skipped: tuple[str, ...]
    """Sites that were there and have no evaluator."""
    opened_ms: int
    deadline_ms: int
    attempt: int = 0
    merging_ms: int = 0
    """When the current attempt to merge was put into the queue."""
    closed_ms: int | None = None
    reason: str = ""
    error: str = ""
    """What went wrong in the current attempt to merge; '' for nothing."""
    of: Subject | None = None
    """Which model it is; None for that of the round."""
    is_hopeless: bool = False
    """Whether another attempt would go wrong as well: no site has a result that counts."""
    is_unneeded: bool = False
    """Whether it was given up because its result was not needed any more, as that of a run that ends."""
    training: tuple[str, ...] = ()
    """Sites with an evaluator that were not asked, because they trained on in an asynchronous run."""
    info: ObjectRef | None = None
    """The merged information."""
    manifest: ObjectRef | None = None
    verdicts: Mapping[str, ResultVerdict] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """What reasons call the model."""
        return self.subject.named(self.model.model.digest)

    @property
    def is_central(self) -> bool:
        """Whether a worker judges the model on the operator's own data; it has no sites then."""
        return self.number == CENTRAL

    @property
    def is_over(self) -> bool:
        """Whether it has a result, or was given up."""
        return self.state in (EvaluationState.CLOSED, EvaluationState.FAILED)

    @property
    def is_complete(self) -> bool:
        """Whether the result of each site that was to judge the model counts."""
        return len(self.accepted) == len(self.expected)

    @property
    def accepted(self) -> dict[str, ResultVerdict]:
        """The results that count, by site."""
        return {client: each for client, each in self.verdicts.items() if each.accepted}

    @classmethod
    def from_hash(
        cls, round_: int, number_: int, fields: Mapping[str, str], verdicts: Mapping[str, str]
    ) -> EvaluationView:
        """Read the hashes' fields. Raises `DamagedRecord`."""
        model = GlobalModel.from_hash(fields)
        with damage_in("evaluation"):
            if model is None:
                raise ValueError("it names no model")
        return cls(
            round=round_,
            number=number_,
            state=field_of(fields, "state", EvaluationState),
            model=model,
            expected=field_of(fields, "expected", texts),
            skipped=field_of(fields, "skipped", texts, "[]"),
            opened_ms=field_of(fields, "opened_ms", number),
            deadline_ms=field_of(fields, "deadline_ms", number),
            attempt=field_of(fields, "attempt", number, "0"),
            merging_ms=field_of(fields, "merging_ms", number, "0"),
            closed_ms=optional_of(fields, "closed_ms", number),
            reason=fields.get("reason", ""),
            error=fields.get("error", ""),
            of=Subject.of_hash(fields, round_),
            is_hopeless=fields.get("hopeless") == "1",
            is_unneeded=fields.get("unneeded") == "1",
            training=field_of(fields, "training", texts, "[]"),
            info=ObjectRef.from_hash(fields, "merged_"),
            manifest=ObjectRef.from_hash(fields, "manifest_"),
            verdicts={client: field_of(verdicts, client, ResultVerdict.from_json) for client in verdicts},
        )


@dataclass(frozen=True)
class BestModel:
    """The best evaluated model of a run so far, by its `--select`."""

    round: int
    value: float
    sites: int
    """Number of sites that report the metric."""

    def to_hash(self) -> dict[str, str]:
        """The fields of the run's hash."""
        return {"best_round": str(self.round), "best_value": repr(self.value), "best_sites": str(self.sites)}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> BestModel | None:
        """Read the fields of the run's hash; None where no model is the best. Raises `DamagedRecord`."""
        if "best_round" not in fields:
            return None
        value = field_of(fields, "best_value", float)
        with damage_in("best_value"):
            if finite(value) is None:
                raise ValueError(f"{value} is no finite number")
        return cls(field_of(fields, "best_round", number), value, field_of(fields, "best_sites", number))


@dataclass(frozen=True)
class EvaluationSummary(OfModel):
    """One closed evaluation in numbers, kept for as long as the run is in Redis. It is not signed: its manifest is."""

    round: int
    number: int
    opened_ms: int
    closed_ms: int = 0
    sites: int = 0
    """Number of sites whose results count; 1 for `CENTRAL`, whose data counts as one site."""
    expected: int = 0
    examples: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The merged metrics by their names in the merged information."""
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest value over the sites, by metric."""
    few: Mapping[str, int] = field(default_factory=dict)
    """Number of sites that report a metric, for those that not all report."""
    reporters: Mapping[str, str] = field(default_factory=dict)
    """Who reports a metric, as digests; see `flavor.records.reporters`. Empty where that is not known."""
    best_before: int = 0
    """The round of the best model by `--select` with which this one was compared; 0 where it was not."""
    comparison: Comparison = NOT_COMPARED
    """How its model compares with that one."""
    lacking: Mapping[str, Lacking] = field(default_factory=dict)
    """Who lacks the metrics of the run's rules, by their names without `(weighted)`. Others are not in it."""
    missing: SomeSites = field(default_factory=SomeSites)
    """The expected sites without a result that counts; of an earlier release only their number is known."""
    of: Subject | None = None
    """Which model it is; None for that of the round."""

    def to_json(self) -> str:
        """Write it without `closed_ms`, which the script that closes the evaluation puts before it."""
        metrics = dict(self.metrics)
        while True:
            fields: dict[str, Any] = {
                "round": self.round,
                "number": self.number,
                "opened_ms": self.opened_ms,
                "sites": self.sites,
                "expected": self.expected,
                "examples": self.examples,
                "metrics": metrics,
                "spread": {name: list(both) for name, both in self.spread.items() if name in metrics},
                "few": {name: several for name, several in self.few.items() if name in metrics},
                "reporters": kept_reporters(self.reporters, self.few.keys() & metrics.keys()),
                **({"lacking": {name: of.to_plain() for name, of in self.lacking.items()}} if self.lacking else {}),
                **({"missing": self.missing.to_plain()} if self.missing.count else {}),
                **({"subject": self.of.to_plain()} if self.of is not None else {}),
            }
            if self.best_before:
                fields |= {"best_before": self.best_before, **self.comparison.to_plain()}
            text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
            if len(text) <= MOST_BYTES or not metrics:
                return text
            metrics.popitem()

    def closed_at(self, closed_ms: int) -> str:
        """Return the JSON of the evaluation that was closed then, as `commit_evaluation.lua` writes it."""
        return f'{{"closed_ms":{closed_ms},{self.to_json()[1:]}'

    @classmethod
    def from_json(cls, text: str) -> EvaluationSummary:
        """Read what stands in Redis. Raises `DamagedRecord`."""
        with damage_in("summary of an evaluation"):
            fields = table(text)
            numbers = {name: whole(fields.get(name)) for name in ("round", "number", "opened_ms", "closed_ms")}
            optional = ("sites", "expected", "examples", "best_before")
            numbers |= {name: whole(fields.get(name, 0)) for name in optional}
            return cls(
                **numbers,
                metrics=kept_metrics(fields.get("metrics") or {}),
                spread={
                    name: (low, high)
                    for name, (lowest, highest) in (fields.get("spread") or {}).items()
                    if (low := finite(lowest)) is not None and (high := finite(highest)) is not None
                },
                few={str(name): whole(several) for name, several in (fields.get("few") or {}).items()},
                reporters=read_reporters(fields.get("reporters")),
                comparison=Comparison.of_plain(fields),
                missing=SomeSites.of_plain(fields.get("missing", ((), 0))),
                lacking=read_lacking(fields.get("lacking")),
                of=Subject.of_fields(fields, numbers["round"]),
            )
