"""The version of what edges, coordinators and workers say to each other, and the refusal of another one.

It covers the keys on the bus, the records in the store and what is signed. A run has the version of the coordinator
that began it, for good: a process that speaks another one refuses the run in one line, and changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from flavor.errors import OtherProtocol

PROTOCOL: Final = 2
"""Raised with every change that an older process would misunderstand. Version 1 was not written down anywhere."""
SPEAKS: Final[Mapping[str, str]] = MappingProxyType({"protocol": str(PROTOCOL)})
"""What each client says of itself in its hash."""


def new_run_id() -> str:
    """A name for a run that no other run has: 32 random hexadecimal digits."""
    return secrets.token_hex(16)


def spoken(value: Any) -> int:
    """The version that stands in a hash or a record; 0 where none does."""
    text = str(value)
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 0


def check_run(run: str, protocol: int) -> None:
    """Raise `OtherProtocol`, which says what to do, unless a run of this version can be taken part in."""
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
    """Why a client that speaks this version is not admitted; '' for one that is."""
    if protocol == PROTOCOL:
        return ""
    speaks = f"protocol {protocol}" if protocol else "a protocol without a version"
    return (
        f"its edge speaks {speaks}, and this run protocol {PROTOCOL}: install the coordinator's release of flavor there"
    )
