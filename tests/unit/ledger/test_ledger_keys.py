"""Keys: one spelling, a file for their owner alone, signatures that fit one message."""

from __future__ import annotations

import os
import stat as stat_mode
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from flavor.edge.config import default_key
from flavor.errors import InvalidSetting
from flavor.ledger.keys import PublicKey, SigningKey, fingerprint, read_public_keys
from flavor.ledger.statement import Statement

STATEMENT = Statement("r", "0" * 32, 1, "a", "d" * 64, 10, "npz", 5, "e" * 64, "")


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "client.key"
    key = SigningKey.load_or_create(path, "site-1")
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_or_create(path, "site-1").public == key.public
    assert read_public_keys(tmp_path / "sub" / "client.key.pub") == [("site-1", key.public)]
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    assert repr(key) == f"SigningKey({key.public.fingerprint})"


def test_of_many_that_start_at_once_all_get_the_same(tmp_path: Path) -> None:
    keys: list[PublicKey] = []
    start = threading.Barrier(8)

    def load() -> None:
        start.wait()
        keys.append(SigningKey.load_or_create(tmp_path / "key").public)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_openssl_s_files_are_read(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "k.pem"
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none))
    path.chmod(0o600)
    public = tmp_path / "pub.pem"
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(private.public_key().public_bytes(encoding, spki))
    assert read_public_keys(public) == [("", SigningKey.load(path).public)]


def test_files_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(InvalidSetting, match="No such file"):
        SigningKey.load(path)
    path.write_text("no key")
    path.chmod(0o600)
    with pytest.raises(InvalidSetting, match="expected an Ed25519 private key in PEM"):
        SigningKey.load(path)
    encoding, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(other.private_bytes(encoding, pkcs8, serialization.NoEncryption()))
    with pytest.raises(InvalidSetting, match="expected an Ed25519"):
        SigningKey.load(path)
    own = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(own.private_bytes(encoding, pkcs8, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(InvalidSetting, match="without a passphrase"):
        SigningKey.load(path)
    path.write_bytes(own.private_bytes(encoding, pkcs8, serialization.NoEncryption()))
    path.chmod(0o640)
    with pytest.raises(InvalidSetting, match=f"chmod 600 {path}"):
        SigningKey.load(path)


@pytest.mark.parametrize(
    ("mode", "owner", "user", "is_taken"),
    [
        *((0o440, 0, 10001, True), (0o640, 0, 10001, True), (0o460, 0, 10001, False), (0o444, 0, 10001, False)),
        *((0o440, 10001, 10001, False), (0o440, 0, 0, False)),
    ],
)
def test_a_group_reads_a_key_of_root_alone_as_pods_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, user: int, is_taken: bool
) -> None:
    path = tmp_path / "key"
    key = SigningKey.load_or_create(path)

    def stat(self: Path) -> os.stat_result:
        return os.stat_result((stat_mode.S_IFREG | mode, 1, 1, 1, owner, 10001, 1, 1, 1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: user)
        patch.setattr(Path, "stat", stat)
        if is_taken:
            assert SigningKey.load(path).public == key.public
        else:
            with pytest.raises(InvalidSetting, match="chmod 600"):
                SigningKey.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no public key in it"),
        ("# only a comment\n", "no public key in it"),
        ("ed25519:12\n", "line 1: public key 'ed25519:12'"),
        ("\na b c\n", "line 2: 'a b c' is not KEY or CLIENT KEY"),
        (f"../x ed25519:{'0' * 64}", "line 1: "),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not an Ed25519 public key"),
    ],
)
def test_files_of_public_keys_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trusted"
    path.write_text(text)
    with pytest.raises(InvalidSetting, match=message):
        read_public_keys(path)


def test_a_public_key_has_one_spelling() -> None:
    key = SigningKey.generate().public
    assert PublicKey.parse(str(key)) == key
    assert fingerprint(str(key)) == key.fingerprint
    for other in (str(key).upper(), f" {key}", f"{key}\n", str(key)[:-1], "", f"rsa:{key.raw.hex()}"):
        with pytest.raises(InvalidSetting):
            PublicKey.parse(other)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(min_value=0), st.integers(0, 7))
def test_a_signature_fits_one_message_and_one_key(message: bytes, at: int, bit: int) -> None:
    key = SigningKey.generate()
    signature = key.sign(message)
    assert key.public.verifies(signature, message)
    assert not key.public.verifies(signature, message + b"x")
    assert not SigningKey.generate().public.verifies(signature, message)
    flipped = bytearray(signature.encode())
    flipped[at % len(flipped)] ^= 1 << bit
    assert not key.public.verifies(flipped.decode("latin-1"), message)


