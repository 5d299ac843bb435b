"""Checks a global model against the signed manifest of the round that made it, before the trainer gets the model.

Redis says which model a round starts from, and an administrator of Redis could name another one. A site that has the
aggregators' public keys need not believe Redis: the manifest names the run by its id, the round, and the SHA-256 of the
model and of the merged information, and the worker that made them has signed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flavor.errors import InvalidRecord, InvalidSetting, OtherProtocol, StoreError, UntrustedModel
from flavor.ledger.archive import Archive
from flavor.ledger.keys import fingerprint, read_public_key
from flavor.ledger.manifest import Manifest
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.store.paths import manifest_path

_INITIAL = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class ModelTrust:
    """The aggregators whose global models the site accepts; all aggregators where there are no `keys`."""

    keys: frozenset[str] = frozenset()
    """Public keys of aggregators."""
    initial: frozenset[str] = frozenset()
    """SHA-256 of models that the site accepts though no aggregator has signed them: initial weights, and those that an
    operator may have it judge."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> ModelTrust:
        """Parse the values of `--trust`: `ed25519:HEX`, a file with such keys, or `sha256:HEX` of an unsigned model."""
        keys: set[str] = set()
        initial: set[str] = set()
        for word in words:
            if match := _INITIAL.fullmatch(word):
                initial.add(match[1])
            else:  # clients' keys, in a file that the operator uses for `flavor verify`, sign no models
                keys |= {str(key) for client, key in read_public_key(word) if not client}
        if words and not keys:
            raise InvalidSetting(f"--trust {' '.join(words)[:200]}: no aggregator's key is named there")
        return cls(frozenset(keys), frozenset(initial))

    def words(self) -> tuple[str, ...]:
        """The values that `parse` takes, without files."""
        return (*sorted(self.keys), *sorted(f"sha256:{digest}" for digest in self.initial))

    def named(self, model: GlobalModel | None) -> GlobalModel | None:
        """The model that Redis names; without its seal where this site has `keys`.

        A manifest vouches for a digest. With a seal, the store takes a file to have that digest without reading it. So
        a coordinator or a worker, which may write a seal into Redis, could name any file: no signature covers the seal.
        """
        return model.unsealed() if self.keys and model is not None else model

    def check(
        self,
        archive: Archive,
        run_id: str,
        made_by: int,
        model: GlobalModel | None,
        *,
        digest: Callable[[], str] = lambda: "",
    ) -> None:
        """Raise `UntrustedModel` unless round `made_by` of this run made `model`; round 0 is before the first.

        Where the round's manifest was replaced in the store, the manifest as it was staged is accepted, if its
        signature is good: `digest` returns the SHA-256 that Redis names for it.
        """
        if not self.keys:
            return
        if made_by == 0:
            self._check_unsigned(
                model, "the run starts from weights that no aggregator has signed: if they are those that you expect"
            )
            return
        what = f"the global model of round {made_by}"
        if model is None:
            raise UntrustedModel(f"{what} is not named: this site trains from no other (--trust)")
        if (why := self._why_not(archive, run_id, made_by, model)) and not self._is_staged(
            archive, run_id, made_by, model, digest()
        ):
            raise UntrustedModel(f"{what} is not trained from: {why}")

    def _why_not(self, archive: Archive, run_id: str, made_by: int, model: GlobalModel) -> str:
        """What is wrong with the manifest of the round in the store; '' when nothing is."""
        path = manifest_path(archive.run, made_by)
        try:
            data = archive.data(made_by)
            manifest = None if data is None else Manifest.parse(data, path)
        except (InvalidRecord, OtherProtocol) as error:
            return str(error)
        if manifest is None:
            return f"its manifest {path} is not in the store"
        problem = self._problem(archive.run, run_id, made_by, manifest, model)
        return problem and f"{path} {problem}"

    def _is_staged(self, archive: Archive, run_id: str, made_by: int, model: GlobalModel, digest: str) -> bool:
        """Whether the manifest with this digest lies in the store as it was staged, and can be trusted."""
        try:
            data = archive.committed(made_by, digest) if digest else None
            manifest = None if data is None else Manifest.parse(data, "")
        except (InvalidRecord, OtherProtocol, StoreError):  # a bucket may not let a site read it
            return False
        return manifest is not None and not self._problem(archive.run, run_id, made_by, manifest, model)

    def check_asked(self, model: GlobalModel) -> None:
        """Raise `UntrustedModel` unless `model`, which no round has made, is one that this site has named."""
        if self.keys:
            self._check_unsigned(
                model,
                "the site is asked to judge a model that no round of the run has made, and that no aggregator has "
                "signed: if you expect it",
            )

    def check_final(
        self,
        archive: Archive,
        run_id: str,
        newest: int,
        model: GlobalModel | None,
        *,
        digest: Callable[[], str] = lambda: "",
    ) -> None:
        """Check the model that a run has ended with: round `newest` made it, or, if that is open, the one before."""
        if not self.keys:
            return
        if self._has_made(archive, newest, digest()):
            self.check(archive, run_id, newest, model, digest=digest)
            return
        try:
            self.check(archive, run_id, max(0, newest - 1), model, digest=digest)
        except UntrustedModel:
            if archive.has(newest):  # the error is about this manifest
                self.check(archive, run_id, newest, model, digest=digest)
            raise

    def _has_made(self, archive: Archive, round_: int, digest: str) -> bool:
        """Whether a round has a manifest, in its place or as it was staged, that one of our aggregators has signed."""
        manifest = archive.manifest(round_)
        if manifest is None or manifest.public_key not in self.keys:
            data = archive.committed(round_, digest) if digest else None
            manifest = Manifest.parse(data, "") if data is not None else None
        return (
            manifest is not None
            and (manifest.run, manifest.round) == (archive.run, round_)
            and manifest.public_key in self.keys
        )

    def check_whole(self, whole: ObjectRef) -> None:
        """Raise `UntrustedModel` unless this site has named the whole initial model, of which the run shares a part."""
        if self.keys and whole.digest not in self.initial:
            raise UntrustedModel(
                "the run begins from a whole initial model that no aggregator has signed: if it is the one that you "
                f"expect, start the site with --trust sha256:{whole.digest} as well"
            )

    def _check_unsigned(self, model: GlobalModel | None, what: str) -> None:
        if model is not None and model.info is not None:
            raise UntrustedModel(
                f"the run names merged information ({model.info.path}) before its first round, and there is none until "
                "a round has made it: no aggregator has signed it, and this site takes none (--trust)"
            )
        if model is not None and model.model.digest not in self.initial:
            raise UntrustedModel(f"{what}, start the site with --trust sha256:{model.model.digest} as well")

    def _problem(self, run: str, run_id: str, round_: int, manifest: Manifest, model: GlobalModel) -> str:
        """What is wrong; '' when nothing is."""
        if (manifest.run, manifest.run_id, manifest.round) != (run, run_id, round_):
            return "is of another run or round"
        if manifest.public_key not in self.keys:
            return f"is signed with key {fingerprint(manifest.public_key)}, which --trust does not name"
        if not manifest.is_signed():
            return "was changed: its signature is not that of its key"
        made = manifest.global_model
        if (made.digest, made.size_bytes) != (model.model.digest, model.model.size_bytes):
            return f"is of a model with SHA-256 {made.digest[:12]}…, and Redis names {model.model.digest[:12]}…"
        info_digests = [None if info is None else info.digest for info in (made.info, model.info)]
        if info_digests[0] != info_digests[1] or made.format != model.format:
            return "is of other merged information, or of another format, than Redis names"
        return ""
