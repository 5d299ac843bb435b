"""The evaluations of a run in Redis: a method for each transition of an evaluation, and the reads."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from flavor.bus.clients import Clients
from flavor.bus.connection import translated
from flavor.bus.scripts import flat
from flavor.records.damage import field_of, texts
from flavor.records.evaluation import (
    RESULT_FIELDS,
    BestModel,
    EvaluationKind,
    EvaluationSummary,
    EvaluationView,
    Result,
    ResultVerdict,
    result_from_hash,
)
from flavor.records.failed_evaluation import FailedEvaluation
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.states import EvaluationState
from flavor.records.subject import SUBJECT_FIELDS, Subject
from flavor.records.update import Refused

Name = tuple[int, int]
"""The round and the number of an evaluation."""


class KeptEvaluation(NamedTuple):
    """What says whether the hash of an evaluation is still needed."""

    state: EvaluationState
    counts: bool
    """Whether the newest evaluation of the run may be of its model (see `Subject`)."""
    record: ObjectRef | None
    """Its signed record; None without a result."""


class Evaluations(Clients):
    """What the coordinator and the workers do with the evaluations of one run. See `RunStore`."""

    # -- the coordinator's transitions

    def open_evaluation(
        self,
        token: str,
        round_: int,
        number: int,
        *,
        expected: Sequence[str],
        skipped: Sequence[str],
        timeout_s: float,
        reason: str,
        model: GlobalModel | None = None,
        subject: Subject | None = None,
        by: str = "",
        training: Sequence[str] = (),
    ) -> int:
        """Have `expected` judge the run's global model, which `round_` has made; return the server's time in ms.

        Or another `model`, also of a run that has ended; `subject` says which one. `by` is the
        key of the lease of `token`, where that is not the coordinator's. `training` names the sites that are not asked
        because they train on.
        """
        keys = [by or self.keys.coordinator, self.keys.state, self.keys.evaluation(round_, number), self.keys.log]
        keys += [self.keys.evaluating, self.keys.evaluation_verdicts(round_, number), self.keys.asked]
        for client in expected:
            keys += self._of_one(client, round_, number)
        args: list[str | int] = [token, round_, number, int(timeout_s * 1000)]
        args += [json.dumps(list(expected)), json.dumps(list(skipped)), reason]
        args.append(json.dumps(flat(_of_task(model))) if model is not None else "")
        is_said = subject is not None and subject != Subject.of_round(round_)
        args.append(json.dumps(subject.to_plain()) if subject is not None and is_said else "")
        args.append("1" if EvaluationKind.of(number) is EvaluationKind.ASKED else "")
        args.append(json.dumps(list(training)) if training else "")
        return int(self.move("open_evaluation", keys, args))

    def begin_merge(self, token: str, round_: int, number: int, *, attempt: int, by: str = "") -> int:
        """Start an attempt to merge the results; return the server's time in ms."""
        keys = [by or self.keys.coordinator, self.keys.evaluation(round_, number)]
        return int(self.move("begin_merge", keys, [token, attempt]))

    def give_up_evaluation(
        self, token: str, view: EvaluationView, reason: str, *, by: str = "", is_skipped: bool = False
    ) -> None:
        """End an evaluation without a result. `is_skipped` says that nothing went wrong: its result is not needed."""
        round_, number = view.round, view.number
        keys = [by or self.keys.coordinator, self.keys.evaluation(round_, number), self.keys.log, self.keys.evaluating]
        keys += [self.keys.failing, self.keys.unjudged]
        for client in view.expected:
            keys += self._of_one(client, round_, number)
        event = "evaluation.skipped" if is_skipped else "evaluation.failed"
        is_own = "" if EvaluationKind.of(number) is EvaluationKind.ASKED else "1"
        failed = "" if is_skipped else FailedEvaluation(round_, number, view.opened_ms, reason, of=view.of).to_json()
        self.move("give_up_evaluation", keys, [token, round_, number, reason, event, failed, is_own])

    def _of_one(self, client: str, round_: int, number: int) -> list[str]:
        """Return the keys of one site in an evaluation: its task, its result, the evaluations that await it."""
        keys = self.keys.client(client)
        return [keys.evaluation_task(round_, number), keys.result(round_, number), keys.evaluations]

    # -- the worker's transitions

    def fail_merge(self, round_: int, number: int, *, attempt: int, reason: str, is_hopeless: bool = False) -> None:
        """Report that this attempt went wrong. After a hopeless one, there is no other."""
        args: list[str | int] = [attempt, reason, "1" if is_hopeless else ""]
        self.move("fail_merge", [self.keys.evaluation(round_, number)], args)

    def commit_evaluation(
        self,
        round_: int,
        number: int,
        *,
        attempt: int,
        verdicts: Mapping[str, ResultVerdict],
        info: ObjectRef,
        manifest: ObjectRef,
        summary: EvaluationSummary,
        reason: str,
        before: BestModel | None = None,
        best: BestModel | None = None,
        best_reason: str = "",
        reported: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Close the evaluation with its merged information and its manifest; the sites are told the verdicts.

        `verdicts` has all expected sites. A `best_reason` says that `best` takes the place of the best model `before`;
        `IllegalMove` when the run has another best model by now. `reported` is as `reported_by_now` has it.
        """
        keys = [self.keys.evaluation(round_, number), self.keys.log, self.keys.evaluating, self.keys.evaluated]
        keys += [self.keys.evaluation_verdicts(round_, number), self.keys.state, self.keys.reported]
        keys.append(self.keys.failing)
        for client in verdicts:
            keys += [self.keys.client(client).evaluation_verdict, *self._of_one(client, round_, number)]
        fields = flat({**info.to_hash("merged_"), **manifest.to_hash("manifest_")})
        args: list[str | int] = [round_, number, attempt, reason, summary.to_json(), len(fields)]
        args += [
            str(before.round) if before else "",
            best_reason,
            json.dumps(flat(best.to_hash()) if best else []),
            json.dumps(flat(reported_fields(reported or {}))),
            *fields,
        ]
        for client, judged in verdicts.items():
            args += [client, judged.to_json(), "1" if judged.accepted else "0", judged.reason]
        self.move("commit_evaluation", keys, args)

    # -- the end of an evaluation's keys

    def kept_evaluations(self, names: Collection[Name]) -> dict[Name, KeptEvaluation]:
        """Return what says whether an evaluation is still needed, of those among these that Redis has."""
        fields = ("state", "manifest_path", "manifest_digest", *SUBJECT_FIELDS)
        with translated(self.where), self.redis.pipeline(transaction=False) as reads:
            for name in names:
                reads.hmget(self.keys.evaluation(*name), *fields)
            found = dict(zip(names, reads.execute(), strict=True))
        return {
            name: KeptEvaluation(
                EvaluationState(state), _counts(name[0], of), ObjectRef(path, digest) if path else None
            )
            for name, (state, path, digest, *of) in found.items()
            if state in set(EvaluationState)
        }

    def forget_evaluations(self, records: Mapping[Name, str]) -> None:
        """Remove the hashes of these evaluations, which are over; the digests of their records stay, '' for none."""
        with translated(self.where), self.redis.pipeline(transaction=True) as step:
            for (round_, number), digest in records.items():
                if digest:
                    step.hset(self.keys.recorded, f"{round_} {number}", digest)
                step.unlink(self.keys.evaluation(round_, number), self.keys.evaluation_verdicts(round_, number))
                step.hdel(self.keys.asked, f"{round_} {number}")
            step.execute()

    # -- the operator's

    def next_number(self, round_: int) -> int:
        """Return the number of the next evaluation of this round's model that somebody asks for."""
        with translated(self.where):
            number = int(self.redis.hget(self.keys.asked, str(round_)) or 0) + 1
            while self.redis.exists(self.keys.evaluation(round_, number)):  # opened by an earlier release, or rebuilt
                number += 1
        return number

    def note_asked(self, opened_ms: Mapping[Name, int]) -> None:
        """Note evaluations that somebody has asked for, in the order of their numbers, as `open_evaluation` does."""
        with translated(self.where):
            for (round_, number), opened in opened_ms.items():
                self.redis.hset(self.keys.asked, mapping={f"{round_} {number}": opened, str(round_): number})

    def put_contributions(self, run_id: str, result: str) -> bool:
        """Keep the newest result of `flavor contributions`, as JSON; False where Redis has no such run."""
        return bool(self.call("put_contributions", [self.keys.state, self.keys.contributions], [run_id, result]))

    # -- of who asks for evaluations

    def note_placed(self, path: str) -> None:
        """Record that the holder of the lease `evaluator` is to remove this object, before it is put into the store."""
        with translated(self.where):
            self.redis.sadd(self.keys.placed, path)

    def placed(self) -> list[str]:
        """Return the objects that the holder of the lease is to remove, sorted."""
        with translated(self.where):
            return sorted(map(str, self.redis.smembers(self.keys.placed)))

    def forget_placed(self, paths: Iterable[str]) -> None:
        """Record that these objects were removed."""
        if paths := list(paths):
            with translated(self.where):
                self.redis.srem(self.keys.placed, *paths)

    # -- reads

    def contributions(self, run_id: str) -> str:
        """Return the newest result of `flavor contributions` on this run, as JSON; '' for none."""
        fields = self.hash_at(self.keys.contributions)
        return fields.get("result", "") if fields.get("run_id") == run_id else ""

    def read_evaluation(self, round_: int, number: int) -> EvaluationView | None:
        """Return an evaluation with its verdicts; None when it was never opened. Raises `DamagedRecord`."""
        key = self.keys.evaluation(round_, number)
        fields = self.hash_at(key)
        if not fields:
            return None
        verdicts = self.hash_at(self.keys.evaluation_verdicts(round_, number)) if "closed_ms" in fields else {}
        with self.damage_at(key):
            return EvaluationView.from_hash(round_, number, fields, verdicts)

    def is_in_hand(self, round_: int, number: int) -> bool:
        """Whether a worker merges the results of this evaluation, or judges its model on the operator's own data."""
        with translated(self.where):
            return bool(self.redis.exists(self.keys.evaluation_lease(round_, number)))

    def is_asking(self) -> bool:
        """Whether a process lives that asks for evaluations."""
        with translated(self.where):
            return bool(self.redis.exists(self.keys.evaluator))

    def results(self, round_: int, number: int, names: Iterable[str]) -> dict[str, Result | Refused]:
        """What each client has handed in for this evaluation, if anything."""
        names = list(names)
        found = self._of_clients([self.keys.client(name).result(round_, number) for name in names], RESULT_FIELDS)
        handed_in = [{"refused": fields} if isinstance(fields, str) else fields for fields, _ in found]
        return {name: result_from_hash(fields) for name, fields in zip(names, handed_in, strict=True) if fields}

    def reported(self) -> dict[str, tuple[str, ...]]:
        """Return which metrics of the run's rules each site has reported in evaluations, without revoked sites."""
        found = self.hash_at(self.keys.reported)
        with self.damage_at(self.keys.reported):
            return {name: field_of(found, name, texts) for name in found}

    def evaluating(self) -> list[tuple[int, int]]:
        """Return round and number of each evaluation that is not over."""
        with translated(self.where):
            found = self.redis.hgetall(self.keys.evaluating)  # a viewer may not send HKEYS
        pairs = (name.split(" ") for name in found)
        return sorted((int(pair[0]), int(pair[1])) for pair in pairs if len(pair) == 2 and all(map(str.isdigit, pair)))

    def asked(self) -> dict[Name, int]:
        """Return the evaluations that somebody asked for and Redis has, to when each was opened, oldest first."""
        found = self.hash_at(self.keys.asked)
        opened = {_name_of(name): int(ms) for name, ms in found.items() if " " in name}
        return dict(sorted(opened.items(), key=lambda each: (each[1], each[0])))

    def recorded_digest(self, round_: int, number: int) -> str:
        """Return the SHA-256 of the signed record of an evaluation whose hash was removed; '' for any other."""
        with translated(self.where):
            return str(self.redis.hget(self.keys.recorded, f"{round_} {number}") or "")

    def failing(self) -> list[FailedEvaluation]:
        """Return the newest evaluations by the sites and on the operator's own data, where these have no result.

        That of a kind is gone with the next result of this kind.
        """
        found = self.hash_at(self.keys.failing)
        with self.damage_at(self.keys.failing):
            return [FailedEvaluation.from_json(text) for _, text in sorted(found.items())]

    def unjudged(self, first: int = 0) -> list[str]:
        """Return what is kept of evaluations that have failed, as JSON, from the entry `first` on, oldest first."""
        with translated(self.where):
            return [str(text) for text in self.redis.lrange(self.keys.unjudged, first, -1)]

    def evaluated(self, first: int = 0) -> list[str]:
        """Return what is kept of evaluations with a result, as JSON, from the entry `first` on, oldest first."""
        with translated(self.where):
            return [str(text) for text in self.redis.lrange(self.keys.evaluated, first, -1)]


def reported_fields(reported: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the fields of the hash that `reported` reads."""
    return {client: json.dumps(list(names)) for client, names in reported.items()}


def _counts(round_: int, values: Sequence[str | None]) -> bool:
    fields = {name: value for name, value in zip(SUBJECT_FIELDS, values, strict=True) if value is not None}
    return (Subject.of_hash(fields, round_) or Subject.of_round(round_)).counts


def _name_of(field: str) -> Name:
    round_, number = field.split(" ")
    return int(round_), int(number)


def _of_task(model: GlobalModel) -> dict[str, str]:
    """Return the fields of a model that a site gets: without the server state."""
    fields = replace(model, state=None).to_hash()
    return {name: value for name, value in fields.items() if value and not name.startswith("state_")}