@pytest.mark.parametrize(
    "change",
    [
        {"run": "s"},
        {"run_id": "1" * 32},
        {"round": 2},
        {"client": "b"},
        {"digest": "c" * 64},
        {"size_bytes": 11},
        {"format": "torch"},
        {"num_examples": 6},
        {"info_digest": "f" * 64},
        {"trained_from": "a" * 64},
    ],
)
def test_a_statement_is_about_everything_in_it(change: dict[str, object]) -> None:
    key = SigningKey.generate()
    signature = key.sign(STATEMENT.message())
    assert STATEMENT.is_signed(str(key.public), signature)
    changed = Statement(**{**STATEMENT.__dict__, **change})
    assert not changed.is_signed(str(key.public), signature)


def test_the_bytes_that_a_client_signs() -> None:
    """Clients in other languages make them, too (docs/protocol.md)."""
    assert STATEMENT.message().decode() == (
        '{"client":"a","digest":"' + "d" * 64 + '","format":"npz","info_digest":"' + "e" * 64 + '",'
        '"kind":"flavor.update","num_examples":5,"protocol":2,"round":1,"run":"r","run_id":"' + "0" * 32 + '",'
        '"size_bytes":10,"trained_from":""}'
    )


def test_cryptography_is_loaded_only_by_who_signs() -> None:
    code = (  # redis imports the empty package itself
        "import sys, flavor.cook.utils, flavor.cli.main, flavor.cli.stop, flavor.edge.agent, flavor.ledger.archive; "
        "print('cryptography.hazmat' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "False"


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
EIGHTH = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")


def doubled(x: int, y: int) -> tuple[int, int]:
    """The point added to itself (RFC 8032, 5.1.4)."""
    product = D * x * x * y * y % P
    return 2 * x * y * pow(1 + product, -1, P) % P, (y * y + x * x) * pow(1 - product, -1, P) % P


def x_of(y: int) -> int:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    return x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P


def spelled(y: int, sign: int = 0) -> str:
    return "ed25519:" + (y | sign << 255).to_bytes(32, "little").hex()


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [0, 1, P - 1, EIGHTH, P - EIGHTH])
def test_a_key_of_small_order_is_refused(y: int, sign: int) -> None:
    """Whose signatures fit every message: eight times such a point is the neutral one."""
    assert doubled(*doubled(*doubled(x_of(y), y))) == (0, 1)
    with pytest.raises(InvalidSetting, match="a point of small order, whose signatures fit every message"):
        PublicKey.parse(spelled(y, sign))


@pytest.mark.parametrize("y", [P, P + 1, 2**255 - 1])
def test_a_second_spelling_of_a_key_is_refused(y: int) -> None:
    with pytest.raises(InvalidSetting, match="it is not spelled as RFC 8032 asks"):
        PublicKey.parse(spelled(y))


def test_what_is_no_point_is_refused_and_what_is_made_is_not() -> None:
    with pytest.raises(InvalidSetting, match="no point of the curve"):
        PublicKey.parse(spelled(2))
    for _ in range(50):
        key = SigningKey.generate()
        assert PublicKey.parse(str(key.public)) == key.public


def test_one_signature_does_not_fit_every_message() -> None:
    """What the library below takes: R and the key the neutral point, S = 0."""
    neutral, signature = spelled(1).removeprefix("ed25519:"), (1).to_bytes(32, "little").hex() + "0" * 64
    assert PublicKey(bytes.fromhex(neutral)).verifies(signature, b"anything"), "then the check at parsing can go"
    with pytest.raises(InvalidSetting):
        STATEMENT.is_signed(f"ed25519:{neutral}", signature)


def test_a_client_has_one_key_wherever_its_edge_is_started(tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    fallback = tmp_path / "flavor-work" / "r" / "a"
    assert default_key("a", None, fallback, env) == tmp_path / "config" / "flavor" / "keys" / "a.key"
    assert default_key("a", tmp_path / "w", fallback, env) == tmp_path / "w" / "client.key"
    assert default_key("a", None, fallback, {}) == Path.home() / ".config" / "flavor" / "keys" / "a.key"
    fallback.mkdir(parents=True)
    (fallback / "client.key").touch()
    assert default_key("a", None, fallback, env) == fallback / "client.key", "where an earlier release has put it"
