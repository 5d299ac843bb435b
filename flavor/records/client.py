"""What a client's edge says of itself in the client's own hash in Redis."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from flavor.protocol import OLDEST, release_of, spoken
from flavor.records.names import count
from flavor.records.remarks import Remark, from_text, to_text
from flavor.records.states import ClientState
from flavor.watch import PHASES

FIELDS = (
    *("state", "reason", "failure", "exit_code", "report"),
    *(
        "round",
        "host",
        "pid",
        "public_key",
        "protocol",
        "release",
        "version",
        "phase",
        "done",
        "total",
        "since_ms",
        "bytes_s",
    ),
    *("told_ms", "awaits", "evaluates", "cross", "sets", "remarks"),
)
"""The fields of a client's hash that are read. Nothing else that a client writes there is read."""

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,+_()/-]{0,119}")
_SETS = re.compile(r"[A-Z][A-Z0-9_]{0,63}( [A-Z][A-Z0-9_]{0,63}){0,255}")
_STORE = "store"
_JUDGES = "evaluator "
"""What stands before the state of a client that trains nothing: an older coordinator knows no such state, and so never
counts that client among those that train."""
_STATES = {state.value: state for state in ClientState}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,253}[A-Za-z0-9_.])?")


class Role(StrEnum):
    """What a client does in its run."""

    TRAINER = "trainer"
    """It trains, and may judge models."""
    EVALUATOR = "evaluator"
    """It judges models, and trains nothing (`flavor-fv`): no round waits for it, expects it or counts it."""


@dataclass(frozen=True)
class Transfer:
    """How far a client's edge is in moving a model."""

    phase: str = ""
    """One of `flavor.watch.PHASES`; '' where nothing moves."""
    done_bytes: int = 0
    total_bytes: int = 0
    since_ms: int = 0
    """When the transfer began, in milliseconds since 1970, by the site's clock."""
    bytes_s: int | None = None
    """Bytes per second that it has moved lately; None where that is not known, as from an earlier release."""

    def to_hash(self) -> dict[str, str]:
        """The fields that the client's edge writes while a model moves, and once no model moves any more."""
        return {
            "phase": self.phase,
            "done": str(self.done_bytes),
            "total": str(self.total_bytes),
            "since_ms": str(self.since_ms),
            "bytes_s": "" if self.bytes_s is None else str(self.bytes_s),
        }

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Transfer | None:
        """Read what a client has written, also if it is invalid; None if no model moves."""
        done, total, since_ms = (count(fields.get(name)) for name in ("done", "total", "since_ms"))
        phase = fields.get("phase", "")
        if phase not in PHASES or done is None or total is None or since_ms is None:
            return None
        return cls(phase, done, total, since_ms, count(fields.get("bytes_s")))


