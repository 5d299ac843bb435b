"""Which sites report a metric, as a short digest: values over different sites are not compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from flavor.records.counts import POOLED
from flavor.records.info import CONFUSION
from flavor.records.merging import WEIGHTED
from flavor.records.numbers import finite
from flavor.records.pooling import pooled
from flavor.records.sound_counts import sound_counts

_ALL = ""
"""The key of the digest of all sites of a round, which report each metric that is not named beside it."""
UNKNOWN = "unknown"
"""In place of a digest: fewer sites than all report the metric, and it is not known which."""
_CHARACTERS = 8


def reported(names: Iterable[str], metrics: Mapping[str, Any]) -> set[str]:
    """Return in which merged metrics, by their names without `(weighted)`, a site has a part that reports these.

    It has one in a pooled metric if its own counts give it, also where that is 0/0 of this site alone.
    """
    names = list(names)
    of_counts = pooled([metrics], CONFUSION).metrics if any(name.startswith(POOLED) for name in names) else {}
    return {
        name
        for name in names
        if (name in of_counts if name.startswith(POOLED) else finite(metrics.get(name)) is not None)
    }


def digest_of(sites: Iterable[str]) -> str:
    """Return the digest of these sites, in any order."""
    return hashlib.sha256("\n".join(sorted(sites)).encode()).hexdigest()[:_CHARACTERS]


def reporters_of(
    sites: Iterable[str], few: Mapping[str, int] | None = None, metrics: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, str]:
    """Return digests of who reports what in a round of these `sites`, for `reporters_with`.

    `few` is as in `flavor.records.merging.sites_with`, and `metrics` has those of each site, with the lists of counts.
    Where these do not say who the few sites are, the metric has `UNKNOWN`.
    """
    found = {_ALL: digest_of(sites)}
    few = few or {}
    sound = sound_counts(list((metrics or {}).values()), CONFUSION).metrics if few else []
    by_site = {site: reported(few, of) for site, of in zip(metrics or {}, sound, strict=bool(few))}
    for name, number in few.items():
        those = [site for site, names in by_site.items() if name in names]
        found[name] = digest_of(those) if len(those) == number else UNKNOWN
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
