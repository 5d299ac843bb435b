"""States of a run, a round and a client, and what one reads of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from flavor.protocol import PROTOCOL, spoken

_LONGEST_REASON = 10_000
"""Characters of a run's reason that are read: sites print it."""


class RunState(StrEnum):
    """Where a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def ended(self) -> bool:
        """Whether nothing moves any more."""
        return self not in (RunState.WAITING, RunState.RUNNING)


class RoundState(StrEnum):
    """Where a round is: open -> aggregating -> closed, or failed."""

    OPEN = "open"
    AGGREGATING = "aggregating"
    CLOSED = "closed"
    FAILED = "failed"


class ClientState(StrEnum):
    """Where a client is, as its edge reports it."""

    JOINED = "joined"
    """The edge is there; its trainer is not ready yet."""
    READY = "ready"
    """The trainer has set TrainInitDone."""
    LEFT = "left"
    """The trainer ended by itself, successfully."""
    FAILED = "failed"
    """The trainer or its edge ended badly."""
    STOPPED = "stopped"
    """Its edge was stopped by a signal: it is awaited for a lease time, as one that crashed."""
    REVOKED = "revoked"
    """`flavor revoke` has cut it off."""

    @property
    def gone(self) -> bool:
        """Whether nothing more will come from this client."""
        return self in (ClientState.LEFT, ClientState.FAILED, ClientState.REVOKED)


@dataclass(frozen=True)
class GlobalModel:
    """The global checkpoint of a round: where it is, and what it must be."""

    path: str
    digest: str
    size_bytes: int
    info_path: str = ""
    format: str = ""
    seal: str = ""
    state_path: str = ""
    """The server step's state after this round, for a step that remembers; beside the model in the store."""
    state_digest: str = ""
    info_digest: str = ""

    def fields(self) -> dict[str, str]:
        """As fields of the run's hash or of a task."""
        return {
            "global_path": self.path,
            "global_digest": self.digest,
            "global_size": str(self.size_bytes),
            "global_seal": self.seal,
            "info_path": self.info_path,
            "format": self.format,
            "state_path": self.state_path,
            "state_digest": self.state_digest,
            "info_digest": self.info_digest,
        }

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> GlobalModel | None:
        """From such fields; None when there is no global model yet."""
        if not fields.get("global_path"):
            return None
        return cls(
            fields["global_path"],
            fields["global_digest"],
            int(fields["global_size"]),
            fields.get("info_path", ""),
            fields.get("format", ""),
            fields.get("global_seal", ""),
            fields.get("state_path", ""),
            fields.get("state_digest", ""),
            fields.get("info_digest", ""),
        )


@dataclass(frozen=True)
class ManifestRef:
    """Where the manifest of a round was staged, and its SHA-256."""

    path: str
    digest: str

    def fields(self) -> dict[str, str]:
        """As fields of the run's hash or of a round's."""
        return {"manifest_path": self.path, "manifest_digest": self.digest}

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> ManifestRef | None:
        """From such fields; None where there is none."""
        return cls(fields["manifest_path"], fields["manifest_digest"]) if fields.get("manifest_digest") else None


@dataclass(frozen=True)
class RunView:
    """A run's hash, read."""

    run: str
    state: RunState
    round: int
    rounds: int
    config: Mapping[str, Any]
    reason: str
    global_model: GlobalModel | None
    created_ms: int
    ended_ms: int | None
    manifest: ManifestRef | None = None
    """Of the newest closed round; before the first, the run's record in the store."""
    recovered_ms: int = 0
    """When the run was rebuilt from the store, if it was."""
    recovered_round: int = 0
    """The newest closed round at that time."""
    run_id: str = ""
    """32 hexadecimal digits that no other run has, of this name or another; '' in a run of protocol 1."""
    protocol: int = PROTOCOL
    """The version of the protocol that the run is held in; 0 where none is named."""
    changed: tuple[str, ...] = ()
    """The settings that `flavor resume` has changed since the run began."""
    resumed_ms: int = 0
    """When the run was resumed last, if it was."""
    resumed_round: int | None = None
    """The newest closed round when the run was resumed last, if it was."""

    @property
    def incarnation(self) -> tuple[str, int, int]:
        """Differs between a run and what took its place under the same name."""
        return self.run_id, self.created_ms, self.recovered_ms

    @classmethod
    def of(cls, run: str, fields: Mapping[str, str]) -> RunView:
        """From the hash's fields."""
        return cls(
            run=run,
            state=RunState(fields["state"]),
            round=int(fields["round"]),
            rounds=int(fields["rounds"]),
            config=json.loads(fields["config"]),
            reason=fields.get("reason", "")[:_LONGEST_REASON],
            global_model=GlobalModel.of(fields),
            created_ms=int(fields.get("created_ms", 0)),
            ended_ms=int(fields["ended_ms"]) if "ended_ms" in fields else None,
            manifest=ManifestRef.of(fields),
            recovered_ms=int(fields.get("recovered_ms", 0)),
            recovered_round=int(fields.get("recovered_round", 0)),
            run_id=fields.get("run_id", ""),
            protocol=spoken(fields.get("protocol")),
            changed=tuple(json.loads(fields.get("changed", "[]"))),
            resumed_ms=int(fields.get("resumed_ms", 0)),
            resumed_round=int(fields["resumed_round"]) if "resumed_round" in fields else None,
        )


def try_of(update: Mapping[str, str]) -> str:
    """Which of a client's tries in a round an update is, by its fields."""
    return update.get("try", "")[:64]


