"""Runs, rounds and verdicts in Redis: one Python method for each Lua transition, and the reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from importlib.resources import files
from typing import Any

import redis

from flavor.bus.connection import Redis, shown, translated
from flavor.bus.keys import RUNS, RunKeys
from flavor.bus.removal import remove_keys
from flavor.errors import IllegalMove, LeaseLost, RunError, RunNotFound
from flavor.protocol import PROTOCOL, check_run, new_run_id
from flavor.records import update
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import Reference, RoundView
from flavor.records.run import RunView
from flavor.records.states import ClientState, RoundState, RunState
from flavor.records.update import Refused, Update
from flavor.records.verdict import Refusal, Verdict

_LUA = files("flavor.bus") / "lua"
_PARTS = {"open_round": "give_tasks", "reopen_round": "give_tasks"}
_PARTS |= {"judge_update": "caused", "note_client": "caused"}
_PARTS |= {"begin_aggregation": "refuse_spoiled", "return_round": "refuse_spoiled"}
"""What is put before a script: a server has no modules."""
_LOADS = 5
"""A server that is restarted between loading a script and calling it has forgotten it again."""
CLIENT_FIELDS = (
    *("state", "reason", "failure", "exit_code", "report"),
    *("round", "host", "pid", "public_key", "protocol", "phase", "done", "total", "since_ms"),
)
"""All that is read of what a client says of itself."""
RECORDED = "recorded"
"""Stands for the key of a client that its run's records have, where an operator replaced it on a server without the
run."""
LONGEST_FIELD_BYTES = 16 * 1024
_AT_ONCE = 500
"""Hashes of clients that are read by one call of a script."""
LOG_LENGTH = 100_000
"""Entries that a run's log keeps, about."""
MOST_ENTRIES = 20
"""Entries of the log that one client can cause in one round, beside the one of an update that is accepted; later one
more each ten minutes."""
MORE_IS_LEFT_OUT = "; what else it causes in this round is counted, and left out for ten minutes"


class Recorded(IntEnum):
    """What became of what a client has caused."""

    NOT = 0
    """Nothing: it is known already."""
    TOLD = 1
    """It is recorded, and in the log."""
    COUNTED = 2
    """It is recorded; in the log are enough of that client in that round."""
    LAST = 3
    """It is recorded, and for now the last of that client in that round that is in the log."""

    def line(self, text: str) -> str:
        """What a terminal is to show of it, '' for nothing: as much as the log does."""
        if self in (Recorded.NOT, Recorded.COUNTED):
            return ""
        return text + MORE_IS_LEFT_OUT if self is Recorded.LAST else text


def late(round_: int, try_id: str = "") -> Verdict:
    """The verdict on a try whose round is no longer open."""
    return Verdict(False, f"late: round {round_} no longer takes updates", try_id=try_id)


def _fields(answer: Any, names: Sequence[str]) -> dict[str, str] | str:
    """What `read_hashes` says of one hash."""
    if answer == 0:
        return {}
    if isinstance(answer, list):
        return {name: value for name, value in zip(names, answer, strict=False) if value is not None}
    if answer == 1:
        return "what stands there is no hash"
    return f"its field {answer!r} is larger than {LONGEST_FIELD_BYTES} bytes"


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


