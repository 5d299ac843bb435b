"""The version of the protocol between edges, coordinators and workers, and the refusal of other versions.

The protocol covers the keys on the bus, the records in the store and the signed bytes. A run keeps the version of the
coordinator that began it: a process with another version refuses the run in one line, and changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from flavor.errors import OtherProtocol

PROTOCOL: Final = 2
"""Increased with each change that an older process would misunderstand. Runs of version 1 name no version."""
SPEAKS: Final[Mapping[str, str]] = MappingProxyType({"protocol": str(PROTOCOL)})
"""The field with which each client names its version in its hash."""


def new_run_id() -> str:
    """Make the unique id of a run: 32 random hexadecimal digits."""
    return secrets.token_hex(16)


def spoken(value: Any) -> int:
    """Return the version in a hash or a record; 0 where it names none."""
    text = str(value)
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 0


def check_run(run: str, protocol: int) -> None:
    """Raise `OtherProtocol`, with advice, unless this process can take part in a run of this version."""
    if protocol > PROTOCOL:
        raise OtherProtocol(
            f"run {run!r} was begun by a later release of flavor (protocol {protocol}; this one speaks {PROTOCOL}): "
            "upgrade flavor here"
        )
    if protocol < PROTOCOL:
        version = f"protocol {protocol}" if protocol else "no protocol version"
        raise OtherProtocol(
            f"run {run!r} was begun by an earlier release of flavor ({version}; this one speaks {PROTOCOL}): finish it "
            "with that release, or begin a new run from its last model with --init-model"
        )


def client_refusal(protocol: int) -> str:
    """Return why a client of this version is not admitted; '' for one that is."""
    if protocol == PROTOCOL:
        return ""
    speaks = f"protocol {protocol}" if protocol else "a protocol without a version"
    return (
        f"its edge speaks {speaks}, and this run protocol {PROTOCOL}: install the coordinator's release of flavor there"
    )
