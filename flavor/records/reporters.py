"""Which sites report a metric, as a short digest: values over different sites are not compared."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from flavor.records.counts import POOLED, is_count
from flavor.records.info import CONFUSION, UNCOUNTED
from flavor.records.merging import WEIGHTED
from flavor.records.numbers import finite
from flavor.records.pooling import pooled
from flavor.records.rival_counts import counts_giving
from flavor.records.sound_counts import sound_counts

_ALL = ""
"""The key of the digest of all sites of a round, which report each metric that is not named beside it."""
UNKNOWN = "unknown"
"""In place of a digest: fewer sites than all report the metric, and it is not known which."""
_CHARACTERS = 8


class Part(NamedTuple):
    """Which sites have a part in one merged metric."""

    merged: tuple[str, ...]
    """The value of these went into the merged one; of a pooled metric their counts, also where 0/0 of a site alone."""
    left_out: tuple[str, ...]
    """They report it too, and it was left out: counts that are wrong, or of another form or kind than most sites'."""

    @property
    def reporting(self) -> tuple[str, ...]:
        """All of them."""
        return self.merged + self.left_out


def parts_of(names: Iterable[str], sites: Mapping[str, Mapping[str, Any]]) -> dict[str, Part]:
    """Return which of the sites have a part in these merged metrics, by their names without `(weighted)`.

    `sites` has the metrics of each site, with the lists of counts. This is what `flavor.records.merging.merge_infos`
    makes of the same metrics.
    """
    names, order = list(names), list(sites)
    is_of_counts = any(name.startswith(POOLED) or is_count(name) for name in names)
    sound = sound_counts([*sites.values()], CONFUSION).metrics if is_of_counts else [*sites.values()]
    is_pooled = any(name.startswith(POOLED) for name in names)
    of_all = pooled(sound, CONFUSION) if is_pooled else None
    found = {}
    for name in names:
        if of_all is not None and name.startswith(POOLED):
            merged = tuple(order[at] for at in of_all.sites.get(name, ()))
            ways = counts_giving(name, CONFUSION)
            reporting = [site for site in order if any(_has(counts, sites[site]) for counts in ways)]
        else:
            merged = tuple(site for site, of in zip(order, sound, strict=True) if finite(of.get(name)) is not None)
            reporting = [site for site in order if finite(sites[site].get(name)) is not None]
        found[name] = Part(merged, tuple(site for site in reporting if site not in merged))
    return found


def _has(counts: Collection[str], metrics: Mapping[str, Any]) -> bool:
    """Whether a site reports all of these counts, however wrong they are."""
    return all(metrics.get(name) not in (None, UNCOUNTED) for name in counts)


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
    for name, part in parts_of(few, metrics or {}).items():
        found[name] = digest_of(part.merged) if len(part.merged) == few[name] else UNKNOWN
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
