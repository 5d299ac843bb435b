"""The bus's address: a URL that also names its TLS files, so that one string is all a connection needs.

Within a process, the files stand in the URL's query, in redis-py's spelling (`rediss://host?ssl_ca_certs=…`). Between
processes, where programs in other languages read them, they stand in variables beside a plain URL.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from redis.connection import parse_url

from flavor.bus.connection import checked_url, shown, unusable
from flavor.bus.tls import tls_context
from flavor.bus.variables import INSECURE_VARIABLE, JOIN_VARIABLE, NOTIFY_VARIABLE, RELAY_VARIABLE, URL_VARIABLE
from flavor.errors import InvalidSetting

_FILES = {"FLAVOR_TLS_CA": "ssl_ca_certs", "FLAVOR_TLS_CERT": "ssl_certfile", "FLAVOR_TLS_KEY": "ssl_keyfile"}
_MOST_BYTES = 1 << 16
_LOOKUP_S = 3.0
"""Longest look-up of a server's name, made to see whether the server is this machine."""


def url_of(text: str) -> str:
    """Return a URL, or that in the file FILE for `@FILE`, as `flavor enroll --out FILE` writes it.

    Raises `InvalidSetting`, which quotes nothing of the file.
    """
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        with path.open(encoding="utf-8") as file:
            url = file.read(_MOST_BYTES).strip()
    except OSError as error:
        raise InvalidSetting(f"--redis-url @{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        url = ""
    if "://" not in url or not url.isprintable():
        raise InvalidSetting(f"--redis-url @{path}: there is no URL in it: `flavor enroll --out FILE` writes one")
    return url


def bus_address(
    url: str, *, tls_ca: str | None, tls_cert: str | None, tls_key: str | None, insecure: bool = False
) -> str:
    """Return the address of the bus at `url`, with these PEM files: the CA to trust, our certificate and its key.

    Raises `InvalidSetting` for a URL or files that cannot be used, and, unless `insecure`, for a connection that would
    send passwords unencrypted over a network (`redis://` to another machine).
    """
    parsed = _parsed(url)
    files = {"ssl_ca_certs": tls_ca, "ssl_certfile": tls_cert, "ssl_keyfile": tls_key}
    if not url.startswith("rediss:"):
        if url.startswith("redis:") and any(files.values()):
            raise InvalidSetting(
                f"TLS files are given, but the Redis URL {shown(url)!r} is not for TLS: write rediss://"
            )
        host = parsed.get("host", "localhost")
        if url.startswith("redis:") and not insecure and not is_this_machine(host):
            raise InvalidSetting(
                f"Redis URL {shown(url)!r} is not encrypted, and {host} is not this machine: use rediss:// "
                f"(`flavor certs` makes certificates to try it with), or --insecure ({INSECURE_VARIABLE}=1) inside a "
                "network that you trust"
            )
        return url
    address = _with_query(url, {name: os.path.abspath(file) for name, file in files.items() if file})
    parsed = _parsed(address)
    check_files(parsed.get("ssl_ca_certs"), parsed.get("ssl_certfile"), parsed.get("ssl_keyfile"))
    return address


def _parsed(url: str) -> dict[str, Any]:
    checked_url(url)
    try:
        parsed: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise unusable(url, error) from None
    return parsed


def check_files(ca: str | None, cert: str | None = None, key: str | None = None) -> None:
    """Raise `InvalidSetting` unless these PEM files can be used: the CA to trust, our certificate and its key."""
    if key and not cert:
        raise InvalidSetting(f"--tls-key {key}: give the certificate that it belongs to as well, with --tls-cert")
    for option, file in (("--tls-ca", ca), ("--tls-cert", cert), ("--tls-key", key)):
        try:
            if file:
                with open(file, "rb") as opened:
                    opened.read(1)
        except OSError as error:
            raise InvalidSetting(f"{option} {file}: {error.strerror}") from None
    try:
        tls_context(ca, None, None)
    except ssl.SSLError:
        raise InvalidSetting(f"--tls-ca {ca}: there is no certificate in it: give a PEM file") from None
    try:
        tls_context(ca, cert, key)
    except ssl.SSLError as error:
        what = (
            "the key is not that of the certificate"
            if error.reason == "KEY_VALUES_MISMATCH"
            else "these are not a certificate and its unencrypted key, as PEM files"
        )
        raise InvalidSetting(f"--tls-cert {cert}, --tls-key {key or cert}: {what}") from None


def from_environment(environment: Mapping[str, str], url: str) -> str:
    """Return the address of the bus at `url`, with the TLS files that a trainer's edge has named in its environment."""
    if not url.startswith("rediss:"):
        return url
    files = {name: environment[variable] for variable, name in _FILES.items() if environment.get(variable)}
    return _with_query(url, files)


def to_environment(base: Mapping[str, str], address: str) -> dict[str, str]:
    """Return the environment `base` changed for a child process that uses the bus at `address`.

    Leaves out a join token and the URLs of notices. Allows the child an unencrypted URL, because this process was
    allowed it.
    """
    without = {*_FILES, JOIN_VARIABLE, NOTIFY_VARIABLE, RELAY_VARIABLE}
    child = {name: value for name, value in base.items() if name not in without}
    child[URL_VARIABLE] = address
    if address.startswith("redis:"):
        child[INSECURE_VARIABLE] = "1"
    if address.startswith("rediss:"):
        named = dict(parse_qsl(urlsplit(address).query))
        child |= {variable: named[name] for variable, name in _FILES.items() if name in named}
        child[URL_VARIABLE] = _with_query(address, dict.fromkeys(_FILES.values(), ""))
    return child


def _with_query(url: str, changes: Mapping[str, str]) -> str:
    """Return the URL with these values in its query; empty values are left out."""
    parts = urlsplit(url)
    values = {**dict(parse_qsl(parts.query)), **changes}
    query = urlencode({name: value for name, value in values.items() if value}, quote_via=quote)
    return f"{parts.scheme}://{parts.netloc}{parts.path}{'?' if query else ''}{query}"


def tls_ca(address: str) -> str | None:
    """Return the CA file that an address names."""
    value: str | None = _parsed(address).get("ssl_ca_certs")
    return value


def database(address: str) -> int:
    """Return the number of the database that an address names."""
    return int(_parsed(address).get("db", 0))


def is_this_machine(host: str) -> bool:
    """Whether bytes sent to `host` stay on this machine.

    Looks up a name for three seconds at most; all of its addresses must then be this machine's.
    """
    addresses = _addresses(host)
    return bool(addresses) and all(_is_own(address) for address in addresses)


def _addresses(host: str) -> list[str]:
    """Return the addresses of a host; none where the look-up does not end in time."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    found: list[str] = []

    def look() -> None:
        try:
            found.extend(str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=look, name="lookup", daemon=True)  # a resolver can take minutes to fail
    thread.start()
    thread.join(_LOOKUP_S)
    return [] if thread.is_alive() else found


def _is_own(address: str) -> bool:
    """Whether packets to this address stay on this machine: then the kernel sends them from the same address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return _is_own(str(parsed.ipv4_mapped))
    if parsed.is_loopback:
        return True
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            return bool(probe.getsockname()[0] == address)
    except OSError:
        return False