@dataclass(frozen=True)
class ClientStatus:
    """Where a client is and why, in the words of its edge.

    Anything may stand in Redis: the site writes it. Readers check the public key and the protocol, and believe the
    state only of a client whose lease is there.
    """

    state: str = ""
    """A `ClientState`; '' or any other word where the client says nothing that this release knows."""
    reason: str = ""
    """Why it is there, in words of this project; '' where nothing is unusual."""
    failure: str = ""
    """The class of its failure (`flavor.edge.notice`); '' for none."""
    exit_code: str = ""
    """How its trainer ended; '' where it has not ended."""
    report: str = ""
    """The site's own text about the failure, where the site's user shares it."""
    behind: int = 0
    """The newest round that is behind the client: handed in, refused or missed."""
    host: str = ""
    """The name of its machine, as its edge says; '' where that is no name of a machine."""
    pid: int = 0
    public_key: str = ""
    """`ed25519:HEX`, the key that the client signs its updates with."""
    protocol: int = OLDEST
    """The version of the protocol that its edge speaks in this run; 0 where the edge does not say."""
    release: str = ""
    """The release of flavor of its edge; '' where the edge does not say."""
    version: str = ""
    """The versions of flavor and Python and the system that its edge runs on, as it says; '' where it does not say."""
    transfer: Transfer | None = None
    """The model that its edge moves at present."""
    told_ms: int = 0
    """When its edge wrote this, in milliseconds since 1970 by the clock of the Redis server; 0 for not known."""
    awaits_store: bool = False
    """Whether it cannot go on before it can use the object store, as `reason` says in words."""

    evaluates: bool = False
    """Whether the site has a command that judges models."""
    allows_cross: bool = False
    """Whether its updates may be sent to other sites that allow the same, to be judged there."""
    sets: tuple[str, ...] = ()
    """The names of the variables that the site sets for its scripts itself, in place of the run's."""
    remarks: tuple[Remark, ...] = ()
    """What its edge has warned the site's user of."""
    role: Role = Role.TRAINER
    """What the client does in its run. In Redis it stands before the state, as in `evaluator ready`."""

    @property
    def known_state(self) -> ClientState | None:
        """The state, if this release knows it."""
        return _STATES.get(self.state)

    def to_hash(self) -> dict[str, str]:
        """The fields that the client's edge writes when its state changes.

        The fields of a transfer are written by themselves, more often: see `Transfer.to_hash`.
        """
        return {
            "protocol": str(self.protocol),
            "release": self.release,
            "state": f"{_JUDGES if self.role is Role.EVALUATOR else ''}{self.state}",
            "reason": self.reason,
            "failure": self.failure,
            "exit_code": self.exit_code,
            "report": self.report,
            "round": str(self.behind),
            "host": self.host,
            "pid": str(self.pid),
            "public_key": self.public_key,
            "version": self.version,
            "told_ms": str(self.told_ms),
            "awaits": _STORE if self.awaits_store else "",
            "evaluates": "1" if self.evaluates else "",
            "cross": "1" if self.allows_cross else "",
            "sets": " ".join(self.sets),
            "remarks": to_text(set(self.remarks)),
        }

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> ClientStatus:
        """Read what a client has written, also if it is invalid."""
        state = fields.get("state", "")
        return cls(
            state=state.removeprefix(_JUDGES),
            role=Role.EVALUATOR if state.startswith(_JUDGES) else Role.TRAINER,
            reason=fields.get("reason", ""),
            failure=fields.get("failure", ""),
            exit_code=fields.get("exit_code", ""),
            report=fields.get("report", ""),
            behind=count(fields.get("round")) or 0,
            host=_host(fields.get("host", "")),
            pid=count(fields.get("pid")) or 0,
            public_key=fields.get("public_key", ""),
            protocol=spoken(fields.get("protocol")),
            release=release_of(fields.get("release")) or _release_in(fields.get("version", "")),
            version=text if _VERSION.fullmatch(text := fields.get("version", "")) else "",
            transfer=Transfer.from_hash(fields),
            told_ms=count(fields.get("told_ms")) or 0,
            awaits_store=fields.get("awaits") == _STORE,
            evaluates=fields.get("evaluates") == "1",
            allows_cross=fields.get("cross") == "1",
            sets=tuple(text.split(" ")) if _SETS.fullmatch(text := fields.get("sets", "")) else (),
            remarks=from_text(fields.get("remarks", "")),
        )


def _release_in(version: str) -> str:
    """Return the release in `flavor 0.1.0, Python …`, which edges that name no release tell; '' for other text."""
    return release_of(version.partition(",")[0].removeprefix("flavor ")) if version.startswith("flavor ") else ""


def _host(text: str) -> str:
    """Return a machine's name of another party; '' for text that is none, such as a sentence."""
    return text if _HOST.fullmatch(text) else ""


def revoked() -> dict[str, str]:
    """The fields that `flavor revoke` writes, in place of all that the client's edge has written."""
    return {"state": ClientState.REVOKED.value, "reason": "it was revoked"}
