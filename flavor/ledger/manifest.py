"""The records of a run in the store: how it began, and what each closed round was made of.

Each record is canonical JSON, so that it has one spelling. A manifest names the SHA-256 of the record before it, and
round 1 that of the run's record. So the records of a run are a chain: a change of one changes all later ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from flavor.errors import InvalidRecord
from flavor.ledger.canonical import canonical, sha256
from flavor.ledger.keys import PublicKey, SigningKey
from flavor.ledger.statement import Statement
from flavor.protocol import OLDEST, PROTOCOL, RECORDS, check_run, needs_in, release_of, spoken
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.signals import held

MOST_BYTES = 1 << 26
"""Largest record in bytes; a larger one is refused unread."""

Digest = Field(pattern=r"^[0-9a-f]{64}$")
RunId = Field(pattern=r"^[0-9a-f]{32}$")
DigestOrNone = Field(pattern=r"^([0-9a-f]{64})?$", default="")


class Strict(BaseModel):
    """A part of a record: frozen, without fields that this release does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Record(Strict):
    """A record of the store, which is canonical JSON."""

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read the record that was written as `data`.

        Raises `InvalidRecord` for other bytes, also for another spelling, and `OtherProtocol` for a record of another
        version.
        """
        try:
            values = json.loads(data)
            if isinstance(values, dict) and values.get("kind") == cls.model_fields["kind"].default:
                _check_version(values)
            record = cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
            raise InvalidRecord(f"{where}: not a record that this version reads: {problems}") from None
        except (ValueError, RecursionError) as error:
            raise InvalidRecord(f"{where}: not complete JSON: {error}") from None
        try:
            written = record.to_bytes()
        except (ValueError, RecursionError) as error:  # settings that are nested too deeply to be written
            raise InvalidRecord(f"{where}: not a record that can be written again: {error}") from None
        if written != data:
            raise InvalidRecord(f"{where}: not as it was written: spaces, the order of keys or spellings differ")
        return record

    def to_bytes(self) -> bytes:
        """Return the record's bytes in the store."""
        return canonical(self._plain())

    def _plain(self, *but: str) -> dict[str, Any]:
        """Return its fields as plain values. What a signal raises at this time is no error of the record."""
        with held():
            return self.model_dump(mode="json", exclude=set(but))

    @property
    def digest(self) -> str:
        """SHA-256 of the record's bytes, in hex."""
        return sha256(self.to_bytes())


def _check_version(values: Mapping[str, Any]) -> None:
    """Raise `OtherProtocol` for a record, as it was read, that this release does not read."""
    release, needs = release_of(values.get("release")), needs_in(values.get("needs"))
    check_run(str(values.get("run", "")), spoken(values.get("protocol")), release, needs)


class SignedRecord(Record):
    """A record with the signature of the worker that has made it."""

    public_key: str = ""
    """Public key of that worker."""
    signature: str = ""
    """Signature by that key on `message()`."""

    def message(self) -> bytes:
        """Return the signed bytes: those of the record without its signature."""
        return canonical(self._plain("signature"))

    def signed(self, key: SigningKey) -> Self:
        """Return the record with a worker's signature."""
        named = self.model_copy(update={"public_key": str(key.public), "signature": ""})
        return named.model_copy(update={"signature": key.sign(named.message())})

    def is_signed(self) -> bool:
        """Whether the signature is valid for `public_key`. Raises `InvalidSetting` for text that is no public key."""
        return PublicKey.parse(self.public_key).verifies(self.signature, self.message())


class Whole(Strict):
    """A whole initial model, of which a run shares a part."""

    path: str
    digest: str = Digest
    size_bytes: int = Field(ge=0)

    @property
    def object(self) -> ObjectRef:
        """The model's object."""
        return ObjectRef(self.path, self.digest, self.size_bytes)


