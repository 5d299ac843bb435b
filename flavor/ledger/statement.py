"""What a client signs when it hands in an update, and the signature's check."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flavor.ledger.canonical import canonical
from flavor.ledger.keys import PublicKey, SigningKey
from flavor.protocol import PROTOCOL
from flavor.records.update import Update


@dataclass(frozen=True)
class Statement:
    """One client's word: in this round of this run, from this global model, I hand in these bytes and this info.

    It names the run (by its name, and by the id that no other run has), the round, the client and the global model, so
    that a signed update counts nowhere else; and the number of examples, so that an update's weight in the mean can be
    checked without the information itself.
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
        """The statement on `update`, in a `run` of this name and id; `trained_from` where its `base` is not known."""
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
        """The bytes that are signed: canonical JSON of these fields, `kind` and `protocol`."""
        return canonical({"kind": "flavor.update", "protocol": PROTOCOL, **self.__dict__})

    def is_signed(self, public_key: str, signature: str) -> bool:
        """Whether `signature` is that of `public_key` (`ed25519:HEX`) on this statement.

        Raises `InvalidSetting` for what is no public key.
        """
        return PublicKey.parse(public_key).verifies(signature, self.message())


def signed(update: Update, key: SigningKey, *, run: tuple[str, str], round_: int, client: str) -> Update:
    """`update` with the signature of its edge, by which it can be told from what any other party hands in.

    `run` is the run's name and id.
    """
    statement = Statement.of(update, run=run, round_=round_, client=client)
    return replace(update, public_key=str(key.public), signature=key.sign(statement.message()))
