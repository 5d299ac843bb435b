"""Follow the keys that a run's records are signed with, round by round, and report each change once.

A site that lost its key gets another by an operator's act, `flavor enroll --new-key`. The act stands in Redis, where
no site can write it. It also stands in the next manifests, with the key that it replaced (`Contributor.replaced`),
under the aggregator's signature. `flavor verify` believes it where it believes that signature: by `--trust`, `--head`
or `--untrusted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from flavor.errors import InvalidSetting
from flavor.ledger.keys import fingerprint
from flavor.ledger.manifest import Contributor, Manifest, SignedRecord
from flavor.ledger.trust import Trust, trust_hint


def signature_problems(record: SignedRecord) -> Iterator[str]:
    """Yield what is wrong with the signature of an aggregator on its record."""
    try:
        if not record.signature:
            yield "it is not signed"
        elif not record.is_signed():
            yield f"the signature is not that of its key {fingerprint(record.public_key)}: it was changed"
    except InvalidSetting as error:
        yield str(error)


@dataclass
class _Span:
    """The rounds whose records have one key."""

    first: int
    last: int
    rounds: int = 1

    def add(self, round_: int) -> None:
        self.last, self.rounds = round_, self.rounds + 1

    @property
    def others(self) -> str:
        more = self.rounds - 1
        return f" (and so in {more} more round{'s' * (more > 1)}, up to round {self.last})" if more else ""


@dataclass
class Signers:
    """The keys seen so far, oldest round first. `problems` and `notices` are pairs of a round and a message."""

    trust: Trust
    problems: list[tuple[int, str]] = field(default_factory=list)
    notices: list[tuple[int, str]] = field(default_factory=list)
    _workers: dict[str, _Span] = field(default_factory=dict)
    _known: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Each client's key, and the round in which it was new."""
    _unnamed: dict[tuple[str, str], _Span] = field(default_factory=dict)
    """Pairs of client and key for which `--trust` names other keys."""

    def add(self, manifest: Manifest) -> None:
        """Look at the next round."""
        self.problems += [(manifest.round, what) for what in self._of_worker(manifest)]
        for contributor in manifest.contributors:
            told = self._of_client(manifest, contributor)
            self.problems += [(manifest.round, f"{contributor.client}: {what}") for what in told]

    def end(self) -> None:
        """Report the keys that `--trust` does not name, after the last round."""
        named = [span.first for key, span in self._workers.items() if key in self.trust.workers]
        for key, span in self._workers.items():
            if not self.trust.workers or key in self.trust.workers:
                continue
            said = f"it is signed with key {fingerprint(key)}, which --trust does not name{span.others}"
            if later := [first for first in named if first > span.last]:
                said += f"; from round {min(later)} on another key signs, which it names: an aggregator has a new key"
                self.notices.append((span.first, said))
            else:
                self.problems.append((span.first, said + _in_brackets(trust_hint((None, key)))))
        for (client, key), span in self._unnamed.items():
            said = f"{client}: its update is signed with key {fingerprint(key)}, which --trust does not name for it"
            self.problems.append((span.first, said + span.others + _in_brackets(trust_hint((client, key)))))

    def _of_worker(self, manifest: Manifest) -> Iterator[str]:
        yield from signature_problems(manifest)
        if manifest.public_key in self._workers:
            self._workers[manifest.public_key].add(manifest.round)
        else:
            self._workers[manifest.public_key] = _Span(manifest.round, manifest.round)

    def _of_client(self, manifest: Manifest, of: Contributor) -> Iterator[str]:
        named = self.trust.clients.get(of.client)
        key, since = self._known.get(of.client, ("", 0))
        if not of.signature:
            if named:
                yield "its update is not signed, and --trust names its key"
            elif manifest.config.get("require_signatures"):
                yield "its update is not signed, and the run took signed ones only"
            elif key and self._by_operator(manifest, of, key):
                self._tell(manifest, of, "its updates are not signed from here on")
                del self._known[of.client]
            elif key:
                yield f"its update is not signed, and it had the key {fingerprint(key)} in round {since}"
            return
        try:
            if not manifest.statement(of).is_signed(of.public_key, of.signature):
                yield f"the signature on its update is not that of its key {fingerprint(of.public_key)}"
        except InvalidSetting as error:
            yield str(error)
        if of.public_key != key:
            self._known[of.client] = (of.public_key, manifest.round)
        if named and of.public_key not in named:
            if (each := (of.client, of.public_key)) in self._unnamed:
                self._unnamed[each].add(manifest.round)
            else:
                self._unnamed[each] = _Span(manifest.round, manifest.round)
        elif key and of.public_key != key:
            yield from self._changed(manifest, of, key, since, named=bool(named))

    def _changed(self, manifest: Manifest, of: Contributor, key: str, since: int, *, named: bool) -> Iterator[str]:
        """Report a changed key of a client. `named` says that `--trust` names the new key."""
        now = f"its key is {fingerprint(of.public_key)}"
        if self._by_operator(manifest, of, key):
            self._tell(manifest, of, f"{now} from here on, and was {fingerprint(key)} since round {since}")
            for former in of.replaced:
                self._unnamed.pop((of.client, former), None)
        elif not named:
            hint = trust_hint((of.client, key), (of.client, of.public_key))
            if key in of.replaced:
                told = "an operator enrolled it anew, the record says, which --trust AGGREGATOR believes"
                hint = f"{told}; or {hint}" if hint else told
            yield f"{now}, and was {fingerprint(key)} in round {since}{_in_brackets(hint)}"

    def _tell(self, manifest: Manifest, of: Contributor, what: str) -> None:
        self.notices.append((manifest.round, f"{of.client}: {what}: an operator enrolled it anew"))

    def _by_operator(self, manifest: Manifest, of: Contributor, key: str) -> bool:
        """Whether an operator has replaced the client's `key`, by a record that is believed."""
        return key in of.replaced and (self.trust.records or manifest.public_key in self.trust.workers)


def _in_brackets(hint: str) -> str:
    return f" ({hint})" if hint else ""
