"""A round, as its hashes in Redis describe it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flavor.records.damage import (
    damage_in,
    field_of,
    number,
    numbers_by_name,
    optional_of,
    texts,
    texts_by_name,
)
from flavor.records.objects import ObjectRef
from flavor.records.states import RoundState
from flavor.records.update import Update
from flavor.records.verdict import OfModel, Verdict

Pause = tuple[int, int]
"""When the run ended and when it was resumed, in milliseconds since 1970 by the clock of the server."""
_MOST_NAMED = 20


def paused_ms(pauses: Iterable[Pause]) -> int:
    """Return the length of pauses together, in milliseconds."""
    return sum(max(0, to_ms - from_ms) for from_ms, to_ms in pauses)


def pauses_of(text: str) -> tuple[Pause, ...]:
    """Read the pauses of a round. Raises `ValueError` for anything else."""
    found = json.loads(text)
    if not isinstance(found, list) or not all(
        isinstance(each, list) and len(each) == 2 and all(type(ms) is int and ms >= 0 for ms in each) for each in found
    ):
        raise ValueError(f"{text[:40]!r} is no list of pauses")
    return tuple((from_ms, to_ms) for from_ms, to_ms in found)


def in_model(chosen: Sequence[str] | None) -> str:
    """The end of a closed round's reason, which names the clients that the rule chose; empty where it left none out."""
    if not chosen:
        return ""
    more = f" and {len(chosen) - _MOST_NAMED} more" if len(chosen) > _MOST_NAMED else ""
    return f"; in the model: {', '.join(chosen[:_MOST_NAMED])}{more}"


