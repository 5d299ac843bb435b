"""Ed25519 keys (RFC 8032): a private key in a file of its owner, a public key as one line of text.

A public key is written as `ed25519:` and its 32 bytes in lowercase hex, a signature as its 64 bytes in lowercase hex.
Each has one spelling, so that no character can change unnoticed. `cryptography` is imported only to sign, to check and
to make keys, so that a trainer or a command without signatures does not pay for the import.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flavor.atomic import write_once, write_whole
from flavor.errors import InvalidSetting
from flavor.ledger.canonical import sha256
from flavor.ledger.curve import key_problem
from flavor.records.names import is_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PUBLIC = re.compile(r"ed25519:([0-9a-f]{64})")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_LONGEST_FILE = 1 << 20
_ALL_BUT_OWNER, _OTHERS = 0o077, 0o037
"""Bits of a mode; the second ones leave out that the group reads."""
_PEM_PUBLIC = "-----BEGIN PUBLIC KEY-----"


@dataclass(frozen=True)
class PublicKey:
    """A public key."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read `ed25519:HEX`. Raises `InvalidSetting`."""
        match = _PUBLIC.fullmatch(text)
        if match is None:
            raise InvalidSetting(f"public key {text[:80]!r} cannot be used: write ed25519: and 64 hexadecimal digits")
        return cls.checked(bytes.fromhex(match[1]))

    @classmethod
    def checked(cls, raw: bytes) -> PublicKey:
        """Make a key of its 32 bytes. Raises `InvalidSetting` for bytes that bind no owner (see `curve`)."""
        if problem := key_problem(raw):
            raise InvalidSetting(f"public key ed25519:{raw.hex()} cannot be used: {problem}")
        return cls(raw)

    def __str__(self) -> str:
        return f"ed25519:{self.raw.hex()}"

    @property
    def fingerprint(self) -> str:
        """The first twelve hexadecimal digits of the key's SHA-256, for tables and messages."""
        return sha256(self.raw)[:12]

    def verifies(self, signature: str, message: bytes) -> bool:
        """Whether `signature` is a signature of this key on `message`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if not _SIGNATURE.fullmatch(signature):
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(bytes.fromhex(signature), message)
        except (InvalidSignature, ValueError):  # ValueError: these bytes are no key
            return False
        return True


def fingerprint(public_key: str) -> str:
    """Return the fingerprint of a public key in a record, or a word for text that is no key."""
    try:
        return PublicKey.parse(public_key).fingerprint
    except InvalidSetting:
        return "unreadable" if public_key else "none"


class SigningKey:
    """A private key. It is read from its file and never written elsewhere; it has no text form."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey({self.public.fingerprint})"

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key, in memory alone."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read the key in the PEM file at `path` (PKCS #8, no passphrase, as of `openssl genpkey -algorithm ed25519`).

        Raises `InvalidSetting` for a file that is absent, unreadable, not such a key, or open to other users. A group
        may read a file of root's: who may be in the group is root's to say, and Kubernetes mounts a Secret in this way.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        with _named(path):
            found = path.stat()
            if found.st_mode & (_OTHERS if found.st_uid == 0 and os.geteuid() != 0 else _ALL_BUT_OWNER):
                raise InvalidSetting(f"the key {path} can be read by other users of this machine: chmod 600 {path}")
            data = path.read_bytes()[:_LONGEST_FILE]
        try:
            private = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise InvalidSetting(
                f"the key {path} cannot be used: expected an Ed25519 private key in PEM without a passphrase "
                f"(openssl genpkey -algorithm ed25519 -out {path})"
            )
        return cls(private)

    @classmethod
    def load_or_create(cls, path: Path, label: str = "") -> SigningKey:
        """Read the key at `path`, or make a new one there that its owner alone can read.

        Several processes that start at once get the same key. The public key lies beside it as `PATH.pub`, after
        `label`, the client's name. Raises `InvalidSetting`.
        """
        if not path.exists():
            with _named(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_once(path, cls.generate()._pem())
        key = cls.load(path)
        public = path.with_name(path.name + ".pub")
        line = f"{label} {key.public}\n".lstrip()
        with suppress(OSError):  # a key on a read-only mount can be used, too
            if not public.exists() or public.read_text(encoding="utf-8") != line:
                write_whole(public, line)
        return key

    @classmethod
    def kept(cls, path: Path | None, default: Path, tell: Callable[[str], None], how: str) -> SigningKey:
        """Return the key at `path`, or the one at `default`, or, where no file can be kept, a key for this process.

        Reports a key for this process alone, and `how` to name another.
        """
        try:
            return cls.load_or_create(path or default)
        except InvalidSetting as error:
            if path is not None or default.exists():
                raise
            tell(f"{error}; a key that ends with this process signs: keep one with {how}")
            return cls.generate()

    def _pem(self) -> bytes:
        from cryptography.hazmat.primitives import serialization

        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> str:
        """Sign `message`; return the signature in hex."""
        return self._private.sign(message).hex()


def read_public_key(text: str) -> list[tuple[str, PublicKey]]:
    """Read the public keys that an option names: `ed25519:HEX`, `CLIENT ed25519:HEX`, or the path of a file of keys.

    Raises `InvalidSetting`.
    """
    client, _, key = text.rpartition(" ")
    if key.startswith("ed25519:") and (not client or is_name(client)):
        return [(client, PublicKey.parse(key))]
    return read_public_keys(Path(text))


def read_public_keys(path: Path) -> list[tuple[str, PublicKey]]:
    """Read the public keys in a file: one a line, `ed25519:HEX`, or `CLIENT ed25519:HEX` for a client; or one in PEM.

    Returns pairs of client and key, with client '' where the line names none. Skips empty lines and lines that begin
    with `#`. Raises `InvalidSetting` with the number of the line.
    """
    with _named(path):
        text = path.read_bytes()[:_LONGEST_FILE].decode(errors="replace")
    if text.lstrip().startswith(_PEM_PUBLIC):
        return [("", _public_from_pem(text, path))]
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        client = words[0] if len(words) == 2 else ""
        try:
            if len(words) > 2 or (client and not is_name(client)):
                raise InvalidSetting(f"{line.strip()[:80]!r} is not KEY or CLIENT KEY")
            found.append((client, PublicKey.parse(words[-1])))
        except InvalidSetting as error:
            raise InvalidSetting(f"{path}, line {number}: {error}") from None
    if not found:
        raise InvalidSetting(f"{path}: there is no public key in it")
    return found


def _public_from_pem(text: str, path: Path) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidSetting(f"{path}: not an Ed25519 public key")
    return PublicKey.checked(key.public_bytes_raw())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidSetting(f"the key {path} cannot be used: {error.strerror}") from None
