"""Which sites report a metric, as a short digest: values over different sites are not compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from flavor.records.merging import WEIGHTED
from flavor.records.numbers import finite

_ALL = ""
"""The key of the digest of all sites of a round, which report each metric that is not named beside it."""
_CHARACTERS = 8


def digest_of(sites: Iterable[str]) -> str:
    """Return the digest of these sites, in any order."""
    return hashlib.sha256("\n".join(sorted(sites)).encode()).hexdigest()[:_CHARACTERS]


def reporters_of(
    sites: Iterable[str], few: Mapping[str, int] | None = None, metrics: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, str]:
    """Return digests of who reports what in a round of these `sites`, for `reporters_with`.

    `few` is as in `flavor.records.merging.sites_with`, and `metrics` has those of each site. Of a metric that no site
    reports by its name, such as a pooled one, it is not known who lacks it: it counts as that of all.
    """
    found = {_ALL: digest_of(sites)}
    for name, number in (few or {}).items():
        those = [site for site, of in (metrics or {}).items() if finite(of.get(name)) is not None]
        if len(those) == number:
            found[name] = digest_of(those)
    return found


def reporters_with(name: str, reporters: Mapping[str, str]) -> str:
    """Return the digest of the sites that report a merged metric, plain or weighted; '' where it is not known."""
    return reporters.get(name.removesuffix(WEIGHTED), reporters.get(_ALL, ""))


def read_reporters(given: Any) -> dict[str, str]:
    """Return the digests as they were written into JSON; what is none is left out."""
    if not isinstance(given, Mapping):
        return {}
    return {str(name): text for name, text in given.items() if isinstance(text, str) and len(text) <= _CHARACTERS}


def kept_reporters(reporters: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the digest of all sites, and those of the metrics of these `names`."""
    kept = {_ALL, *names}
    return {name: digest for name, digest in reporters.items() if name in kept}
