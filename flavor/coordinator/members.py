"""The clients of a run as its coordinator sees them: admitted or not, by which key, gone or quarantined."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from flavor.bus.admission import tell_admission
from flavor.bus.runs import RunStore
from flavor.coordinator.client_log import ClientLog
from flavor.errors import InvalidSetting
from flavor.ledger.keys import PublicKey, fingerprint
from flavor.policy.standing import TRAINS_NOT, Client, client_of, is_awaited, is_genuine, is_quarantined
from flavor.printable import quoted
from flavor.protocol import OLDEST, client_refusal
from flavor.records.admission import Admission
from flavor.records.client import ClientStatus
from flavor.records.remarks import Remark, sentence
from flavor.records.states import ClientState
from flavor.view.client_events import (
    ClientEvent,
    ClientGone,
    ClientJoined,
    ClientLeft,
    ClientLost,
    ClientNotAdmitted,
    ClientOtherKey,
    ClientQuarantined,
    ClientSets,
    ClientStopped,
    ClientWarned,
)
from flavor.view.event import Notice
from flavor.view.observer import Observer

_ENDED = (ClientState.FAILED, ClientState.LEFT)
_SHOWN = 20
"""Most variables of a site that a line names."""
_SCAN_S = 0.01
"""Seconds for which the keys of the server are searched for clients at a time."""


class Members:
    """The clients of one run, as they were read.

    `only` names the clients that may take part; None admits every one. `resumed_ms` is when the run was resumed last.
    A client that has ended since `since_ms` is reported, also where its own events were not heard; None reports none.
    `protocol` is the run's version of the protocol.
    """

    def __init__(
        self,
        runs: RunStore,
        observer: Observer,
        client_log: ClientLog,
        *,
        quarantine_after: int,
        lease_s: float,
        only: frozenset[str] | None,
        resumed_ms: int = 0,
        since_ms: int | None = None,
        protocol: int = OLDEST,
    ) -> None:
        self._protocol = protocol
        self._runs, self._observer, self._client_log = runs, observer, client_log
        self._quarantine_after, self._only = quarantine_after, only
        self._lease_s, self._resumed_ms, self._since_ms = lease_s, resumed_ms, since_ms
        self._stopped: dict[str, float] = {}  # client -> when its edge was first seen stopped by a signal (monotonic)
        self._too_long: dict[str, float] = {}  # client -> when its lease was first seen with too much left (monotonic)
        self.clients: dict[str, Client] = {}
        self.names: set[str] = set()
        """The clients that were ever admitted."""
        self._keys: dict[str, str] = {}  # client -> the public key that is pinned for it
        self._refusals: dict[str, int] = {}
        self._took_no_part: set[str] = set()  # clients that had ended before they were seen, and have not come again
        self._strangers: set[str] = set()
        self._told: dict[str, tuple[str, str]] = {}  # client -> why it is not admitted, and by which key
        # client -> the key by which it was told that it is admitted, and after how many refusals it is quarantined
        self._welcomed: dict[str, tuple[str, int]] = {}
        self._sets: dict[str, tuple[str, ...]] = {}  # client -> the variables that its site sets itself, as told
        self._remarks: dict[str, set[Remark]] = {}  # client -> what its edge has warned of, as told
        self._cursor = 0  # how far the server's keys have been looked through for clients

    @property
    def not_admitted(self) -> dict[str, str]:
        """Why clients that are there are not admitted, by name."""
        return {name: why for name, (why, _) in self._told.items()}

    def forget(self) -> None:
        """Forget the clients, because the run was rebuilt and they are those of another history."""
        self.clients, self._keys, self._told, self._welcomed = {}, {}, {}, {}

    def read_all(self, *, token: str | None, lenient: Callable[[], bool]) -> None:
        """Read every client that is known or found on the server; see `read`."""
        self.names = set(self._runs.members())
        self._refusals, self._keys = self._runs.refusals(), self._runs.public_keys()
        known = self.names | set(self.clients)
        self.read(known | self._come(self._found() - known), token=token, lenient=lenient)

    def read(self, names: Iterable[str], *, token: str | None, lenient: Callable[[], bool]) -> None:
        """Read these clients, and report how each has changed.

        New clients are admitted with the coordinator's `token`; without a token, none is. Where `lenient` is True after
        the server has answered, a client whose lease is missing does not count as gone: the server may have been away
        for longer than a lease in the middle of this.
        """
        found = self._runs.clients(names)
        is_lenient = lenient()
        for name, (status, left_ms) in found.items():
            before = self.clients.get(name)
            if self._is_stranger(name):
                continue
            state = status.known_state or (before.state if before is not None else None)
            if state is None:  # without a known state, the state that was read before stands
                continue
            quarantined = is_quarantined(self._refusals.get(name, 0), self._quarantine_after)
            if before is not None and quarantined and not before.quarantined:
                self._quarantine(name)
            if status.state and not state.gone and (refused := self._refusal(name, status)):
                if name in self.names:  # another edge has used its name, or its edge is another one now
                    self.clients[name] = Client(
                        ClientState.FAILED, alive=False, reason=refused, quarantined=quarantined, is_admitted=False
                    )
                continue
            alive = self._awaited(name, state, self._holds(name, left_ms))
            client = client_of(
                status,
                state,
                is_there=alive or is_lenient,
                is_quarantined=quarantined,
                resumed_ms=self._resumed_ms,
            )
            if state is ClientState.FAILED and (told := self._told.get(name)) and told[1] == status.public_key:
                client = replace(client, reason=told[0])  # with the command that lets it in; the edge has ended for it
            self.clients[name] = client
            news = name not in self.names or (name in self._took_no_part and not state.gone)
            if news and token is not None and name not in self._told:  # refused, and ended since
                self._admit(token, name, status, client)
                self._welcome(name, status)
            elif before is not None and not before.gone and client.gone:
                self._client_log.note(_gone(state)(client.why_gone, name))
            elif before is not None and state is ClientState.STOPPED is not before.state and not client.gone:
                self._client_log.note(ClientStopped(f"{client.reason or 'its edge was stopped'}: it is awaited", name))
            if name in self.names and not client.gone:
                self._tell_own_settings(name, status.sets)
                self._tell_remarks(name, status.remarks)

    def _tell_own_settings(self, name: str, sets: tuple[str, ...]) -> None:
        """Log which variables the client's site sets for its script itself, if that has changed."""
        if sets != self._sets.get(name, ()):
            self._sets[name] = sets
            shown = f"{', '.join(sets[:_SHOWN])}{' and more' if len(sets) > _SHOWN else ''}"
            what = f"sets {shown} for its script" if sets else "sets no variable of its script any more"
            counts = ": the run's values for them do not count there" if sets else ""
            self._client_log.note(ClientSets(f"its site itself {what} (--set){counts}", name))

    def _tell_remarks(self, name: str, remarks: Iterable[Remark]) -> None:
        """Log what the client's edge has warned its site's user of, each once for a site."""
        told = self._remarks.setdefault(name, set())
        for remark in remarks:
            if remark not in told:
                told.add(remark)
                self._client_log.note(ClientWarned(f"its edge warns its user: {sentence(remark)}", name))

    def is_quarantined(self, name: str) -> bool:
        """Whether this client gets no tasks, and its updates do not count, until an operator pardons it."""
        client = self.clients.get(name)
        return client is not None and client.quarantined

    def is_admitted(self, name: str) -> bool:
        """Whether the run admits this client's edge, as far as is known."""
        client = self.clients.get(name)
        return client is None or client.is_admitted

    def _holds(self, name: str, left_ms: int) -> bool:
        """Whether the client's edge holds its lease.

        After a jump of the server's clock every lease has too much left. An edge that lives has renewed it within one
        lease time.
        """
        if not left_ms or is_genuine(left_ms, self._lease_s):
            self._too_long.pop(name, None)
            return bool(left_ms)
        now = time.monotonic()
        return now - self._too_long.setdefault(name, now) < self._lease_s

    def _awaited(self, name: str, state: ClientState, alive: bool) -> bool:
        """Whether the client counts as present: it holds its lease, or was stopped by a signal and is awaited."""
        if state is not ClientState.STOPPED:
            self._stopped.pop(name, None)
            return alive
        now = time.monotonic()
        return alive or is_awaited(state, now - self._stopped.setdefault(name, now), self._lease_s)

    def recount(self, names: Iterable[str], *, refused: bool) -> bool:
        """Read the refusals again if an update was `refused` or one of these clients has some.

        Return whether the refusals were read.
        """
        if not refused and not any(name in self._refusals for name in names):
            return False
        self._refusals = self._runs.refusals()
        return True

    def _found(self) -> set[str]:
        """Search a part of the server's keys for clients, whose own events may have been lost."""
        until, found = time.monotonic() + _SCAN_S, set[str]()
        while True:
            self._cursor, clients = self._runs.scan_clients(self._cursor)
            found |= clients
            if not self._cursor or time.monotonic() > until:
                return found

    def _come(self, names: set[str]) -> set[str]:
        """Return those of these clients that are there, or have ended in this run, by their own account.

        What an edge has left behind in an earlier run of the name says nothing.
        """
        return {
            name
            for name, (status, left_ms) in self._runs.clients(names).items()
            if left_ms
            or (status.known_state in _ENDED and self._since_ms is not None and status.told_ms >= self._since_ms)
        }

    def _admit(self, token: str, name: str, status: ClientStatus, client: Client) -> None:
        """Make the client a member, and report that; for a client that had ended before it was seen, report why."""
        key = self._keys.get(name, "")
        whence = f"with key {fingerprint(key)}" if key else "without a key"
        whence += f", by its own account from {quoted(status.host) or 'an unknown host'}"
        whence += "" if client.trains else f"; {TRAINS_NOT}"
        self.names.add(name)
        if client.state.gone:
            self._took_no_part.add(name)
            event: ClientEvent = _gone(client.state)(client.why_gone, name, came=whence)
        else:
            self._took_no_part.discard(name)
            event = ClientJoined(whence, name)
        self._runs.admit(token, name, event.reason, event=event.name)
        self._observer.hear(event)

    def _refusal(self, name: str, status: ClientStatus) -> str:
        """Return why a client cannot take part, by its protocol or its key; '' when it can. Tell its site once."""
        key = status.public_key
        kind: type[ClientEvent] = ClientNotAdmitted
        reason = client_refusal(status.protocol, status.release, run=self._protocol)
        if not reason and (reason := self._other_key(name, key)):
            kind = ClientOtherKey
        before = self._told.get(name)
        if not reason:
            if self._told.pop(name, None) is not None or name in self.names:
                self._welcome(name, status)
        elif before != (reason, key):
            self._told[name] = (reason, key)
            self._welcomed.pop(name, None)
            self._client_log.note(kind(reason, name))
            tell_admission(self._runs, name, Admission(False, reason, key))
        return reason

    def _welcome(self, name: str, status: ClientStatus) -> None:
        """Tell a client that it is admitted, once for each key, and whenever it is quarantined or pardoned."""
        refused = self._refusals.get(name, 0)
        told = (status.public_key, refused if is_quarantined(refused, self._quarantine_after) else 0)
        if self._welcomed.get(name) != told:
            self._welcomed[name] = told
            key, quarantined = told
            tell_admission(self._runs, name, Admission(True, public_key=key, quarantined=quarantined))

    def _other_key(self, name: str, key: str) -> str:
        """Pin the first key that a client announces; return what is wrong with another key, '' for the pinned one."""
        if not key or self._keys.get(name) == key:
            return ""
        try:
            PublicKey.parse(key)
        except InvalidSetting:  # the log does not quote what the client wrote
            return "its public key cannot be used: have flavor-fl make one, or openssl genpkey -algorithm ed25519"
        if (pinned := self._runs.pin_key(name, key)) != key:
            if not pinned:
                return (
                    f"its key is {fingerprint(key)}, which the operator has replaced in this run (flavor enroll): "
                    "start flavor-fl with another one (--key)"
                )
            return (
                f"its key is {fingerprint(key)}, and this run knows it by key {fingerprint(pinned)}: start flavor-fl "
                "with the file of that key (--key), or have the operator forget it "
                f"(flavor enroll {self._runs.run} {name} --new-key)"
            )
        self._keys[name] = key
        return ""

    def _quarantine(self, client: str) -> None:
        refused = self._refusals[client]
        what = "its newest update was" if refused == 1 else f"{refused} of its updates in a row were"
        reason = f"{what} refused: it gets no tasks, and no update of it is accepted"
        self._client_log.note_once(ClientQuarantined(reason, client, run=self._runs.run))

    def _is_stranger(self, name: str) -> bool:
        """Whether this client may not take part, which is reported once."""
        if self._only is None or name in self._only:
            return False
        if name not in self._strangers:
            self._strangers.add(name)
            line = f"{name} is none of this run's clients ({', '.join(sorted(self._only))}): it is not admitted"
            self._observer.hear(Notice(line))
        return True


def _gone(state: ClientState) -> type[ClientGone]:
    """Return the kind of event for a client that is gone, by its state."""
    return ClientLeft if state is ClientState.LEFT else ClientLost
