"""Check who signed an update, and whether that client must have signed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flavor.bus.runs import RunStore
from flavor.errors import InvalidSetting, InvalidUpdate
from flavor.ledger.keys import PublicKey, fingerprint
from flavor.ledger.statement import Statement
from flavor.records.run import RunView
from flavor.records.update import Update


@dataclass(frozen=True)
class Signatures:
    """The rules of a run: `pinned` keys by client, and whether clients without a key may hand in unsigned updates."""

    runs: RunStore
    pinned: Mapping[str, str]
    required: bool

    @classmethod
    def of(cls, runs: RunStore, view: RunView) -> Signatures:
        """Read the current rules of a run."""
        return cls(runs, runs.public_keys(), bool(view.config.get("require_signatures")))

    def check(self, view: RunView, round_: int, client: str, update: Update) -> Update:
        """Check the signature of an update; return the update, which names no key where it has no signature.

        Raises `InvalidUpdate` with the reason. The signature covers the digest and size that the update claims; the
        caller checks these. A client without a pinned key that signs has its key pinned.
        """
        key, signature, pinned = update.public_key, update.signature, self.pinned.get(client)
        if not signature:
            if pinned or self.required:
                why = (
                    f"client {client!r} has the pinned key {fingerprint(pinned)}"
                    if pinned
                    else "this run takes no other updates (--require-signatures)"
                )
                raise InvalidUpdate(f"the update is not signed, and {why}: run a flavor-fl that signs, with its --key")
            return replace(update, public_key="")
        try:
            self._check_key(client, key, pinned)
            statement = Statement.of(update, run=(view.run, view.run_id), round_=round_, client=client)
            if not statement.is_signed(key, signature):
                raise InvalidUpdate(
                    "the signature is not that of this update: of this run, round and client, its digest, size, "
                    "format and information, and the global model of the round"
                )
        except InvalidSetting as error:
            raise InvalidUpdate(str(error)) from None
        if not pinned:
            self._check_key(client, key, self.runs.pin_key(client, key))
        return update

    def _check_key(self, client: str, key: str, pinned: str | None) -> None:
        PublicKey.parse(key)
        if pinned == "":
            raise InvalidUpdate(
                f"the update is signed with key {fingerprint(key)}, which the operator has replaced in this run "
                "(flavor enroll): start flavor-fl with another one (--key)"
            )
        if pinned and key != pinned:
            raise InvalidUpdate(
                f"the update is signed with key {fingerprint(key)}, and client {client!r} has the pinned key "
                f"{fingerprint(pinned)}: run its edge with that key's file (--key), or have the new one pinned"
            )