class Model(Strict):
    """A global model with the objects beside it."""

    path: str
    digest: str = Digest
    size_bytes: int = Field(ge=0)
    format: str
    """The trainers' format, in which edges write the model."""
    info_path: str = ""
    """Path of the merged information; '' for a model without it."""
    info_digest: str = DigestOrNone
    state_path: str = ""
    """Path of the server state; '' for a server step without state."""
    state_digest: str = DigestOrNone
    tensors: int | None = Field(ge=1, default=None)
    """How many tensors it has, in a run that shares a part of the model; the JSON of other runs lacks the field."""
    whole: Whole | None = None
    """The whole initial model of such a run; the JSON of other models lacks the field."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_absent(handler(self), "tensors", "whole")

    @classmethod
    def of(cls, model: GlobalModel) -> Model:
        """Make the record without the seal, which is valid in this store at this time alone."""
        info, state, whole = model.info, model.state, model.whole
        return cls(
            path=model.model.path,
            digest=model.model.digest,
            size_bytes=model.size_bytes,
            format=model.format,
            info_path=info.path if info else "",
            info_digest=info.digest if info else "",
            state_path=state.path if state else "",
            state_digest=state.digest if state else "",
            tensors=model.tensors,
            whole=Whole(path=whole.path, digest=whole.digest, size_bytes=whole.size_bytes or 0) if whole else None,
        )

    @property
    def object(self) -> ObjectRef:
        """The model's object."""
        return ObjectRef(self.path, self.digest, self.size_bytes)

    @property
    def info(self) -> ObjectRef | None:
        """The object of the merged information; None for a model without it."""
        return ObjectRef(self.info_path, self.info_digest) if self.info_path else None

    @property
    def state(self) -> ObjectRef | None:
        """The object of the server state; None for a model without it."""
        return ObjectRef(self.state_path, self.state_digest) if self.state_path else None

    def to_global(self, seal: str) -> GlobalModel:
        """Return the model as a record of the bus."""
        return GlobalModel(
            self.object.sealed(seal),
            self.info,
            self.state,
            self.format,
            self.tensors,
            self.whole.object if self.whole else None,
        )

    def objects(self) -> list[ObjectRef]:
        """Return all objects of the model."""
        whole = self.whole.object if self.whole is not None else None
        return [ref for ref in (self.object, self.info, self.state, whole) if ref is not None]


class Contributor(Strict):
    """One client's part in a round."""

    client: str
    path: str
    """Path of its update, which is pruned after `--keep-rounds` rounds; its digest stays."""
    digest: str = Digest
    size_bytes: int = Field(ge=0)
    format: str
    num_examples: int
    info_path: str = ""
    """Path of its information, which is pruned with the update."""
    info_digest: str = DigestOrNone
    """SHA-256 of its information as it was handed in."""
    public_key: str = ""
    """`ed25519:HEX`; '' for an unsigned update."""
    signature: str = ""
    """Signature by that key on the update's `Statement`."""
    replaced: tuple[str, ...] = ()
    """Keys of this client that an operator has replaced in this run (`flavor enroll --new-key`), oldest first."""
    task_round: int | None = Field(ge=1, default=None)
    """The round whose task it has done, where that is an earlier one than the round that its update counts in.

    None in every other case: the JSON then lacks this field and `trained_from`, as that of synchronous runs does.
    """
    trained_from: str | None = Field(pattern=r"^[0-9a-f]{64}$", default=None)
    """SHA-256 of the global model that it got with the task of `task_round`."""
    local_steps: int | float | None = Field(gt=0, default=None)
    """The local steps that its information says, where the round's rule has divided by them (fednova).

    None in every other case: the JSON then lacks this field.
    """

    @model_validator(mode="after")
    def _is_stale_as_a_whole(self) -> Self:
        if (self.task_round is None) != (self.trained_from is None):
            raise ValueError("a task of an earlier round and the model of that task go together")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_absent(handler(self), "task_round", "trained_from", "local_steps")

    @classmethod
    def of(
        cls,
        client: str,
        update: Update,
        replaced: tuple[str, ...] = (),
        *,
        task_round: int | None = None,
        local_steps: float | None = None,
    ) -> Contributor:
        """Make the record of a client whose `update` was aggregated.

        `task_round` is the round of its task, where that is an earlier one; `update.base` is then that task's model.
        """
        return cls(
            client=client,
            path=update.object.path,
            digest=update.object.digest,
            size_bytes=update.size_bytes,
            format=update.format,
            num_examples=update.num_examples,
            info_path=update.info.path,
            info_digest=update.info.digest,
            public_key=update.public_key,
            signature=update.signature,
            replaced=replaced,
            task_round=task_round,
            trained_from=update.trained_from if task_round is not None else None,
            local_steps=local_steps,
        )

    def to_update(self) -> Update:
        """The update that was aggregated."""
        return Update(
            object=ObjectRef(self.path, self.digest, self.size_bytes),
            info=ObjectRef(self.info_path, self.info_digest),
            format=self.format,
            num_examples=self.num_examples,
            public_key=self.public_key,
            signature=self.signature,
        )


