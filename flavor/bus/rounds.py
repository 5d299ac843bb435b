"""The rounds of a run in Redis: a method for each transition of a round, and the reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from flavor.bus.connection import translated
from flavor.bus.scripts import RunScripts, flat
from flavor.records.damage import numbers_by_name, texts
from flavor.records.measured import Measured
from flavor.records.model import GlobalModel
from flavor.records.names import Event
from flavor.records.objects import ObjectRef
from flavor.records.round import Reference, RoundView
from flavor.records.states import RoundState
from flavor.records.summary import RoundSummary
from flavor.records.verdict import Refusal, Verdict


class Rounds(RunScripts):
    """What the coordinator and the workers do with the rounds of one run. See `RunStore`."""

    # -- the coordinator's transitions

    def open_round(
        self,
        token: str,
        round_: int,
        *,
        expected: Sequence[str],
        timeout_s: float,
        reason: str,
        since: Mapping[str, int] | None = None,
        missed: Mapping[str, int] | None = None,
        outdated: Mapping[str, int] | None = None,
        tells_deadline: bool = True,
    ) -> int:
        """Open round `round_` for `expected`, from the run's global model; returns the server's time in ms.

        In an asynchronous run, `since` names the clients that go on with the task of an earlier round, and that round.
        `missed` says of how many rounds in a row a client has missed the deadline, and `outdated` how many tasks in a
        row of a client were given up as too old. With `tells_deadline` the sites can read when the round closes.
        """
        keys = [self.keys.coordinator, self.keys.state, self.keys.round(round_), self.keys.log]
        clients = [self.keys.client(client) for client in expected if since is None or client not in since]
        keys += [self.keys.verdicts(round_), self.keys.measured(round_)]
        keys += [client.task(round_) for client in clients] + [client.update(round_) for client in clients]
        args: list[str | int] = [token, round_, int(timeout_s * 1000), json.dumps(list(expected)), reason]
        args += ["" if since is None else json.dumps(dict(since)), json.dumps(dict(missed)) if missed else ""]
        args += ["1" if tells_deadline else "", json.dumps(dict(outdated)) if outdated else ""]
        return int(self.move("open_round", keys, args))

    def reopen_round(
        self,
        token: str,
        round_: int,
        *,
        expected: Sequence[str],
        new: Sequence[str],
        left_out: Sequence[str],
        opening: int,
        timeout_s: float,
        reason: str,
    ) -> int:
        """Open the current round again, for `expected`, of whom `new` were not in it; returns its new deadline.

        `left_out` are those that were, in any opening, and no longer are.
        """
        keys = [self.keys.coordinator, self.keys.state, self.keys.round(round_), self.keys.log]
        keys += [self.keys.verdicts(round_), *(self.keys.client(client).task(round_) for client in new)]
        timeout_ms = int(timeout_s * 1000)
        args: list[str | int] = [token, round_, timeout_ms, json.dumps(list(expected)), reason, opening]
        args.append(json.dumps(list(left_out)))
        return int(self.move("reopen_round", keys, args))

    def join_round(self, token: str, round_: int, *, expected: Sequence[str], new: Sequence[str], reason: str) -> None:
        """Give the clients `new` the task of the current round of an asynchronous run, which is open.

        `expected` are all of its clients, with these.
        """
        keys = [self.keys.coordinator, self.keys.state, self.keys.round(round_), self.keys.log]
        clients = [self.keys.client(client) for client in new]
        keys += [client.task(round_) for client in clients] + [client.update(round_) for client in clients]
        self.move("join_round", keys, [token, round_, json.dumps(list(expected)), reason])

    def decide_structure(
        self, token: str, round_: int, reference: Reference, *, others: Sequence[str], reason: str
    ) -> None:
        """Fix the update whose structure all updates of the round must have; take back the acceptance of `others`.

        Each of the `others` has again as many refusals in a row as before its acceptance.
        """
        keys = [self.keys.coordinator, self.keys.round(round_), self.keys.log, self.keys.verdicts(round_)]
        keys += [self.keys.refusals, *(self.keys.client(client).verdict(round_) for client in others)]
        self.move("decide_structure", keys, [token, round_, reference.to_text(), reason, *others])

    def begin_aggregation(
        self,
        token: str,
        round_: int,
        *,
        attempt: int,
        contributors: Sequence[str],
        reason: str,
        refused: Sequence[Refusal] = (),
        since: Mapping[str, int] | None = None,
    ) -> None:
        """Fix the contributors and start an attempt; `IllegalMove` when another update was accepted since.

        `refused` are the updates that the last attempt has found spoiled; `since` is that of the round.
        """
        keys = [self.keys.coordinator, self.keys.state, self.keys.round(round_), self.keys.log]
        keys += [self.keys.verdicts(round_), self.keys.refusals]
        args: list[str | int] = [token, round_, attempt, json.dumps(list(contributors)), reason]
        self.move("begin_aggregation", *self._refusing(round_, refused, keys, args, since or {}))

    def return_round(
        self,
        token: str,
        round_: int,
        *,
        attempt: int,
        refused: Sequence[Refusal],
        reason: str,
        since: Mapping[str, int] | None = None,
    ) -> None:
        """Open a round again that lost its quorum during its aggregation; the updates of `refused` no longer count."""
        keys = [self.keys.coordinator, self.keys.state, self.keys.round(round_), self.keys.verdicts(round_)]
        keys += [self.keys.log, self.keys.refusals]
        args: list[str | int] = [token, round_, attempt, reason]
        self.move("return_round", *self._refusing(round_, refused, keys, args, since or {}))

    def _refusing(
        self,
        round_: int,
        refused: Sequence[Refusal],
        keys: list[str],
        args: list[str | int],
        since: Mapping[str, int],
    ) -> tuple[list[str], list[str | int]]:
        """Return keys and arguments with those of `refuse_spoiled` at their ends."""
        for client, verdict, fault in refused:
            keys.append(self.keys.client(client).verdict(since.get(client, round_)))
            args += [client, verdict.to_json(), verdict.reason, verdict.try_id]
            args.append("1" if fault else "blameless" if verdict.blameless else "")
        return keys, args

    # -- the worker's transitions

    def claim_round(self, round_: int, *, attempt: int, token: str, ttl_s: float, renew: bool = False) -> None:
        """Take the right to commit this attempt; or `renew` it, which only its holder can, expired or not."""
        how = "renew" if renew else "take"
        self.move("claim_round", [self.keys.round(round_)], [attempt, token, int(ttl_s * 1000), how])

    def commit_round(
        self,
        round_: int,
        *,
        attempt: int,
        token: str,
        model: GlobalModel,
        reason: str,
        manifest: ObjectRef | None = None,
        chosen: Sequence[str] = (),
        notes: Sequence[str] = (),
        told: Sequence[str] = (),
        made_by: str = "",
        summary: RoundSummary | None = None,
    ) -> None:
        """Close the round with `model` as the run's global model, and its manifest, which is staged.

        `chosen` are the contributors whose updates entered the model, where the rule left others out.
        `made_by` says what has made the model, see `workers.combiner.Combiner`. `notes` are for the operator: they
        stand in the log and in the round's hash, which no site reads. `told` has the causes of those that are not told
        again in a later round, and of earlier ones. `summary` is kept for the whole run, for people
        who look at it, with the time at which the round is closed.
        """
        of_manifest = manifest.to_hash("manifest_") if manifest else {}
        of_round = {
            **of_manifest,
            **model.model.sealed("").to_hash(),
            "info_path": model.info.path if model.info else "",
            "info_digest": model.info.digest if model.info else "",
            **({"chosen": json.dumps(list(chosen))} if chosen else {}),
            **({"made_by": made_by} if made_by else {}),
            **({"notes": json.dumps(list(notes))} if notes else {}),
            **({"told": json.dumps(list(told))} if told else {}),
        }
        args: list[str | int] = [
            round_,
            attempt,
            token,
            reason,
            summary.to_json() if summary is not None else "",
            2 * len(of_round),
            *flat(of_round),
            *flat({**of_manifest, **model.to_hash()}),
        ]
        keys = [self.keys.state, self.keys.round(round_), self.keys.log, self.keys.closed]
        self.move("commit_round", keys, args)

    def fail_attempt(
        self,
        round_: int,
        *,
        attempt: int,
        token: str,
        reason: str,
        spoiled: Sequence[str] = (),
        unfit: Mapping[str, str] | None = None,
        blameless: Mapping[str, str] | None = None,
        passing: bool = False,
        is_hopeless: bool = False,
    ) -> None:
        """Report that this attempt went wrong; the next one goes without the contributors that are named.

        Of those in `spoiled` the object is to blame; of those in `unfit` the update itself, for that reason; of those
        in `blameless` nothing of the site's.
        `passing` says that the reason can pass, such as a store that is full or away: then the attempt does not count,
        and is made again. After a hopeless attempt, there is no other.
        """
        unfit, blameless = unfit or {}, blameless or {}
        without = list(dict.fromkeys([*spoiled, *unfit, *blameless]))
        left_out = json.dumps(without) if without else ""
        keys = [self.keys.round(round_), self.keys.log]
        args: list[str | int] = [round_, attempt, token, reason, left_out, "1" if passing else ""]
        args += [json.dumps(dict(unfit)) if unfit else "", "1" if is_hopeless else ""]
        args.append(json.dumps(dict(blameless)) if blameless else "")
        self.move("fail_attempt", keys, args)

    def note_store_away(self, round_: int) -> None:
        """Tell the coordinator that an inspection failed for a reason that can pass, and that no update is to blame."""
        self.call("note_store_away", [self.keys.round(round_)], [])

    def give_back_round(self, round_: int, *, attempt: int, token: str, reason: str) -> None:
        """Give up the right to commit this attempt, which another worker may take then; it does not count as failed."""
        self.move("give_back_round", [self.keys.round(round_), self.keys.log], [round_, attempt, token, reason])

    # -- reads, and the end of a round's keys

    def reference(self, round_: int) -> Reference | None:
        """Return the object whose structure this round's updates must have; None as long as that is not decided."""
        with translated(self.where):
            decided = self.redis.hget(self.keys.round(round_), "reference")
        with self.damage_at(self.keys.round(round_)):
            return Reference.from_text(decided) if decided else None

    def read_round(self, round_: int) -> RoundView | None:
        """Return a round with its verdicts; None when it was never opened, or is pruned."""
        fields, verdicts = self.read_round_fields(round_)
        with self.damage_at(self.keys.round(round_)):
            return RoundView.from_hash(round_, fields, verdicts) if fields else None

    def read_round_fields(self, round_: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return the fields of a round's hash, and its verdicts by client, as they stand there.

        Reads the round before and after its verdicts, until both are the same, so that round and verdicts belong
        together. A transaction would do the same, but a full server refuses even transactions that only read.
        """
        key = self.keys.round(round_)
        with translated(self.where):
            while True:
                with self.redis.pipeline(transaction=False) as reads:
                    before, verdicts, fields = (
                        reads.hgetall(key).hgetall(self.keys.verdicts(round_)).hgetall(key).execute()
                    )
                if before == fields:
                    return fields, verdicts

    def measured(self, round_: int, clients: Sequence[str] | None = None) -> dict[str, Measured]:
        """Return what was measured in this round, of these clients or of all; empty for a round that is pruned."""
        return self.measured_of([round_], clients).get(round_, {})

    def measured_of(
        self, rounds: Sequence[int], clients: Sequence[str] | None = None
    ) -> dict[int, dict[str, Measured]]:
        """Return what was measured in these rounds, in one round trip; lacks rounds of which nothing is recorded."""
        if not rounds or (clients is not None and not clients):
            return {}
        with translated(self.where), self.redis.pipeline(transaction=False) as reads:
            for key in map(self.keys.measured, rounds):
                reads.exists(key)
                if clients is None:
                    reads.hgetall(key)
                else:
                    reads.hmget(key, list(clients))
            answers = iter(reads.execute())
        found = {round_: each for round_, is_there, each in zip(rounds, answers, answers, strict=True) if is_there}
        return {
            round_: {
                client: Measured.from_json(text)
                for client, text in (each.items() if clients is None else zip(clients, each, strict=True))
                if text is not None
            }
            for round_, each in found.items()
        }

    def of_client(self, rounds: Sequence[int], client: str) -> dict[int, tuple[Verdict, Measured, bool, int]]:
        """Return the verdict on a client's update in each of these rounds, what was measured, and if a model took it.

        The last is the round whose task it has done. Lacks rounds without a verdict on the client. One round trip, and
        nothing of the other clients is read.
        """
        with translated(self.where), self.redis.pipeline(transaction=False) as reads:
            for round_ in rounds:
                reads.hget(self.keys.verdicts(round_), client)
                reads.hget(self.keys.measured(round_), client)
                reads.hmget(self.keys.round(round_), "state", "chosen", "since")
            answers = iter(reads.execute())
        found = {}
        for round_, text, measured, (state, chosen, since) in zip(rounds, answers, answers, answers, strict=True):
            if text is not None:
                with self.damage_at(self.keys.verdicts(round_)):
                    verdict = Verdict.from_json(text)
                with self.damage_at(self.keys.round(round_)):
                    others, tasks = texts(chosen or "[]"), numbers_by_name(since or "{}")
                is_in_model = verdict.accepted and state == RoundState.CLOSED and (not others or client in others)
                found[round_] = verdict, Measured.from_json(measured or ""), is_in_model, tasks.get(client, round_)
        return found

    def summaries(self, first: int = 0) -> list[str]:
        """Return what is kept of closed rounds, as JSON, from the entry `first` of the list on, oldest first."""
        with translated(self.where):
            return [str(text) for text in self.redis.lrange(self.keys.closed, first, -1)]

    def now_and_newest_summary(self) -> tuple[int, list[str]]:
        """Return the server's time in milliseconds, and the last of the `summaries`, if there is one."""
        with translated(self.where), self.redis.pipeline(transaction=False) as reads:
            (seconds, microseconds), texts = reads.time().lrange(self.keys.closed, -1, -1).execute()
        return int(seconds) * 1000 + int(microseconds) // 1000, [str(text) for text in texts]

    def summaries_around(self, round_: int) -> list[str]:
        """Return entries of that list among which is that of a round, if there is one: few where no round is lacking.

        An entry stands at the place that its round's number gives, or earlier: earlier rounds may be lacking.
        """
        with translated(self.where), self.redis.pipeline(transaction=False) as reads:
            reads.lindex(self.keys.closed, round_ - 1)
            reads.llen(self.keys.closed)
            text, length = reads.execute()
        if text is not None and f',"round":{round_},"opened_ms":' in text:
            return [text]
        return self.summaries()[:round_] if length else []

    def manifest_digests(self, rounds: Sequence[int]) -> list[str]:
        """Return the digest of each round's manifest, '' for none, in one round trip."""
        with translated(self.where), self.redis.pipeline(transaction=False) as reads:
            for round_ in rounds:
                reads.hget(self.keys.round(round_), "manifest_digest")
            return [digest or "" for digest in reads.execute()]

    def forget_round(self, round_: int, clients: Iterable[str], *, whole: bool = False) -> None:
        """Delete the per-client keys of an old round; `whole`: its own hashes as well, but not its summary."""
        keys = []
        if whole:
            keys = [self.keys.round(round_), self.keys.verdicts(round_), self.keys.entries(round_)]
            keys.append(self.keys.measured(round_))
        for name in clients:
            client = self.keys.client(name)
            keys += [
                client.task(round_),
                client.update(round_),
                client.verdict(round_),
                *(client.event(round_, event) for event in Event),
            ]
        if keys:
            with translated(self.where):
                self.redis.unlink(*keys)