@dataclass(frozen=True)
class Verdict:
    """What the inspection of one update found.

    `path`, `digest`, `size_bytes` and `seal` are what was inspected, so that nothing the edge writes later can change
    what is aggregated.
    """

    accepted: bool
    reason: str
    path: str = ""
    digest: str = ""
    size_bytes: int = 0
    seal: str = ""
    format: str = ""
    num_examples: int = 0
    """`datasetSize` in its information."""
    info_path: str = ""
    info_digest: str = ""
    """SHA-256 of the information as it was handed in."""
    constants: Sequence[str] = ()
    """Its tensors that may hold infinities, as masks do: those that are the same in the model and at every site."""
    blameless: bool = False
    """Whether it was refused for what is not its client's fault."""
    public_key: str = ""
    """What its signature was checked with; '' for an unsigned update."""
    signature: str = ""
    try_id: str = ""
    """Which of the client's tries in this round it is about: `try` of the update that was judged."""
    structure: str = ""
    """A digest of the tensors' names, shapes and dtypes, in a first round that starts from no model."""
    unread: bool = False
    """Whether its edge says that the trainer did not read the global model."""

    def is_about(self, fields: Mapping[str, str]) -> bool:
        """Whether an update with these fields is answered: by an acceptance every one, by a refusal that try alone."""
        return self.accepted or self.try_id == try_of(fields)

    def to_json(self) -> str:
        """As it stands in Redis."""
        return json.dumps(self.__dict__, separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> Verdict:
        """From Redis."""
        fields = json.loads(text)
        return cls(**{**fields, "constants": tuple(fields.get("constants", ()))})


class Refusal(NamedTuple):
    """What was accepted and counts no more."""

    client: str
    verdict: Verdict
    is_fault: bool
    """Whether its update is to blame, and not its store."""


@dataclass(frozen=True)
class Reference:
    """An update whose structure the others of its round must have."""

    path: str
    digest: str
    size_bytes: int | None = None
    """None in a round that an older release has opened."""
    structure: str = ""
    """The digest of its structure: the object itself, which its site may spoil, only serves to say what differs."""

    def __str__(self) -> str:
        """As it stands in the round's hash."""
        return f"{self.path} {self.digest} {self.size_bytes} {self.structure}".rstrip()

    @classmethod
    def of(cls, text: str) -> Reference:
        """From there."""
        path, digest, *more = text.split(" ")
        return cls(path, digest, int(more[0]) if more else None, *more[1:2])


@dataclass(frozen=True)
class RoundView:
    """A round's hash and its verdicts, read."""

    round: int
    state: RoundState
    expected: tuple[str, ...]
    contributors: tuple[str, ...]
    opened_ms: int
    deadline_ms: int
    closed_ms: int | None
    attempt: int
    lease_ms: int | None
    reason: str
    error: str | None
    path: str
    digest: str
    size_bytes: int
    info_path: str
    verdicts: Mapping[str, Verdict]
    openings: int = 1
    """How often it was opened: more than once after its quorum was lost."""
    left_out: tuple[str, ...] = ()
    """Clients that had a task in an earlier opening, and are not expected any more."""
    manifest: ManifestRef | None = None
    resumed: bool = False
    """Whether it was open when the run ended, and `flavor resume` has opened it again: its sites may be on the way."""
    reference: Reference | None = None
    """The update whose structure the round's updates must have, once that is decided, in a round without a model."""
    waits: int = 0
    """Attempts that ended because of what passes by itself, such as a full store, or of a site's update that is left
    out of the next one: they count for none."""
    passing_ms: int | None = None
    """When the last attempt ended so; None when it did not."""
    notes: tuple[str, ...] = ()
    """What its aggregation noticed, for the operator: a line each."""
    away_ms: int | None = None
    """When an inspection ended so last, while the round was open."""
    spoiled: tuple[str, ...] = ()
    """Contributors whose objects were no longer what was inspected when the last attempt read them."""
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Those of them whose updates are to blame, as they cannot be used with the others; and the reason."""
    info_digest: str = ""

    @classmethod
    def of(cls, round_: int, fields: Mapping[str, str], verdicts: Mapping[str, str]) -> RoundView:
        """From the hashes' fields."""
        return cls(
            round=round_,
            state=RoundState(fields["state"]),
            expected=tuple(json.loads(fields["expected"])),
            contributors=tuple(json.loads(fields.get("contributors", "[]"))),
            opened_ms=int(fields["opened_ms"]),
            deadline_ms=int(fields["deadline_ms"]),
            closed_ms=int(fields["closed_ms"]) if "closed_ms" in fields else None,
            attempt=int(fields["attempt"]),
            lease_ms=int(fields["lease_ms"]) if "lease_ms" in fields else None,
            reason=fields.get("reason", ""),
            error=fields.get("error"),
            path=fields.get("path", ""),
            digest=fields.get("digest", ""),
            spoiled=tuple(json.loads(fields.get("spoiled", "[]"))),
            unfit=json.loads(fields.get("unfit", "{}")),
            size_bytes=int(fields.get("size", 0)),
            info_path=fields.get("info_path", ""),
            info_digest=fields.get("info_digest", ""),
            verdicts={client: Verdict.of(text) for client, text in verdicts.items()},
            openings=int(fields.get("openings", 1)),
            left_out=tuple(json.loads(fields.get("left_out", "[]"))),
            resumed=fields.get("resumed") == "1",
            reference=Reference.of(fields["reference"]) if "reference" in fields else None,
            waits=int(fields.get("waits", 0)),
            passing_ms=int(fields["passing_ms"]) if "passing_ms" in fields else None,
            away_ms=int(fields["away_ms"]) if "away_ms" in fields else None,
            manifest=ManifestRef.of(fields),
            notes=tuple(json.loads(fields.get("notes", "[]"))),
        )