def without_absent(values: dict[str, Any], *absent: str) -> dict[str, Any]:
    """Return these values without those of `absent` that are None."""
    return {name: value for name, value in values.items() if name not in absent or value is not None}


class BegunFrom(Strict):
    """Where the weights come from with which a run began: the global model of another run."""

    run: str
    run_id: str
    round: int = Field(ge=1)
    digest: str = Digest
    """SHA-256 of that global model, as its manifest names it."""

    @property
    def words(self) -> str:
        """`the model of round 6 of run 'mammo' (SHA-256 0123456789ab…)`."""
        return f"the model of round {self.round} of run {self.run!r} (SHA-256 {self.digest[:12]}…)"


class RunRecord(Record):
    """How a run began: the chain's first link."""

    kind: Literal["flavor.run"] = "flavor.run"
    protocol: int = Field(ge=OLDEST, le=PROTOCOL, default=OLDEST)
    """The run's version of the protocol."""
    release: str | None = None
    """The release of flavor with which the run was begun; None in a run of protocol 2, whose JSON lacks the field."""
    needs: tuple[str, ...] | None = None
    """The features that the run needs, see `flavor.protocol`; None where there is none: the JSON then lacks the field.
    """
    run: str
    run_id: str = RunId
    """Unique id of the run."""
    rounds: int = Field(ge=1)
    config: dict[str, Any]
    initial: Model | None = None
    """The pre-trained weights, if there were any."""
    begun_from: BegunFrom | None = None
    """The run whose global model `initial` is (`--from-run`); None where there is none: the JSON then lacks it."""
    created_ms: int | None = None
    """When the run began, in milliseconds since 1970 by the server's clock.

    None in a record of an earlier release, whose JSON lacks the field.
    """

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_absent(handler(self), "created_ms", "begun_from", "release", "needs")


class Manifest(SignedRecord):
    """What one closed round was made of."""

    kind: Literal["flavor.round"] = "flavor.round"
    protocol: Literal[2] = RECORDS
    run: str
    run_id: str = RunId
    """Id of the run, as in its record."""
    round: int = Field(ge=1)
    attempt: int = Field(ge=1)
    """The number of the attempt that was committed."""
    config: dict[str, Any]
    opened_ms: int
    """Milliseconds since 1970, by the server's clock."""
    closed_ms: int
    """When the worker was about to commit, by the same clock."""
    pauses: tuple[tuple[int, int], ...] | None = Field(min_length=1, default=None)
    """For which times the run had ended before the round closed: from and to, by the same clock.

    None for a round without a pause: the JSON then lacks the field, as that of earlier releases does.
    """
    expected: tuple[str, ...]
    """The clients that got the round's task."""
    trained_from: str = DigestOrNone
    """SHA-256 of the global model that the clients got; '' for a round without one."""
    contributors: tuple[Contributor, ...] = Field(min_length=1)
    """The clients whose updates were aggregated, in the order of aggregation."""
    chosen: tuple[str, ...] | None = Field(min_length=1, default=None)
    """The contributors whose updates entered the model, where the rule (Krum, for example) left others out.

    None where the rule left no client out: the JSON then lacks the field, as that of earlier releases does.
    """
    global_model: Model
    previous: str = DigestOrNone
    """SHA-256 of the manifest of the round before; of the run's record in round 1."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_absent(handler(self), "chosen", "pauses")

    def statement(self, of: Contributor) -> Statement:
        """Return the statement that a contributor has signed: on the round of its task, and the model of that task."""
        update, run = of.to_update(), (self.run, self.run_id)
        base = self.trained_from if of.trained_from is None else of.trained_from
        return Statement.of(update, run=run, round_=self.task_round(of), client=of.client, trained_from=base)

    def task_round(self, of: Contributor) -> int:
        """Return the round whose task a contributor has done: this one, or an earlier one of an asynchronous run."""
        return self.round if of.task_round is None else of.task_round


def settings_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ, except the store, whose URL may differ by machine."""
    names = sorted({*one, *other} - {"store"})
    return [name for name in names if one.get(name) != other.get(name)]
