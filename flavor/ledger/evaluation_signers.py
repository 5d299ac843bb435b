"""Who signs the records of evaluations and the results that they name: compare the records of a run with each other.

A site that trains shows its key with each update. Of one that only judges, evaluations alone tell the key, and a record
says which keys an operator has replaced (`flavor enroll --new-key`): see `flavor.ledger.signers`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from flavor.ledger.evaluation import EvaluationManifest
from flavor.ledger.evaluations import EvaluationRecord, Signed
from flavor.ledger.keys import fingerprint
from flavor.ledger.trust import trust_hint


def compared(records: Sequence[EvaluationRecord], signed: Signed) -> list[EvaluationRecord]:
    """Return the records in the order in which they were closed, with what is wrong among them.

    That is a record of an evaluation of which another aggregator has signed one too, unless both are known; and a site
    that signs its result with another key than before, though no operator has replaced its key.
    """
    judges, workers = _JudgeKeys(signed), defaultdict[tuple[int, int], set[str]](set)
    for record in records:
        if not record.problems:
            workers[record.name].add(record.manifest.public_key)
    found = list[EvaluationRecord]()
    for record in sorted(records, key=lambda record: (record.manifest.closed_ms, record.ref.digest)):
        problems, notices = list(record.problems), list[str]()
        others = workers[record.name] - {record.manifest.public_key}
        if record.stranger and others and not problems:
            said = ", ".join(map(fingerprint, sorted(others)))
            what = f"another record of this evaluation is signed with key {said}: one was made up"
            problems.append(f"{record.stranger}, and {what}")
        elif record.is_believed:
            problems, notices = judges.add(record.manifest)
        found.append(replace(record, problems=tuple(problems), notices=tuple(notices)))
    return found


@dataclass
class _JudgeKeys:
    """The keys with which sites have signed their results so far, oldest evaluation first."""

    signed: Signed
    _known: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The key of each site that only judges, and the round of the model with which it was new."""

    def add(self, manifest: EvaluationManifest) -> tuple[list[str], list[str]]:
        """Look at the next evaluation; return what is wrong, and what is to be told.

        A key that is wrong once is wrong in each later record, because none of them is believed.
        """
        problems, notices = list[str](), list[str]()
        for judge in manifest.judges:
            keys, before = self._before(judge.client)
            if judge.client in self.signed.trust.clients or judge.public_key in keys:
                continue
            if not keys:
                if judge.signature:
                    self._known[judge.client] = (judge.public_key, manifest.round)
                continue
            key = fingerprint(judge.public_key)
            now = f"its result is signed with key {key}" if judge.signature else "its result is not signed"
            said = f"{judge.client}: {now}, and {before}"
            if keys.isdisjoint(judge.replaced or ()):
                hint = trust_hint(*((judge.client, each) for each in (*sorted(keys), judge.public_key)))
                problems.append(said + (f" ({hint})" if hint else ""))
            elif self.signed.trust.records or manifest.public_key in self.signed.trust.workers:
                self._known[judge.client] = (judge.public_key, manifest.round)
                notices.append(f"{said}: an operator enrolled it anew")
            else:
                told = "an operator enrolled it anew, the record says, which --trust AGGREGATOR believes"
                problems.append(f"{said} ({told})")
        return problems, notices

    def _before(self, client: str) -> tuple[set[str], str]:
        """Return the keys that a site has shown, and where, in words; none for one that has shown none."""
        keys = set(self.signed.clients.get(client, ()))
        if client in self._known:
            key, round_ = self._known[client]
            where = f"the evaluation of the model of round {round_}" if round_ else "an earlier evaluation"
            return {key, *keys}, f"that in {where} with key {fingerprint(key)}"
        return keys, f"its updates with key {', '.join(map(fingerprint, sorted(keys)))}"
