"""The clients of a run in Redis: the members, the keys that are pinned for them, their status and their updates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import redis

from flavor.bus.connection import translated
from flavor.bus.plain_read import plain_read_hashes
from flavor.bus.scripts import RunScripts
from flavor.errors import BusUnavailable
from flavor.records import client as client_record
from flavor.records import pulse, update
from flavor.records.client import ClientStatus
from flavor.records.model import GlobalModel
from flavor.records.names import MOST_LOG_BYTES, MOST_LOG_LINES, checked_name
from flavor.records.objects import ObjectRef
from flavor.records.pulse import Pulse
from flavor.records.states import ClientState
from flavor.records.task import Task
from flavor.records.update import Refused, Update

RECORDED = "recorded"
"""Stands for a client's key in the run's records, where an operator replaced it while the run was not there."""
LONGEST_FIELD_BYTES = 16 * 1024
_AT_ONCE = 500
"""How many hashes of clients one call of a script reads."""


def _fields(answer: Any, names: Sequence[str]) -> dict[str, str] | str:
    """The fields of one hash, or what is wrong with it, from the answer of the script `read_hashes`."""
    if answer == 0:
        return {}
    if isinstance(answer, list):
        return {name: value for name, value in zip(names, answer, strict=False) if value is not None}
    if answer == 1:
        return "what stands there is no hash"
    return f"its field {answer!r} is larger than {LONGEST_FIELD_BYTES} bytes"


class Clients(RunScripts):
    """The clients of one run. See `RunStore`."""

    _is_without_scripts = False
    """Whether the server has refused this user a script that reads."""

    def admit(self, token: str, client: str, reason: str, *, event: str = "client.joined") -> bool:
        """Make `client` a member, also one that has left again by now; returns whether it is new."""
        keys = [self.keys.coordinator, self.keys.state, self.keys.members, self.keys.log]
        return self.move("admit_client", keys, [token, client, reason, event]) == "1"

    def members(self) -> list[str]:
        """The clients that have joined, sorted."""
        with translated(self.where):
            return sorted(self.redis.smembers(self.keys.members))

    def scan_clients(self, cursor: int) -> tuple[int, set[str]]:
        """Look through about a thousand of the server's keys from `cursor` on for clients that have said anything.

        Returns the next cursor and the clients. The cursor is 0 for the first call, and again after the last keys.
        """
        with translated(self.where):
            cursor, keys = self.redis.scan(cursor, match=self.keys.clients_pattern, count=1000, _type="hash")
        parsed = (self.keys.parse_client_channel(key) for key in keys)
        return int(cursor), {each[0] for each in parsed if each is not None and not each[1]}

    def clients(self, names: Iterable[str]) -> dict[str, tuple[ClientStatus, int]]:
        """For each client: what its edge says of itself, and how many milliseconds its lease has left.

        These are 0 for a client whose lease is not there, and -1 for a lease that never ends.

        A client that has written something else there, or far too much, counts as one that says that it has failed.
        """
        names = list(names)
        keys = [self.keys.client(name) for name in names]
        found = self._of_clients([key.hash for key in keys], client_record.FIELDS, [key.lease for key in keys])
        return {
            name: (
                ClientStatus(ClientState.FAILED, said) if isinstance(said, str) else ClientStatus.from_hash(said),
                left_ms,
            )
            for name, (said, left_ms) in zip(names, found, strict=True)
        }

    def pulses(self, names: Iterable[str]) -> dict[str, Pulse]:
        """What each client is doing, in the words of its edge and its script; an empty pulse for invalid words."""
        names = list(names)
        found = self._of_clients([self.keys.client(name).hash for name in names], pulse.FIELDS)
        return {
            name: Pulse() if isinstance(said, str) else Pulse.from_hash(said)
            for name, (said, _) in zip(names, found, strict=True)
        }

    def clients_and_pulses(
        self, names: Iterable[str], *, without_lease: Collection[str] = ()
    ) -> dict[str, tuple[ClientStatus, int, Pulse]]:
        """What `clients` and `pulses` return of each client, read at once.

        The leases of the clients in `without_lease` are not read: 0 stands for them.
        """
        names = sorted(names, key=lambda name: name in without_lease)
        keys = [self.keys.client(name) for name in names]
        leases = [self.keys.client(name).lease for name in names if name not in without_lease]
        fields = (*client_record.FIELDS, *pulse.FIELDS)
        found = self._of_clients([key.hash for key in keys], fields, leases)
        both: dict[str, tuple[ClientStatus, int, Pulse]] = {}
        for name, (said, left_ms) in zip(names, found, strict=True):
            if isinstance(said, str):  # only one of them may be invalid
                both[name] = *self.clients([name])[name], self.pulses([name])[name]
            else:
                both[name] = ClientStatus.from_hash(said), left_ms, Pulse.from_hash(said)
        return both

    def shared_log(self, client: str) -> list[str]:
        """The last lines of the output of a client's script, raw, as its site shares them; none where it does not."""
        key = self.keys.client(client).log
        with translated(self.where):
            try:
                text = str(self.redis.getrange(key, -MOST_LOG_BYTES, -1))
            except redis.exceptions.ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                return []
        return text.split("\n")[-MOST_LOG_LINES:] if text else []

    def updates(
        self,
        round_: int,
        names: Iterable[str],
        *,
        base: ObjectRef | None = None,
        since: Mapping[str, int] | None = None,
    ) -> dict[str, Update | Refused]:
        """What each client has handed in for this round, if anything; `base` is the global model of the round.

        `since` names the clients that do the task of an earlier round, and that round.
        """
        names, since = list(names), since or {}
        keys = [self.keys.client(name).update(since.get(name, round_)) for name in names]
        found = self._of_clients(keys, update.FIELDS)
        handed_in = [{"refused": fields} if isinstance(fields, str) else fields for fields, _ in found]
        return {
            name: update.from_hash(fields, base=base) for name, fields in zip(names, handed_in, strict=True) if fields
        }

    def given(self, tasks: Mapping[str, int]) -> dict[str, GlobalModel]:
        """The global model that each client got with its task of this round, by client.

        Lacks clients whose task is gone, or names no model. Raises `DamagedRecord`.
        """
        with translated(self.where), self.redis.pipeline(transaction=False) as reads:
            for client, round_ in tasks.items():
                reads.hgetall(self.keys.client(client).task(round_))
            answers = reads.execute()
        found = {}
        for (client, round_), fields in zip(tasks.items(), answers, strict=True):
            with self.damage_at(self.keys.client(client).task(round_)):
                task = Task.from_hash(round_, fields)
            if task is not None and task.base is not None:
                found[client] = task.base
        return found

    def _of_clients(
        self, hashes: Sequence[str], names: Sequence[str], others: Sequence[str] = ()
    ) -> list[tuple[dict[str, str] | str, int]]:
        """Read the fields `names` of these hashes, which clients write, and how long the keys in `others` live.

        The first of `others` comes with the first hash, and so on; the hashes after the last of them come with 0.
        For a key that is no hash, or a field that is too large, returns what is wrong in place of the fields. Nothing
        else is read, and no client can keep the hashes of the others from being read. A user that may run no scripts,
        such as a viewer's, reads them with plain commands.
        """
        found: list[tuple[dict[str, str] | str, int]] = []
        for start in range(0, len(hashes), _AT_ONCE):
            some, beside = hashes[start : start + _AT_ONCE], others[start : start + _AT_ONCE]
            answers = self._read_hashes(some, names, beside)
            there = [*answers[len(some) :], *[0] * (len(some) - len(beside))]
            found += [(_fields(each, names), int(left_ms)) for each, left_ms in zip(answers, there, strict=False)]
        return found

    def _read_hashes(self, hashes: Sequence[str], names: Sequence[str], others: Sequence[str]) -> list[Any]:
        """Return what the script `read_hashes` returns."""
        if not self._is_without_scripts:
            try:
                return list(self.call("read_hashes", [*hashes, *others], [LONGEST_FIELD_BYTES, len(hashes), *names]))
            except BusUnavailable as error:
                if not isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                    raise
                self._is_without_scripts = True
        with translated(self.where):
            return plain_read_hashes(self.redis, hashes, names, others, most_bytes=LONGEST_FIELD_BYTES)

    def pin_key(self, client: str, public_key: str) -> str:
        """Pin `public_key` as the key that must sign this client's updates; returns the key that is pinned.

        The first key stays pinned, unless an operator replaces it. Returns '' for a key that was replaced, which is
        never pinned again. Only trusted processes call this: no edge may write that hash.
        """
        keys = [self.keys.public_keys, self.keys.replaced]
        return str(self.call("pin_key", keys, [checked_name(client, "client"), public_key]))

    def replace_key(self, client: str, public_key: str) -> bool:
        """Pin this key for a client in place of any other, as an operator; '' pins none. The run records the change.

        Returns False, and does nothing, for a key that was replaced before.
        """
        own = self.keys.client(client)
        keys = [self.keys.state, self.keys.public_keys, own.admission, own.state, self.keys.replaced]
        return bool(self.call("replace_key", keys, [client, public_key, RECORDED]))

    def public_keys(self) -> dict[str, str]:
        """The public key that is pinned for each client."""
        with translated(self.where):
            return dict(self.redis.hgetall(self.keys.public_keys))

    def replaced(self) -> dict[str, tuple[str, ...]]:
        """The keys of each client that an operator has replaced since the run began, oldest first.

        `RECORDED` among them stands for the key in the run's records, which was replaced while the run was not there.
        """
        with translated(self.where):
            return {client: tuple(keys.split()) for client, keys in self.redis.hgetall(self.keys.replaced).items()}
