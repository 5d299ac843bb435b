"""What a client signs when it hands in an update, and the signature's check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flavor.ledger.canonical import canonical
from flavor.ledger.keys import PublicKey, SigningKey
from flavor.protocol import PROTOCOL


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

    def message(self) -> bytes:
        """The bytes that are signed: canonical JSON of these fields, `kind` and `protocol`."""
        return canonical({"kind": "flavor.update", "protocol": PROTOCOL, **self.__dict__})

    def is_signed(self, public_key: str, signature: str) -> bool:
        """Whether `signature` is that of `public_key` (`ed25519:HEX`) on this statement.

        Raises `InvalidSetting` for what is no public key.
        """
        return PublicKey.parse(public_key).verifies(signature, self.message())


def signature_fields(
    key: SigningKey,
    run: str,
    round_: int,
    client: str,
    fields: Mapping[str, str],
    *,
    run_id: str,
    trained_from: str,
) -> dict[str, str]:
    """What an edge adds to the `fields` of its update, so that it can be told from anyone else's."""
    statement = Statement(
        run=run,
        run_id=run_id,
        round=round_,
        client=client,
        digest=fields["digest"],
        size_bytes=int(fields["size"]),
        format=fields["format"],
        num_examples=int(fields["num_examples"]),
        info_digest=fields["info_digest"],
        trained_from=trained_from,
    )
    return {"public_key": str(key.public), "signature": key.sign(statement.message())}
