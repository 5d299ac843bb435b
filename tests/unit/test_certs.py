"""`flavor certs`: what it makes, and what it leaves alone."""

from __future__ import annotations

import datetime
import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from flavor.certs import NAMES, make_certificates
from flavor.errors import InvalidSetting

HOSTS = ["redis.example", "localhost", "127.0.0.1", "::1"]


def test_a_strict_verifier_accepts_them(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "new" / "folder", HOSTS, days=30)
    loaded = {name: x509.load_pem_x509_certificate(made.certificate(name).read_bytes()) for name in NAMES}
    builder = PolicyBuilder().store(Store([loaded["ca"]]))
    for host in HOSTS:
        try:
            subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            subject = x509.DNSName(host)
        builder.build_server_verifier(subject).verify(loaded["server"], [])
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example")).verify(loaded["server"], [])
    usage = loaded["client"].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    for certificate in loaded.values():
        public = certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert isinstance(public.curve, ec.SECP256R1)
        now = datetime.datetime.now(datetime.UTC)
        assert certificate.not_valid_before_utc < now
        assert datetime.timedelta(days=29) < certificate.not_valid_after_utc - now <= datetime.timedelta(days=30)
        certificate.verify_directly_issued_by(loaded["ca"])
    for name in NAMES:
        assert stat.S_IMODE(made.key(name).stat().st_mode) == 0o600
        key = load_pem_private_key(made.key(name).read_bytes(), password=None)
        assert key.public_key() == loaded[name].public_key()


def test_what_is_there_is_not_overwritten_unless_told_to(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["a.example"])
    before = {path: path.read_bytes() for path in made.files}
    made.certificate("client").unlink()
    with pytest.raises(InvalidSetting, match=r"ca\.pem is there already.*--force"):
        make_certificates(tmp_path, ["b.example"])
    assert {path: path.read_bytes() for path in made.files if path.exists()} == {
        path: data for path, data in before.items() if path != made.certificate("client")
    }
    made.key("server").chmod(0o644)
    make_certificates(tmp_path, ["b.example"], replace=True)
    assert not {path.read_bytes() for path in made.files} & set(before.values())
    assert stat.S_IMODE(made.key("server").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in made.files)


@pytest.mark.parametrize("host", ["", "two words", "user@host", "http://host", "höst"])
def test_what_is_no_host_is_refused_and_nothing_is_made(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidSetting, match="--host"):
        make_certificates(tmp_path / "x", ["good.example", host])
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSetting, match="Not a directory"):
        make_certificates(tmp_path / "file" / "x", ["a.example"])
