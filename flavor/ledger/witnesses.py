"""Whose word makes a manifest a round, where its digest is not known: anybody may have put it into the store.

A manifest of a round that Redis has not closed is one of two things. Redis came back older: then an aggregator of the
run signed it, and the clients whose updates it names. Or a party that writes to the store made it up: that one has its
own key alone, which vouches for its own update and for nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import FlavorError, InvalidSetting
from flavor.ledger.archive import Archive
from flavor.ledger.keys import fingerprint
from flavor.ledger.manifest import Contributor, Manifest
from flavor.store.paths import manifest_path

_LOOKED_BACK = 50
"""Rounds whose manifests are asked for the keys of the run's aggregators."""
_MOST_KNOWN = 1000
_signed: dict[str, str] = {}
"""The keys of manifests that this process has read, by their digests: a made-up one has them asked for again."""


@dataclass(frozen=True)
class Witnesses:
    """The aggregators and clients of one run, as far as they are known without the manifest that is in question."""

    aggregators: Collection[str]
    """Public keys."""
    clients: Mapping[str, Collection[str]]
    """Every known client to its public keys: none for one that signs nothing."""
    needed: int | None
    """So many of them make a round; None where the run's settings cannot be read."""

    @classmethod
    def of_run(
        cls, runs: RunStore, archive: Archive, config: Mapping[str, Any], *, newest: int, own: str = ""
    ) -> Witnesses:
        """As Redis has them, with the settings `config`; `newest` is the newest closed round there.

        `own` is the key of an aggregator that asks.
        """
        clients: dict[str, Collection[str]] = dict.fromkeys(runs.members(), ())
        clients |= {client: (key,) for client, key in runs.public_keys().items()}
        return cls(aggregators(runs, archive, newest) | ({own} if own else set()), clients, needed(runs.run, config))

    def vouch_for(self, manifest: Manifest) -> bool:
        """Whether a manifest, which is signed with the key that it names, counts as a round.

        One of an aggregator that is known does. Another one does if clients that are known have handed in what it
        names, and as many of them as make a round: their statements bear their signatures, or they never sign. And it
        does while too few clients are known to tell: Redis may be from a time before they joined.
        """
        if manifest.public_key in self.aggregators:
            return True
        if self.needed is None or len(self.clients) < self.needed:
            return True
        return (
            len({each.client for each in manifest.contributors if self._has_handed_in(manifest, each)}) >= self.needed
        )

    def _has_handed_in(self, manifest: Manifest, of: Contributor) -> bool:
        keys = self.clients.get(of.client)
        if not keys:
            return keys is not None and not of.signature
        try:
            return of.public_key in keys and manifest.statement(of).is_signed(of.public_key, of.signature)
        except InvalidSetting:
            return False

    def against(self, manifest: Manifest) -> str:
        """Why a manifest that they do not vouch for is none of the run's, and what becomes of it."""
        path, key = manifest_path(manifest.run, manifest.round), fingerprint(manifest.public_key)
        return (
            f"{path} is signed with key {key}, of no aggregator of this run, and fewer than {self.needed} of its "
            "clients have signed what it names: another who writes to the store put it there, and it counts for no "
            "round"
        )


def aggregators(runs: RunStore, archive: Archive, newest: int) -> set[str]:
    """The keys of a run's aggregators: those that signed manifests whose digests Redis has, up to round `newest`."""
    rounds = range(newest, max(0, newest - _LOOKED_BACK), -1)
    digests = runs.manifest_digests(rounds)
    keys = (_signed_with(archive, round_, digest) for round_, digest in zip(rounds, digests, strict=True) if digest)
    return {key for key in keys if key}


def _signed_with(archive: Archive, round_: int, digest: str) -> str:
    """The key of the manifest with this digest, '' where that is in the store no more."""
    if known := _signed.get(digest):
        return known
    data = archive.committed(round_, digest)
    if data is None:
        return ""
    if len(_signed) >= _MOST_KNOWN:
        _signed.clear()
    key = _signed[digest] = Manifest.parse(data, manifest_path(archive.run, round_)).public_key
    return key


def needed(run: str, config: Mapping[str, Any]) -> int | None:
    """How many updates make a round of a run with these settings; None where they are of another release."""
    try:
        return RunConfig.of_run(run, config).needed
    except FlavorError:
        return None
