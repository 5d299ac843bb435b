"""Reads from the store what each site has measured for an evaluation; one that cannot be read costs no other site.

In a bucket a site can change or archive its own object after its result was accepted. What was merged of it is signed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from flavor.errors import InvalidInfo, ObjectMissing
from flavor.records.info import MAX_BYTES, Info, parse_info
from flavor.records.objects import ObjectRef
from flavor.results.reading import SPOILED
from flavor.store.protocol import ObjectStore

UNREADABLE = (ObjectMissing, InvalidInfo, *SPOILED)
"""The errors that are one object's own: to read it again does not help."""


class SiteResults(NamedTuple):
    """What sites have measured, as far as the store has it."""

    infos: dict[str, Info]
    unread: dict[str, str]
    """Why a result cannot be read, by site."""


def read_result(store: ObjectStore, ref: ObjectRef) -> Info:
    """Return what a site has measured. Raises one of `UNREADABLE`, or `StoreError` for a store that is away."""
    return parse_info(store.read(ref, most=MAX_BYTES), where=ref.path)


def read_results(store: ObjectStore, results: Iterable[tuple[str, ObjectRef]]) -> SiteResults:
    """Read the results of these sites. Raises `StoreError` for a store that is away."""
    found = SiteResults({}, {})
    for site, ref in results:
        try:
            found.infos[site] = read_result(store, ref)
        except UNREADABLE as error:
            found.unread[site] = str(error)
    return found
