"""What a client signs when it hands in an update or the result of an evaluation, and the signature's check."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flavor.ledger.canonical import canonical
from flavor.ledger.keys import PublicKey, SigningKey
from flavor.protocol import RECORDS
from flavor.records.evaluation import Result
from flavor.records.update import Update


@dataclass(frozen=True)
class Statement:
    """What a client states: that it hands in these bytes and this information, for this round, from this global model.

    The statement names the run (its name and its unique id), the round, the client and the global model, so that a
    signed update counts nowhere else. It names the number of examples, so that an update's weight in the mean can be
    checked without the information.
    """

    run: str
    run_id: str
    round: int
    client: str
    digest: str
    """SHA-256 of the update's object, in hex."""
    size_bytes: int
    format: str
    num_examples: int
    """`datasetSize` in the information."""
    info_digest: str
    """SHA-256 of the information as it was handed in, in hex."""
    trained_from: str
    """SHA-256 of the global model that the client was given; '' where there was none."""

    @classmethod
    def of(
        cls, update: Update, *, run: tuple[str, str], round_: int, client: str, trained_from: str | None = None
    ) -> Statement:
        """Make the statement on `update`. `run` is name and id; `trained_from` stands in for an unknown `base`."""
        name, run_id = run
        return cls(
            run=name,
            run_id=run_id,
            round=round_,
            client=client,
            digest=update.object.digest,
            size_bytes=update.size_bytes,
            format=update.format,
            num_examples=update.num_examples,
            info_digest=update.info.digest,
            trained_from=update.trained_from if trained_from is None else trained_from,
        )

    def message(self) -> bytes:
        """Return the signed bytes: canonical JSON of these fields, `kind` and `protocol`."""
        return canonical({"kind": "flavor.update", "protocol": RECORDS, **self.__dict__})

    def is_signed(self, public_key: str, signature: str) -> bool:
        """Whether `signature` is a signature of `public_key` (`ed25519:HEX`) on this statement.

        Raises `InvalidSetting` for text that is no public key.
        """
        return PublicKey.parse(public_key).verifies(signature, self.message())


@dataclass(frozen=True)
class EvaluationStatement:
    """What a client states when it has judged a model: that it measured this, of this model, on so many examples.

    The statement names the run, the round that made the model and the evaluation, so that a signed result counts
    nowhere else.
    """

    run: str
    run_id: str
    round: int
    evaluation: int
    client: str
    model: str
    """SHA-256 of the judged model, in hex."""
    num_examples: int
    info_digest: str
    """SHA-256 of the information as it was handed in, in hex."""

    def message(self) -> bytes:
        """Return the signed bytes: canonical JSON of these fields, `kind` and `protocol`."""
        return canonical({"kind": "flavor.result", "protocol": RECORDS, **self.__dict__})

    def signed(self, key: SigningKey, result: Result) -> Result:
        """Return the result with the signature of its edge."""
        return replace(result, public_key=str(key.public), signature=key.sign(self.message()))

    def is_signed(self, public_key: str, signature: str) -> bool:
        """Whether `signature` is one of `public_key` on this statement. Raises `InvalidSetting` for no public key."""
        return PublicKey.parse(public_key).verifies(signature, self.message())


def signed(update: Update, key: SigningKey, *, run: tuple[str, str], round_: int, client: str) -> Update:
    """Return `update` with the signature of its edge, which no other party can make.

    `run` is the run's name and id.
    """
    statement = Statement.of(update, run=run, round_=round_, client=client)
    return replace(update, public_key=str(key.public), signature=key.sign(statement.message()))
