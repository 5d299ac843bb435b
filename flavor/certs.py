"""A small certificate authority for tests and demonstrations: one CA, a server and a client certificate.

The library trustme makes such certificates, too, and is not used: the validity of its CA cannot be chosen, each of its
certificates may serve a server, a client and code signing alike, and its keys are files that the umask leaves readable.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flavor.atomic import write_whole
from flavor.errors import InvalidSetting

NAMES = ("ca", "server", "client")
_SKEW = datetime.timedelta(days=1)
"""Certificates are valid from a day before now: a site whose clock is hours behind would refuse them otherwise."""


@dataclass(frozen=True)
class Certificates:
    """The files of one authority, in one folder: for each of `NAMES` a certificate and its key, both in PEM."""

    folder: Path

    def certificate(self, name: str) -> Path:
        """`NAME.pem`."""
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        """`NAME.key`, readable by its owner alone."""
        return self.folder / f"{name}.key"

    @property
    def files(self) -> list[Path]:
        """All files."""
        return [path for name in NAMES for path in (self.certificate(name), self.key(name))]


def make_certificates(
    folder: Path,
    hosts: Sequence[str],
    *,
    days: int = 365,
    replace: bool = False,
    now: datetime.datetime | None = None,
) -> Certificates:
    """Make a CA, a certificate of a server that is called `hosts` (DNS names and IP addresses), and one of a client.

    EC P-256 keys; valid for `days` days from `now`. Raises `InvalidSetting` for an existing file, which stays as it is
    unless `replace`, for a name that is no host, and for files that cannot be written.
    """
    made = Certificates(folder)
    names = [_general_name(host) for host in hosts]
    if not replace and (there := [path for path in made.files if os.path.lexists(path)]):
        raise InvalidSetting(f"{there[0]} is there already: name another folder, or replace all of them with --force")
    issuer = _Issuer.new(now or datetime.datetime.now(datetime.UTC), days)
    parts = {
        "ca": (issuer.certificate, issuer.key),
        "server": issuer.issue(hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, names),
        "client": issuer.issue("flavor client", ExtendedKeyUsageOID.CLIENT_AUTH, []),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (certificate, key) in parts.items():
            private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_whole(made.key(name), private, mode=0o600)
            write_whole(made.certificate(name), certificate.public_bytes(Encoding.PEM))
    except OSError as error:
        raise InvalidSetting(f"{error.filename or folder}: {error.strerror}") from None
    return made


@dataclass(frozen=True)
class _Issuer:
    """The authority: its key, its certificate, and how long what it signs is valid."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    start: datetime.datetime
    end: datetime.datetime

    @classmethod
    def new(cls, now: datetime.datetime, days: int) -> _Issuer:
        start, end = now - _SKEW, now + datetime.timedelta(days=days)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("flavor test CA")
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key, start, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(own, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate, start, end)

    def issue(
        self, subject: str, purpose: x509.ObjectIdentifier, names: Sequence[x509.GeneralName]
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A new key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(_name(subject), self.certificate.subject, key, self.start, self.end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()), key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        if not host or any(mark in host for mark in " /:@"):
            raise ValueError
        return x509.DNSName(host)
    except ValueError:
        raise InvalidSetting(f"--host {host!r} is neither a host name nor an IP address") from None