@dataclass(frozen=True)
class Reference:
    """An update whose structure the others of its round must have."""

    object: ObjectRef
    """Its size is None in a round that an older release has opened."""
    structure: str = ""
    """The digest of its structure: the object itself, which its site may spoil, only serves to say what differs."""

    def to_text(self) -> str:
        """Write it as it stands in the round's hash."""
        ref = self.object
        return f"{ref.path} {ref.digest} {ref.size_bytes} {self.structure}".rstrip()

    @classmethod
    def from_text(cls, text: str) -> Reference:
        """Read what stands there. Raises `DamagedRecord`."""
        with damage_in("reference"):
            path, digest, *more = text.split(" ")
            return cls(ObjectRef(path, digest, number(more[0]) if more else None), *more[1:2])


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
    verdicts: Mapping[str, Verdict]
    model: ObjectRef | None = None
    """The global model that it has made, once it is closed."""
    info: ObjectRef | None = None
    """The merged information beside it; an earlier release has left out its digest."""
    openings: int = 1
    """How often it was opened since it began, or since `flavor resume`: again after its quorum was lost."""
    left_out: tuple[str, ...] = ()
    """Clients that had a task in an earlier opening, and are not expected any more."""
    manifest: ObjectRef | None = None
    resumed: bool = False
    """Whether it was open when the run ended, and `flavor resume` has opened it again: its sites may be on the way."""
    pauses: tuple[Pause, ...] = ()
    """For which times the run had ended while the round was not closed, oldest first. No site can work then."""
    earlier_openings: int = 0
    """How often it was opened before `flavor resume`, which counts `openings` from 1 again."""
    earlier_attempts: int = 0
    """How many attempts to aggregate it had before `flavor resume`."""
    reference: Reference | None = None
    """The update whose structure the round's updates must have, once that is decided, in a round without a model."""
    waits: int = 0
    """Attempts that ended because of what passes by itself, such as a full store, or of a site's update that is left
    out of the next one: they count for none."""
    passing_ms: int | None = None
    """When the last attempt ended so; None when it did not."""
    is_hopeless: bool = False
    """Whether each other attempt would end as the last one."""
    chosen: tuple[str, ...] = ()
    """The contributors whose updates entered the model, where the rule left others out; empty where it did not."""
    notes: tuple[str, ...] = ()
    """What its aggregation noticed, for the operator: a line each."""
    told: tuple[str, ...] = ()
    """The causes of such lines that are told once in a run, of this round and of those before."""
    made_by: str = ""
    """What has made its model: `rules`, or `command` for a user's own aggregator; '' where that is not known."""
    aggregating_ms: int | None = None
    """When its aggregation began last, with attempt 1; None before that, and in a round of an earlier release."""
    away_ms: int | None = None
    """When an inspection ended so last, while the round was open."""
    spoiled: tuple[str, ...] = ()
    """Contributors whose objects were no longer what was inspected when the last attempt read them."""
    is_buffered: bool = False
    """Whether it closes with the first few updates, so that some clients go on with the task of an earlier round."""
    since: Mapping[str, int] = field(default_factory=dict)
    """The clients that do so, and the round of each one's task; all others that are expected have this round's task."""
    missed: Mapping[str, int] = field(default_factory=dict)
    """How many rounds in a row, up to the one before, a client has missed the deadline of; lacks clients without one.
    Counted where deadlines are learned, and where slow sites run asynchronously."""
    outdated: Mapping[str, int] = field(default_factory=dict)
    """How many tasks in a row of a client were given up as too old, up to the opening of this round; lacks clients
    without one. Counted in asynchronous rounds."""
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Those of the spoiled whose updates are to blame, as they cannot be used with the others; and the reason."""
    blameless: Mapping[str, str] = field(default_factory=dict)
    """Those of them that are not at fault, as their global model cannot be read; and the reason. A coordinator of 0.1.0
    takes their objects for changed, which is no step towards a quarantine at first."""

    @property
    def accepted(self) -> dict[str, Update]:
        """The accepted updates, by client."""
        return {client: each.inspected for client, each in self.verdicts.items() if each.accepted}

    @property
    def paused_ms(self) -> int:
        """For how long the run had ended while the round was not closed, in milliseconds."""
        return paused_ms(self.pauses)

    @property
    def worked_from_ms(self) -> int:
        """When it was opened, later by the time for which the run had ended: how long it takes counts from then on."""
        return self.opened_ms + self.paused_ms

    def worked_s(self, until_ms: int) -> float:
        """Return for how many seconds it had been worked on by then: the time for which the run had ended is none."""
        return max(0, until_ms - self.worked_from_ms) / 1000

    @property
    def all_openings(self) -> int:
        """How often it was opened, also before `flavor resume`."""
        return self.openings + self.earlier_openings

    @property
    def refused(self) -> frozenset[str]:
        """The clients of which an update was refused, also where a later one of the round was accepted."""
        each = self.verdicts.items()
        return frozenset(name for name, verdict in each if not verdict.accepted or verdict.refused_before)

    @property
    def untrained(self) -> frozenset[str]:
        """The clients whose update was refused because of the global model of the round.

        Without those of which the model is no more than the likely cause, where another update was accepted: then it
        can be trained.
        """
        is_trained = any(verdict.accepted for verdict in self.verdicts.values())
        causes = {OfModel.SURE, OfModel.UNREADABLE} | (set() if is_trained else {OfModel.LIKELY})
        return self._of_model(*causes)

    @property
    def doubtful(self) -> frozenset[str]:
        """Those of whose refusal the global model is no more than the likely cause."""
        return self._of_model(OfModel.LIKELY)

    @property
    def unreadable(self) -> frozenset[str]:
        """Those whose update was refused because the store does not give out the global model as it was."""
        return self._of_model(OfModel.UNREADABLE)

    def _of_model(self, *causes: OfModel) -> frozenset[str]:
        return frozenset(name for name, verdict in self.verdicts.items() if verdict.of_model in causes)

    @property
    def in_model(self) -> tuple[str, ...]:
        """The clients whose updates entered the model of a closed round."""
        return self.chosen or self.contributors

    def task_round(self, client: str) -> int:
        """Return the round whose task a client does here: in Redis its task, update and answer have that number."""
        return self.since.get(client, self.round)

    def inspected(self, client: str) -> Update:
        """What was inspected of this contributor's."""
        return self.verdicts[client].inspected

    @classmethod
    def opened(
        cls,
        round_: int,
        expected: tuple[str, ...],
        *,
        opened_ms: int,
        deadline_ms: int,
        since: Mapping[str, int] | None = None,
        missed: Mapping[str, int] | None = None,
        outdated: Mapping[str, int] | None = None,
    ) -> RoundView:
        """A round that was just opened for these clients; `since` is that of an asynchronous round."""
        return cls(
            round=round_,
            state=RoundState.OPEN,
            expected=expected,
            contributors=(),
            opened_ms=opened_ms,
            deadline_ms=deadline_ms,
            closed_ms=None,
            attempt=0,
            lease_ms=None,
            reason="",
            error=None,
            verdicts={},
            is_buffered=since is not None,
            since=since or {},
            missed=missed or {},
            outdated=outdated or {},
        )

    @classmethod
    def from_hash(cls, round_: int, fields: Mapping[str, str], verdicts: Mapping[str, str]) -> RoundView:
        """Read the hashes' fields. Raises `DamagedRecord`."""
        return cls(
            round=round_,
            state=field_of(fields, "state", RoundState),
            expected=field_of(fields, "expected", texts),
            contributors=field_of(fields, "contributors", texts, "[]"),
            opened_ms=field_of(fields, "opened_ms", number),
            deadline_ms=field_of(fields, "deadline_ms", number),
            closed_ms=optional_of(fields, "closed_ms", number),
            attempt=field_of(fields, "attempt", number),
            lease_ms=optional_of(fields, "lease_ms", number),
            reason=fields.get("reason", ""),
            error=fields.get("error"),
            model=ObjectRef.from_hash(fields),
            info=ObjectRef.from_hash(fields, "info_"),
            spoiled=field_of(fields, "spoiled", texts, "[]"),
            unfit=field_of(fields, "unfit", texts_by_name, "{}"),
            blameless=field_of(fields, "blameless", texts_by_name, "{}"),
            is_buffered="since" in fields,
            since=field_of(fields, "since", numbers_by_name, "{}"),
            missed=field_of(fields, "missed", numbers_by_name, "{}"),
            outdated=field_of(fields, "outdated", numbers_by_name, "{}"),
            verdicts={client: field_of(verdicts, client, Verdict.from_json) for client in verdicts},
            openings=field_of(fields, "openings", number, "1"),
            left_out=field_of(fields, "left_out", texts, "[]"),
            resumed=fields.get("resumed") == "1",
            pauses=field_of(fields, "pauses", pauses_of, "[]"),
            earlier_openings=field_of(fields, "earlier_openings", number, "0"),
            earlier_attempts=field_of(fields, "earlier_attempts", number, "0"),
            reference=optional_of(fields, "reference", Reference.from_text),
            waits=field_of(fields, "waits", number, "0"),
            passing_ms=optional_of(fields, "passing_ms", number),
            is_hopeless=fields.get("hopeless") == "1",
            aggregating_ms=optional_of(fields, "aggregating_ms", number),
            away_ms=optional_of(fields, "away_ms", number),
            manifest=ObjectRef.from_hash(fields, "manifest_"),
            chosen=field_of(fields, "chosen", texts, "[]"),
            notes=field_of(fields, "notes", texts, "[]"),
            told=field_of(fields, "told", texts, "[]"),
            made_by=fields.get("made_by", ""),
        )
