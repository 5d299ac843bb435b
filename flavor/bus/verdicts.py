"""Verdicts on updates in Redis, and the limit of the log entries that one client can cause."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from flavor.bus.connection import translated
from flavor.bus.scripts import RunScripts
from flavor.records.damage import field_of, number
from flavor.records.measured import Measured
from flavor.records.verdict import Verdict

MOST_ENTRIES = 20
"""Entries of the log that one client can cause in one round, beside the one of an update that is accepted; later one
more each ten minutes."""
MORE_IS_LEFT_OUT = "; what else it causes in this round is counted, and left out for ten minutes"


class Recorded(IntEnum):
    """Whether a client's event was recorded, and whether it is in the log."""

    NOT = 0
    """Not recorded: it is known already."""
    TOLD = 1
    """Recorded, and in the log."""
    COUNTED = 2
    """Recorded, and not in the log, which has enough entries of that client in that round."""
    LAST = 3
    """Recorded, and in the log as the last entry of that client in that round for now."""
    ACCEPTED = 4
    """The update is accepted, and that is in the log. Every other recorded verdict is a refusal."""

    def line(self, text: str) -> str:
        """Return the line for a terminal, '' for none: a terminal shows what the log has."""
        if self in (Recorded.NOT, Recorded.COUNTED):
            return ""
        return text + MORE_IS_LEFT_OUT if self is Recorded.LAST else text


def late(round_: int, try_id: str = "") -> Verdict:
    """Return the verdict on a try whose round is no longer open."""
    return Verdict(False, f"late: round {round_} no longer takes updates", try_id=try_id)


def not_admitted(try_id: str = "") -> Verdict:
    """Return the verdict on a try of a client that the run does not admit."""
    return Verdict(False, "the run does not admit its edge, and told it why", blameless=True, try_id=try_id)


class Verdicts(RunScripts):
    """The verdicts of one run, and its clients' refusals in a row. See `RunStore`."""

    def judge(
        self,
        round_: int,
        client: str,
        verdict: Verdict,
        measured: Measured | None = None,
        *,
        task_round: int | None = None,
    ) -> Recorded:
        """Record a verdict, if it is the first on this try of the client; otherwise change nothing.

        An update whose round is no longer open is refused as late, and one of a client that the run does not admit is
        refused, also where its inspection accepted it: only `Recorded.ACCEPTED` says that the update counts. An
        accepted update of a quarantined client is not recorded, nor is anything about a round that does not exist.
        `measured` is recorded with the verdict, for people who look at the run. `task_round` is the round whose task
        the client has done, where that is an earlier one.
        """
        refused = "update.blameless" if verdict.blameless else "update.refused"
        event = "update.accepted" if verdict.accepted else refused
        return self._judge(round_, client, event, verdict, measured, task_round=task_round)

    def refuse_late(self, round_: int, client: str, try_id: str = "", measured: Measured | None = None) -> Recorded:
        """Refuse a try as late. Records nothing when the try has a verdict or its round is open."""
        return self._judge(round_, client, "update.late", late(round_, try_id), measured)

    def _judge(
        self,
        round_: int,
        client: str,
        event: str,
        verdict: Verdict,
        measured: Measured | None = None,
        *,
        task_round: int | None = None,
    ) -> Recorded:
        keys = [self.keys.verdicts(round_), self.keys.log, self.keys.round(round_)]
        of_client = self.keys.client(client)
        keys += [of_client.verdict(task_round or round_), self.keys.refusals, self.keys.entries(round_)]
        keys += [self.keys.state, of_client.admission, self.keys.measured(round_)]
        too_late, kept_out = late(round_, verdict.try_id), not_admitted(verdict.try_id)
        args: list[str | int] = [client, round_, verdict.to_json(), event, verdict.reason, too_late.to_json()]
        args.append(too_late.reason)
        args += [verdict.try_id, MOST_ENTRIES, MORE_IS_LEFT_OUT]
        args += [kept_out.to_json(), kept_out.reason, measured.to_json() if measured is not None else ""]
        return Recorded(self.call("judge_update", keys, args))

    def note(self, event: str, client: str, reason: str, *, round_: int, names_round: bool = False) -> Recorded:
        """Log an event that a client has caused in this round, unless the client has reached its limit of entries."""
        keys = [self.keys.entries(round_), self.keys.log]
        args: list[str | int] = [client, MOST_ENTRIES, MORE_IS_LEFT_OUT, event, reason, round_ if names_round else ""]
        return Recorded(self.call("note_client", keys, args))

    def take_left_out(self, round_: int) -> dict[str, int]:
        """Return, by client, how many entries of this round were left out of the log.

        Each number is returned once: the coordinator that takes them reports them, and no other one does.
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

    def verdicts(self, round_: int, clients: Iterable[str]) -> dict[str, Verdict]:
        """Return the verdicts of this round on these clients' updates, by client."""
        names = list(clients)
        if not names:
            return {}
        with translated(self.where):
            texts = self.redis.hmget(self.keys.verdicts(round_), names)
        found = {name: text for name, text in zip(names, texts, strict=True) if text is not None}
        with self.damage_at(self.keys.verdicts(round_)):
            return {name: field_of(found, name, Verdict.from_json) for name in found}

    def refusals(self) -> dict[str, int]:
        """Return, by client, how many updates in a row were refused, for clients whose last update was refused."""
        found = self.hash_at(self.keys.refusals)
        with self.damage_at(self.keys.refusals):
            return {client: field_of(found, client, number) for client in found}

    def pardon(self, client: str) -> bool:
        """Forget a client's refused updates, which ends its quarantine; False when there were none.

        Also forgets those that its accepted update of the current round has cleared: they do not count again if that
        acceptance is taken back.
        """
        with translated(self.where):
            with self.redis.pipeline(transaction=True) as step:
                step.hdel(self.keys.refusals, client)
                step.hdel(self.keys.round(int(self.redis.hget(self.keys.state, "round") or 0)), f"forgiven:{client}")
                forgotten = bool(step.execute()[0])
            if forgotten:
                self.log("client.pardoned", client=client, reason="by an operator")
                self.redis.publish(self.keys.client(client).state, "")
        return forgotten
