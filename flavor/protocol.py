"""The versions of the protocol between edges, coordinators and workers, and the refusal of versions that do not fit.

The protocol covers the keys on the bus and the records in the store. A release speaks all versions from `OLDEST` to
`PROTOCOL`. A run has the lowest version that has everything that its settings use, and keeps it. So programs of
different releases take part in one run, unless the run needs what one of them lacks: that program refuses the run in
one line, which names both releases, and changes nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from flavor import __version__
from flavor.errors import InvalidSetting, OtherProtocol

FEATURES: Final[Mapping[str, int]] = MappingProxyType({"signed_urls": 3})
"""Settings of `RunConfig` that came after protocol 2, and the first version of the protocol that has each.

A run needs the feature if its setting is not at its default; else its config lacks the setting. Each new setting is
added here, with the next version of the protocol; all settings of one release may have the same version.
"""
OLDEST: Final = 2
"""The oldest version that this release speaks, and that of a run without features. Runs of version 1 name none."""
PROTOCOL: Final = max((OLDEST, *FEATURES.values()))
"""The newest version that this release speaks."""
RECORDS: Final = 2
"""The version that gave manifests, records of evaluations and signed statements their form. A run's own record names
the version of its run."""
SPEAKS: Final[Mapping[str, str]] = MappingProxyType({"protocol": str(OLDEST)})
"""The field with which a client names its version in its hash, in a run without features."""

_UNNAMED = "0.1.0"
"""The release that speaks protocol 2 and does not name itself."""
_RELEASE = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,39}")
_FEATURE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MOST_NEEDS = 32


def new_run_id() -> str:
    """Make the unique id of a run: 32 random hexadecimal digits."""
    return secrets.token_hex(16)


def spoken(value: Any) -> int:
    """Return the version in a hash or a record; 0 where it names none."""
    text = str(value)
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 0


def release_of(value: Any) -> str:
    """Return the release in a hash or a record; '' where it names none."""
    return value if isinstance(value, str) and _RELEASE.fullmatch(value) else ""


def needs_in(value: Any) -> tuple[str, ...]:
    """Return the features that a hash (a text) or a record (a list) names, without what can be no feature's name."""
    words = value.split(" ") if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    return tuple(word for word in words[:_MOST_NEEDS] if isinstance(word, str) and _FEATURE.fullmatch(word))


def needs_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the features that a run with these settings needs, as `RunConfig.to_mapping` writes them."""
    return tuple(sorted(FEATURES.keys() & config.keys()))


def protocol_of(config: Mapping[str, Any]) -> int:
    """Return the version of the protocol of a run with these settings: the lowest that has all that they use."""
    return max((OLDEST, *(FEATURES[name] for name in needs_of(config))))


def version_fields(config: Mapping[str, Any]) -> dict[str, str]:
    """The fields with which the hash of a new run with these settings names its version, and what it needs."""
    needs = needs_of(config)
    return {
        "protocol": str(protocol_of(config)),
        "release": __version__,
        **({"needs": " ".join(needs)} if needs else {}),
    }


def record_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with which the record of a new run with these settings names its version, and what it needs.

    The record of a run without features is one that release 0.1.0 reads, which names no release.
    """
    protocol, needs = protocol_of(config), needs_of(config)
    return {"protocol": protocol, **({"release": __version__, "needs": needs} if protocol > 2 else {})}


def here() -> str:
    """`flavor 0.2.0 (protocol 2)`: the release of this process, and the versions that it speaks."""
    spoken_here = f"{OLDEST} to {PROTOCOL}" if OLDEST < PROTOCOL else f"{PROTOCOL}"
    return f"flavor {__version__} (protocol {spoken_here})"


def named(release: str, protocol: int) -> str:
    """`flavor 0.1.0 (protocol 2)`: another party's release, and its version; both as far as they are known."""
    version = f"protocol {protocol}" if protocol else "no protocol version"
    if release:
        return f"flavor {release} ({version})"
    if OLDEST <= protocol <= PROTOCOL:
        return f"flavor {_UNNAMED} or later ({version})"
    return f"{'a later' if protocol > PROTOCOL else 'an earlier'} release of flavor ({version})"


def check_run(run: str, protocol: int, release: str = "", needs: Iterable[str] = ()) -> None:
    """Raise `OtherProtocol`, with advice, unless this process can take part in a run of this version.

    `release` is that of flavor with which the run was begun; `needs` are the features that the run names.
    """
    begun = f"run {run!r} was begun by {named(release, protocol)}, and this is {here()}"
    if unknown := [name for name in needs if name not in FEATURES]:
        raise OtherProtocol(
            f"{begun}, which does not have what the run needs: {', '.join(unknown)}: upgrade flavor here"
        )
    if protocol > PROTOCOL:
        raise OtherProtocol(f"{begun}: upgrade flavor here")
    if protocol < OLDEST:
        raise OtherProtocol(
            f"{begun}: finish the run with the release that began it, or begin a new run from its last model with "
            "--init-model"
        )


def check_features(run: str, protocol: int, config: Mapping[str, Any]) -> None:
    """Raise `InvalidSetting` for settings of a resumed run with features that the run's version does not have."""
    if newer := [name for name in needs_of(config) if FEATURES[name] > protocol]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in newer)
        raise InvalidSetting(
            f"{options}: run {run!r} has protocol {protocol}, which it keeps and which does not have that: begin "
            f"another run from its newest model (`flavor serve --from-run {run}`)"
        )


def client_refusal(protocol: int, release: str = "", *, run: int = OLDEST) -> str:
    """Return why a client whose edge announces this version is not admitted to a run of version `run`; '' if it is."""
    if protocol == run:
        return ""
    return (
        f"its edge is {named(release, protocol)}, and this run has protocol {run}, by {here()}: install flavor "
        f"{__version__} there"
    )
