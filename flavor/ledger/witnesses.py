"""Decide by signatures whether a manifest counts as a round, where its digest is unknown: any party may have put it.

A manifest of a round that Redis has not closed has one of two origins. Redis came back older: then an aggregator of the
run has signed the manifest, and the clients that it names have signed their updates. Or a party that writes to the
store has made it up: that party has only its own key, which vouches for its own update alone.
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
"""Number of rounds whose manifests are read for the keys of the run's aggregators."""
_MOST_KNOWN = 1000
_signed: dict[str, str] = {}
"""Keys of the manifests that this process has read, by digest: each made-up manifest needs them again."""


@dataclass(frozen=True)
class Witnesses:
    """The aggregators and clients of one run that are known without the manifest in question."""

    aggregators: Collection[str]
    """Public keys."""
    clients: Mapping[str, Collection[str]]
    """Public keys of every known client; none for a client that does not sign."""
    needed: int | None
    """Number of clients that make a round; None where the run's settings cannot be read."""

    @classmethod
    def of_run(
        cls, runs: RunStore, archive: Archive, config: Mapping[str, Any], *, newest: int, own: str = ""
    ) -> Witnesses:
        """Read them from Redis, with the settings `config`; `newest` is the newest closed round there.

        `own` is the key of the calling aggregator.
        """
        clients: dict[str, Collection[str]] = dict.fromkeys(runs.members(), ())
        clients |= {client: (key,) for client, key in runs.public_keys().items()}
        return cls(aggregators(runs, archive, newest) | ({own} if own else set()), clients, needed(runs.run, config))

    def vouch_for(self, manifest: Manifest) -> bool:
        """Whether a manifest, which is signed with the key that it names, counts as a round.

        A manifest of a known aggregator counts. Another one counts if as many known clients as make a round have handed
        in the updates that it names: their statements have their signatures, or they never sign. It also counts while
        too few clients are known to decide: Redis may be from a time before they joined.
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
        """Return why a manifest without enough signatures does not count, and what happens to it."""
        path, key = manifest_path(manifest.run, manifest.round), fingerprint(manifest.public_key)
        return (
            f"{path} is signed with key {key}, of no aggregator of this run, and fewer than {self.needed} of its "
            "clients have signed what it names: another who writes to the store put it there, and it counts for no "
            "round"
        )


def aggregators(runs: RunStore, archive: Archive, newest: int) -> set[str]:
    """Return the aggregators' keys: those that signed the manifests whose digests Redis has, up to `newest`."""
    rounds = range(newest, max(0, newest - _LOOKED_BACK), -1)
    digests = runs.manifest_digests(rounds)
    keys = (_signed_with(archive, round_, digest) for round_, digest in zip(rounds, digests, strict=True) if digest)
    return {key for key in keys if key}


def _signed_with(archive: Archive, round_: int, digest: str) -> str:
    """Return the key of the manifest with this digest; '' where the store no longer has it."""
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
    """Return how many updates make a round with these settings; None for settings of another release."""
    try:
        return RunConfig.of_run(run, config).needed
    except FlavorError:
        return None