class RunStore:
    """One run's state. Every transition is atomic and checks the state it starts from.

    Raises `LeaseLost` when the caller's token is no longer the holder's, `IllegalMove` when the state is not the one
    the transition starts from (nothing has changed then), `BusUnavailable` when the server is gone.
    """

    def __init__(self, redis: Redis, run: str, url: str = "") -> None:
        self.redis, self.run, self.keys = redis, run, RunKeys(run)
        self.where = shown(url)
        self._scripts: dict[str, Any] = {}

    def _call(self, verb: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        script = self._scripts.get(verb)
        if script is None:
            parts = [_PARTS[verb], verb] if verb in _PARTS else [verb]
            text = "".join((_LUA / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
            script = self._scripts[verb] = self.redis.register_script(text)
        with translated(self.where):
            for _ in range(_LOADS):
                with contextlib.suppress(redis.exceptions.NoScriptError):
                    return script(keys=keys, args=args)
            return script(keys=keys, args=args)

    def _move(self, verb: str, keys: Sequence[str], args: Sequence[str | int]) -> str:
        status, detail = self._call(verb, keys, args)
        if status == "lease":
            raise LeaseLost(f"run {self.run!r}: {verb}: the lease is held by {detail or 'another process'}")
        if status == "state":
            raise IllegalMove(f"run {self.run!r}: {verb} is not possible: it is {detail}")
        return str(detail)

    # -- the coordinator's transitions

    def create(
        self,
        *,
        rounds: int,
        config: Mapping[str, Any],
        initial: GlobalModel | None = None,
        record: ObjectRef | None = None,
        run_id: str = "",
    ) -> bool:
        """Create the run, whose record in the store is `record`; False when it exists already: it is left untouched.

        `run_id` is that of its record; a new one where it has none.
        """
        fields = _flat({"run_id": run_id or new_run_id(), "protocol": str(PROTOCOL)})
        fields += _flat(initial.to_hash()) if initial else []
        fields += _flat(record.to_hash("manifest_")) if record else []
        keys = [self.keys.state, self.keys.log, RUNS, self.keys.replaced]
        return bool(self._call("create_run", keys, [self.run, rounds, json.dumps(config), *fields]))

    def admit(self, token: str, client: str, reason: str, *, event: str = "client.joined") -> bool:
        """Make `client` a member, also one that has come and gone; True when it is new."""
        keys = [self.keys.coordinator, self.keys.state, self.keys.members, self.keys.log]
        return self._move("admit_client", keys, [token, client, reason, event]) == "1"

    def open_round(
        self,
        token: str,
        round_: int,
        *,
        expected: Sequence[str],
        timeout_s: float,
        reason: str,
    ) -> int:
        """Open round `round_` for `expected`, from the run's global model; returns the server's time in ms."""
        keys = [self.keys.coordinator, self.keys.state, self.keys.round(round_), self.keys.log]
        clients = [self.keys.client(client) for client in expected]
        keys.append(self.keys.verdicts(round_))
        keys += [client.task(round_) for client in clients] + [client.update(round_) for client in clients]
        args: list[str | int] = [token, round_, int(timeout_s * 1000), json.dumps(list(expected)), reason]
        return int(self._move("open_round", keys, args))

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
        return int(self._move("reopen_round", keys, args))

    def decide_structure(
        self, token: str, round_: int, reference: Reference, *, others: Sequence[str], reason: str
    ) -> None:
        """Fix whose structure the round's updates must have; the acceptance of the `others` is taken back."""
        keys = [self.keys.coordinator, self.keys.round(round_), self.keys.log, self.keys.verdicts(round_)]
        keys += [self.keys.client(client).verdict(round_) for client in others]
        self._move("decide_structure", keys, [token, round_, reference.to_text(), reason, *others])

    def begin_aggregation(
        self,
        token: str,
        round_: int,
        *,
        attempt: int,
        contributors: Sequence[str],
        reason: str,
        refused: Sequence[Refusal] = (),
    ) -> None:
        """Fix the contributors and start an attempt; `IllegalMove` when another update was accepted since.

        `refused` are those that the attempt before has found spoiled.
        """
        keys = [self.keys.coordinator, self.keys.state, self.keys.round(round_), self.keys.log]
        keys += [self.keys.verdicts(round_), self.keys.refusals]
        args: list[str | int] = [token, round_, attempt, json.dumps(list(contributors)), reason]
        self._move("begin_aggregation", *self._refusing(round_, refused, keys, args))

    def return_round(self, token: str, round_: int, *, attempt: int, refused: Sequence[Refusal], reason: str) -> None:
        """Open the round again that lost its quorum in its aggregation; the updates of `refused` count no more."""
        keys = [self.keys.coordinator, self.keys.state, self.keys.round(round_), self.keys.verdicts(round_)]
        keys += [self.keys.log, self.keys.refusals]
        self._move("return_round", *self._refusing(round_, refused, keys, [token, round_, attempt, reason]))

    def _refusing(
        self, round_: int, refused: Sequence[Refusal], keys: list[str], args: list[str | int]
    ) -> tuple[list[str], list[str | int]]:
        """With what `refuse_spoiled` takes at their ends."""
        for client, verdict, fault in refused:
            keys.append(self.keys.client(client).verdict(round_))
            args += [client, verdict.to_json(), verdict.reason, verdict.try_id, "1" if fault else ""]
        return keys, args

    # -- the worker's transitions

    def claim_round(self, round_: int, *, attempt: int, token: str, ttl_s: float, renew: bool = False) -> None:
        """Take the right to commit this attempt; or `renew` it, which only its holder can, expired or not."""
        how = "renew" if renew else "take"
        self._move("claim_round", [self.keys.round(round_)], [attempt, token, int(ttl_s * 1000), how])

    def commit_round(
        self,
        round_: int,
        *,
        attempt: int,
        token: str,
        model: GlobalModel,
        reason: str,
        manifest: ObjectRef | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Close the round with `model` as the run's global model, and its manifest, which is staged.

        `notes` are for the operator: they stand in the log and in the round's hash, which no site reads.
        """
        of_manifest = manifest.to_hash("manifest_") if manifest else {}
        of_round = {
            **of_manifest,
            **model.model.sealed("").to_hash(),
            "info_path": model.info.path if model.info else "",
            "info_digest": model.info.digest if model.info else "",
            **({"notes": json.dumps(list(notes))} if notes else {}),
        }
        args: list[str | int] = [
            round_,
            attempt,
            token,
            reason,
            2 * len(of_round),
            *_flat(of_round),
            *_flat({**of_manifest, **model.to_hash()}),
        ]
        self._move("commit_round", [self.keys.state, self.keys.round(round_), self.keys.log], args)

    def fail_attempt(
        self,
        round_: int,
        *,
        attempt: int,
        token: str,
        reason: str,
        spoiled: Sequence[str] = (),
        unfit: Mapping[str, str] | None = None,
        passing: bool = False,
    ) -> None:
        """Report that this attempt went wrong; the next one goes without the contributors in `spoiled` and `unfit`.

        Of those in `spoiled` the object is to blame; of those in `unfit` the update itself, for that reason.
        `passing`: it did for a reason that goes away by itself or by an operator, such as a store that is full or away;
        then it counts for none, and is made again.
        """
        unfit = unfit or {}
        without = list(dict.fromkeys([*spoiled, *unfit]))
        left_out = json.dumps(without) if without else ""
        keys = [self.keys.round(round_), self.keys.log]
        args: list[str | int] = [round_, attempt, token, reason, left_out, "1" if passing else ""]
        self._move("fail_attempt", keys, [*args, json.dumps(dict(unfit)) if unfit else ""])

    def note_store_away(self, round_: int) -> None:
        """Let the coordinator know that an inspection ended for what passes by itself: no update is to blame."""
        self._call("note_store_away", [self.keys.round(round_)], [])

    def give_back_round(self, round_: int, *, attempt: int, token: str, reason: str) -> None:
        """Give up the right to commit this attempt, which another worker may take then; it does not count as failed."""
        self._move("give_back_round", [self.keys.round(round_), self.keys.log], [round_, attempt, token, reason])

    def reference(self, round_: int) -> Reference | None:
        """The object whose structure this round's updates must have, or None as long as that is not decided."""
        with translated(self.where):
            decided = self.redis.hget(self.keys.round(round_), "reference")
        return Reference.from_text(decided) if decided else None

    # -- transitions of either

    def judge(self, round_: int, client: str, verdict: Verdict) -> Recorded:
        """Record a verdict, if it is the first on this try of the client, else nothing changes.

        An update whose round is no longer open is refused as late, whatever its inspection found. In a round that is
        not there nothing is recorded.
        """
        refused = "update.blameless" if verdict.blameless else "update.refused"
        return self._judge(round_, client, "update.accepted" if verdict.accepted else refused, verdict)

    def refuse_late(self, round_: int, client: str, try_id: str = "") -> Recorded:
        """Refuse a try as `late`; nothing is recorded when it has a verdict or its round is open."""
        return self._judge(round_, client, "update.late", late(round_, try_id))

    def note(self, event: str, client: str, reason: str, *, round_: int, names_round: bool = False) -> Recorded:
        """Log what a client has caused in this round, unless it has caused too much of it there."""
        keys = [self.keys.entries(round_), self.keys.log]
        args: list[str | int] = [client, MOST_ENTRIES, MORE_IS_LEFT_OUT, event, reason, round_ if names_round else ""]
        return Recorded(self._call("note_client", keys, args))

    def take_left_out(self, round_: int) -> dict[str, int]:
        """How many entries that it caused in this round are not in the log, of each client with such.

        Each is given once: the coordinator that takes them tells of them, and no other.
        """
        key = self.keys.entries(round_)
        with translated(self.where):
            found = self.redis.hgetall(key)
            new = {
                client: more
                for client, number in found.items()
                if ":" not in client and (more := int(number) - MOST_ENTRIES - int(found.get(f"told:{client}", 0))) > 0
            }
            if new:
                with self.redis.pipeline(transaction=False) as marks:
                    for client, more in new.items():
                        marks.hincrby(key, f"told:{client}", more)
                    marks.execute()
        return new

    def _judge(self, round_: int, client: str, event: str, verdict: Verdict) -> Recorded:
        keys = [self.keys.verdicts(round_), self.keys.log, self.keys.round(round_)]
        keys += [self.keys.client(client).verdict(round_), self.keys.refusals, self.keys.entries(round_)]
        too_late = late(round_, verdict.try_id)
        args: list[str | int] = [client, round_, verdict.to_json(), event, verdict.reason, too_late.to_json()]
        args.append(too_late.reason)
        args += [verdict.try_id, MOST_ENTRIES, MORE_IS_LEFT_OUT]
        return Recorded(self._call("judge_update", keys, args))

    def end(
        self, state: RunState, reason: str, *, detail: str = "", token: str = "", seen: RoundView | None = None
    ) -> None:
        """End the run; `IllegalMove` when it has ended already.

        Every site can read `reason`; the log, which no site reads, has `detail` in its place. A coordinator gives its
        lease's `token`, and `LeaseLost` is raised when it is no longer the holder's; and the current round as it was
        `seen` when that was decided: `IllegalMove`, when it has gone on since.
        """
        basis, accepted = "", list[str]()
        if seen is not None:
            basis = f"{seen.state.value} {seen.attempt}"
            accepted = [client for client, verdict in seen.verdicts.items() if verdict.accepted]
        while True:
            round_ = seen.round if seen is not None else self.read().round
            keys = [self.keys.state, self.keys.log, self.keys.round(round_), self.keys.coordinator]
            args: list[str | int] = [state, reason, round_, token, detail or reason, basis, json.dumps(accepted)]
            try:
                self._move("end_run", [*keys, self.keys.verdicts(round_)], args)
            except IllegalMove:
                if seen is not None or self.read().round == round_:
                    raise
            else:
                return

    def resume(
        self,
        token: str,
        round_: int,
        *,
        config: Mapping[str, Any],
        changed: Sequence[str],
        closed: int,
        spoiled: Sequence[str],
        timeout_s: float,
        reason: str,
    ) -> None:
        """Let an ended run go on from its round `round_`, with these settings; see `flavor.coordinator.resume`.

        `token` is that of the coordinator's lease. The updates of `spoiled` are forgotten, so that they are handed in
        again.
        """
        keys = [self.keys.coordinator, self.keys.state, self.keys.log, self.keys.round(round_)]
        keys.append(self.keys.verdicts(round_))
        for client in spoiled:
            keys += [self.keys.client(client).update(round_), self.keys.client(client).verdict(round_)]
        args: list[str | int] = [token, round_, json.dumps(config), int(config["rounds"]), reason]
        args += [json.dumps(list(changed)), int(timeout_s * 1000), closed, *spoiled]
        self._move("resume_run", keys, args)

    def how_it_ended(self) -> str:
        """Why the run ended last, as the log tells the operator; '' when the log has it no more."""
        with translated(self.where):
            for _, fields in self.redis.xrevrange(self.keys.log, count=100):
                if fields.get("event") in (f"run.{state}" for state in RunState if state.ended):
                    return str(fields.get("reason", ""))
        return ""

    def pin_key(self, client: str, public_key: str) -> str:
        """Make `public_key` the one that this client's updates must be signed with; returns the one that stands.

        The first stands, unless an operator replaces it; '' for one that was replaced: that is never pinned again. For
        trusted processes alone: no edge may write that hash.
        """
        from flavor.records.names import checked_name

        keys = [self.keys.public_keys, self.keys.replaced]
        return str(self._call("pin_key", keys, [checked_name(client, "client"), public_key]))

    def replace_key(self, client: str, public_key: str) -> bool:
        """Pin this key for a client, or none, in place of any other: an operator's act, which the run keeps.

        False, and nothing is done, for a key that was replaced before.
        """
        own = self.keys.client(client)
        keys = [self.keys.state, self.keys.public_keys, own.admission, own.state, self.keys.replaced]
        return bool(self._call("replace_key", keys, [client, public_key, RECORDED]))

    def log(self, event: str, *, reason: str, client: str = "", round_: int | None = None) -> None:
        """Append to the run's log."""
        fields = {"event": event, "reason": reason}
        if client:
            fields["client"] = client
        if round_ is not None:
            fields["round"] = str(round_)
        with translated(self.where):
            self.redis.xadd(self.keys.log, fields, maxlen=LOG_LENGTH, approximate=True)

    # -- reads

    def find(self) -> RunView | None:
        """The run, or None when there is none of this name."""
        with translated(self.where):
            fields = self.redis.hgetall(self.keys.state)
        if not fields:
            return None
        try:
            return RunView.from_hash(self.run, fields)
        except ValueError:  # who administers the server can write anything there
            raise RunError(
                f"run {self.run!r} on Redis at {self.where}: what stands there is no state of a run: who administers "
                "the server may have changed it, and `flavor recover` rebuilds it from the store"
            ) from None

    def read(self) -> RunView:
        """The run; raises `RunNotFound`."""
        view = self.find()
        if view is None:
            raise RunNotFound(f"there is no run {self.run!r} on Redis at {self.where}: `flavor status` lists the runs")
        return view

    def read_own(self) -> RunView:
        """The run, for whoever takes part in it; raises `RunNotFound`, and `OtherProtocol` when it cannot."""
        view = self.read()
        check_run(self.run, view.protocol)
        return view

    def read_round(self, round_: int) -> RoundView | None:
        """A round with its verdicts, or None when it was never opened (or is pruned).

        The two belong together where the round was the same before and after its verdicts were read. A transaction
        would see to that as well, and a server that is full refuses even those that only read.
        """
        key = self.keys.round(round_)
        with translated(self.where):
            while True:
                with self.redis.pipeline(transaction=False) as reads:
                    before, verdicts, fields = (
                        reads.hgetall(key).hgetall(self.keys.verdicts(round_)).hgetall(key).execute()
                    )
                if before == fields:
                    return RoundView.from_hash(round_, fields, verdicts) if fields else None

    def manifest_digests(self, rounds: Sequence[int]) -> list[str]:
        """The digest of each round's manifest, '' for one that has none, in one round trip."""
        with translated(self.where), self.redis.pipeline(transaction=False) as reads:
            for round_ in rounds:
                reads.hget(self.keys.round(round_), "manifest_digest")
            return [digest or "" for digest in reads.execute()]

    def closed(self, view: RunView) -> tuple[int, RoundView | None]:
        """The number of the newest closed round, 0 before the first; and the run's current round, closed or not."""
        current = self.read_round(view.round) if view.round else None
        if current is not None and current.state is RoundState.CLOSED:
            return view.round, current
        return max(0, view.round - 1), current

    def verdicts(self, round_: int, clients: Iterable[str]) -> dict[str, Verdict]:
        """The verdicts of this round on these clients' updates, where there are any."""
        names = list(clients)
        if not names:
            return {}
        with translated(self.where):
            texts = self.redis.hmget(self.keys.verdicts(round_), names)
        return {name: Verdict.from_json(text) for name, text in zip(names, texts, strict=True) if text is not None}

    def refusals(self) -> dict[str, int]:
        """How many updates in a row were refused, of each client whose last one was."""
        with translated(self.where):
            return {client: int(number) for client, number in self.redis.hgetall(self.keys.refusals).items()}

    def pardon(self, client: str) -> bool:
        """Forget a client's refused updates, which ends its quarantine; False when there were none."""
        with translated(self.where):
            forgotten = bool(self.redis.hdel(self.keys.refusals, client))
            if forgotten:
                self.log("client.pardoned", client=client, reason="by an operator")
                self.redis.publish(self.keys.client(client).state, "")
        return forgotten

    def members(self) -> list[str]:
        """The clients that have joined, sorted."""
        with translated(self.where):
            return sorted(self.redis.smembers(self.keys.members))

    def public_keys(self) -> dict[str, str]:
        """Client to the public key that is pinned for it."""
        with translated(self.where):
            return dict(self.redis.hgetall(self.keys.public_keys))

    def replaced(self) -> dict[str, tuple[str, ...]]:
        """Client to the keys that an operator has replaced since the run began, oldest first.

        While the run is not there, `RECORDED` among them stands for the one that its records have.
        """
        with translated(self.where):
            return {client: tuple(keys.split()) for client, keys in self.redis.hgetall(self.keys.replaced).items()}

    def scan_clients(self, cursor: int) -> tuple[int, set[str]]:
        """Clients whose edge lives, among about a thousand of the server's keys from `cursor` on, and the next cursor.

        It is 0 for the first call, and again after the last keys.
        """
        with translated(self.where):
            cursor, keys = self.redis.scan(cursor, match=self.keys.leases_pattern, count=1000)
        return int(cursor), {parsed[0] for key in keys if (parsed := self.keys.parse_client_channel(key))}

    def clients(self, names: Iterable[str]) -> dict[str, tuple[dict[str, str], bool]]:
        """For each client: the known fields of its hash, and whether its edge holds its lease.

        One that has written something else there, or far too much, says that it has failed.
        """
        names = list(names)
        keys = [self.keys.client(name) for name in names]
        found = self._of_clients([key.hash for key in keys], CLIENT_FIELDS, [key.lease for key in keys])
        return {
            name: ({"state": ClientState.FAILED.value, "reason": said} if isinstance(said, str) else said, lives)
            for name, (said, lives) in zip(names, found, strict=True)
        }

    def updates(
        self, round_: int, names: Iterable[str], *, base: ObjectRef | None = None
    ) -> dict[str, Update | Refused]:
        """For each client that handed something in: what it was, in this round, whose global model is `base`."""
        names = list(names)
        found = self._of_clients([self.keys.client(name).update(round_) for name in names], update.FIELDS)
        handed_in = [{"refused": fields} if isinstance(fields, str) else fields for fields, _ in found]
        return {
            name: update.from_hash(fields, base=base) for name, fields in zip(names, handed_in, strict=True) if fields
        }

    def _of_clients(
        self, hashes: Sequence[str], names: Sequence[str], others: Sequence[str] = ()
    ) -> list[tuple[dict[str, str] | str, bool]]:
        """The fields `names` of these hashes, which clients write; of one that is none, or too large, what is wrong.

        Nothing else of them is read, and no client keeps anything from being read of the others. And for each of them,
        whether the key in `others` is there.
        """
        found: list[tuple[dict[str, str] | str, bool]] = []
        for start in range(0, len(hashes), _AT_ONCE):
            some, beside = hashes[start : start + _AT_ONCE], others[start : start + _AT_ONCE]
            answers = self._call("read_hashes", [*some, *beside], [LONGEST_FIELD_BYTES, len(some), *names])
            there = answers[len(some) :] or [0] * len(some)
            found += [(_fields(each, names), bool(is_there)) for each, is_there in zip(answers, there, strict=False)]
        return found

    def remove_keys(self, pattern: str = "") -> None:
        """Remove every key of the run that begins with `pattern`; names that are no text too, which a client chose."""
        with translated(self.where):
            remove_keys(self.redis, f"{self.keys.prefix}{pattern}")

    def now_ms(self) -> int:
        """The server's clock, in milliseconds."""
        with translated(self.where):
            seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def forget_round(self, round_: int, clients: Iterable[str], *, whole: bool = False) -> None:
        """Delete the per-client keys of an old round; `whole`: its own hash and verdicts as well."""
        from flavor.records.names import Event

        keys = [self.keys.round(round_), self.keys.verdicts(round_), self.keys.entries(round_)] if whole else []
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


def list_runs(redis: Redis, url: str = "") -> list[str]:
    """The names of all runs, oldest first."""
    with translated(shown(url)):
        return [str(name) for name in redis.zrange(RUNS, 0, -1)]
