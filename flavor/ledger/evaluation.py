"""The record of an evaluation in the store: who measured what, on which model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from flavor.errors import InvalidRecord, ObjectMissing
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.manifest import Digest, DigestOrNone, RunId, SignedRecord, Strict, without_absent
from flavor.ledger.statement import EvaluationStatement
from flavor.protocol import RECORDS
from flavor.records.evaluation import CENTRAL, Result
from flavor.records.names import is_name
from flavor.records.objects import ObjectRef
from flavor.records.subject import OF_SITES, Subject, SubjectKind
from flavor.store.paths import evaluation_prefix, named


class JudgeRecord(Strict):
    """One site's part in an evaluation."""

    client: str
    num_examples: int
    info_path: str
    """Path of its information, as an aggregator has taken it."""
    info_digest: str = Digest
    """SHA-256 of its information as it was handed in."""
    public_key: str = ""
    signature: str = ""
    """Signature by that key on the result's `EvaluationStatement`."""
    replaced: tuple[str, ...] | None = Field(min_length=1, default=None)
    """Keys of this site that an operator has replaced in this run (`flavor enroll --new-key`), oldest first.

    None where there are none: the JSON then lacks the field, as that of earlier releases does.
    """

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_absent(handler(self), "replaced")

    @property
    def info(self) -> ObjectRef:
        """Its information."""
        return ObjectRef(self.info_path, self.info_digest)

    @classmethod
    def of(cls, client: str, result: Result, replaced: tuple[str, ...] = ()) -> JudgeRecord:
        """Make the record of a site whose result counts."""
        return cls(
            client=client,
            num_examples=result.num_examples,
            info_path=result.info.path,
            info_digest=result.info.digest,
            public_key=result.public_key,
            signature=result.signature,
            replaced=replaced or None,
        )


class JudgedSubject(Strict):
    """Which model an evaluation has judged, where the round alone does not say it."""

    kind: Literal[SubjectKind.OUTSIDE, SubjectKind.UPDATE, SubjectKind.WITHOUT, SubjectKind.WHOLE]
    round: int = Field(ge=0)
    site: str

    @classmethod
    def of(cls, subject: Subject) -> JudgedSubject | None:
        """Make the record of it; None for the global model of a round, and where it is not known."""
        if subject.kind in (SubjectKind.GLOBAL, SubjectKind.UNKNOWN):
            return None
        return cls(**subject.to_plain())

    @model_validator(mode="after")
    def _has_a_site(self) -> JudgedSubject:
        """Refuse an update without its round and site, and a model from outside that has them."""
        has_round, has_site = self.kind is not SubjectKind.OUTSIDE, self.kind in OF_SITES
        if (self.round > 0, is_name(self.site), bool(self.site)) != (has_round, has_site, has_site):
            raise ValueError("it has to name a round and a site where it is of one, and no other")
        return self


class EvaluationManifest(SignedRecord):
    """What the result of one evaluation was made of."""

    kind: Literal["flavor.evaluation"] = "flavor.evaluation"
    protocol: Literal[2] = RECORDS
    run: str
    run_id: str = RunId
    round: int = Field(ge=0)
    """The round that has made the model; 0 for a model that no round has made."""
    evaluation: int = Field(ge=0)
    subject: JudgedSubject | None = None
    """Which model it is, where no round has made it, or where it is judged beside those without a site.

    None for that of the round otherwise, and in records of an earlier release: the JSON then lacks the field.
    """
    model_path: str
    model_digest: str = Digest
    opened_ms: int
    closed_ms: int
    expected: tuple[str, ...]
    judges: tuple[JudgeRecord, ...]
    missing: dict[str, str]
    """Sites whose result does not count, and why."""
    away: tuple[str, ...] | None = Field(min_length=1, default=None)
    """Sites that were not asked, and have a part in a metric of the run's rules, as they were not revoked.

    None where there are none: the JSON then lacks the field.
    """
    training: tuple[str, ...] | None = Field(min_length=1, default=None)
    """Sites with an evaluator that were not asked, because they trained on in an asynchronous run.

    None where there are none: the JSON then lacks the field.
    """
    central: int | None = Field(ge=0, default=None)
    """Number of examples of the operator's own data, on which the worker has judged the model; None where sites did."""
    best_round: int = Field(ge=0, default=0)
    """The round whose model is the best after this evaluation; 0 for a run that selects none (`--select`)."""
    merged_path: str
    merged_digest: str = DigestOrNone

    @model_validator(mode="after")
    def _is_by_sites_or_central(self) -> EvaluationManifest:
        """Refuse a record that names no judges, or both sites and the operator."""
        is_central = self.central is not None
        if is_central != (self.evaluation == CENTRAL) or is_central == bool(self.judges):
            raise ValueError("it has to name the sites that have judged the model, or be of the operator's own data")
        if self.subject is not None and self.round != Subject(self.subject.kind, self.subject.round).made_by:
            raise ValueError("it is of the model of a round, and names another one")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_absent(handler(self), "subject", "away", "training")

    @property
    def judged(self) -> Subject | None:
        """Which model it is; None for that of the round."""
        if self.subject is not None:
            return Subject(self.subject.kind, self.subject.round, self.subject.site)
        return None if self.round else Subject(SubjectKind.UNKNOWN)

    @property
    def counts(self) -> bool:
        """See `Subject`."""
        return self.judged is None or self.judged.counts

    def statement(self, of: JudgeRecord) -> EvaluationStatement:
        """Return the statement that a site has signed."""
        return EvaluationStatement(
            run=self.run,
            run_id=self.run_id,
            round=self.round,
            evaluation=self.evaluation,
            client=of.client,
            model=self.model_digest,
            num_examples=of.num_examples,
            info_digest=of.info_digest,
        )


def put_manifest(archive: Archive, manifest: EvaluationManifest) -> ObjectRef:
    """Put the manifest of an evaluation into the store, before the evaluation is committed."""
    data = manifest.to_bytes()
    return archive.put(manifest_ref(manifest.run, manifest.round, manifest.evaluation, sha256(data)).path, data)


def manifest_ref(run: str, round_: int, number: int, digest: str) -> ObjectRef:
    """Return where the manifest of an evaluation with this digest lies in the store."""
    return ObjectRef(named(evaluation_prefix(run, round_, number), "manifest", digest, ".json"), digest)


def read_manifest(archive: Archive, ref: ObjectRef) -> EvaluationManifest:
    """Return the manifest that Redis names. Raises `ObjectMissing`, and `InvalidRecord` for other bytes."""
    data = archive.read(ref.path)
    if data is None:
        raise ObjectMissing(f"object {ref.path} is not in the store {archive.store.url}")
    if sha256(data) != ref.digest:
        raise InvalidRecord(f"{ref.path}: not the manifest that was committed: it was changed in the store")
    return EvaluationManifest.parse(data, ref.path)
