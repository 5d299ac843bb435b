"""Check who signed an update or a result, and whether that client must have signed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flavor.bus.runs import RunStore
from flavor.errors import InvalidSetting, InvalidUpdate
from flavor.ledger.keys import PublicKey, fingerprint
from flavor.ledger.statement import EvaluationStatement, Statement
from flavor.records.evaluation import Result
from flavor.records.run import RunView
from flavor.records.update import Update


@dataclass(frozen=True)
class _Signed:
    """What a client has signed."""

    noun: str
    covers: str
    key: str
    signature: str


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
        statement = Statement.of(update, run=(view.run, view.run_id), round_=round_, client=client)
        covers = "its digest, size, format and information, and the global model of the round"
        what = _Signed("update", f"of this run, round and client, {covers}", update.public_key, update.signature)
        return update if self._is_signed(client, statement, what) else replace(update, public_key="")

    def check_result(self, client: str, result: Result, statement: EvaluationStatement) -> Result:
        """Check the signature of an evaluation's result as `check` does that of an update."""
        covers = "of this run, evaluation and client, its information, and the judged model"
        what = _Signed("result", covers, result.public_key, result.signature)
        return result if self._is_signed(client, statement, what) else replace(result, public_key="")

    def _is_signed(self, client: str, statement: Statement | EvaluationStatement, what: _Signed) -> bool:
        """Return whether there is a signature, which is that of the client; False where none is needed."""
        pinned, key = self.pinned.get(client), what.key
        if not what.signature:
            if pinned or self.required:
                why = (
                    f"client {client!r} has the pinned key {fingerprint(pinned)}"
                    if pinned
                    else f"this run takes no other {what.noun}s (--require-signatures)"
                )
                raise InvalidUpdate(
                    f"the {what.noun} is not signed, and {why}: run a flavor-fl that signs, with its --key"
                )
            return False
        try:
            self._check_key(client, what, pinned)
            if not statement.is_signed(key, what.signature):
                raise InvalidUpdate(f"the signature is not that of this {what.noun}: {what.covers}")
        except InvalidSetting as error:
            raise InvalidUpdate(str(error)) from None
        if not pinned:
            self._check_key(client, what, self.runs.pin_key(client, key))
        return True

    def _check_key(self, client: str, what: _Signed, pinned: str | None) -> None:
        key = what.key
        PublicKey.parse(key)
        if pinned == "":
            raise InvalidUpdate(
                f"the {what.noun} is signed with key {fingerprint(key)}, which the operator has replaced in this run "
                "(flavor enroll): start flavor-fl with another one (--key)"
            )
        if pinned and key != pinned:
            raise InvalidUpdate(
                f"the {what.noun} is signed with key {fingerprint(key)}, and client {client!r} has the pinned key "
                f"{fingerprint(pinned)}: run its edge with that key's file (--key), or have the new one pinned"
            )
