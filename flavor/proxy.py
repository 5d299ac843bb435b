"""Which proxy leads to a host: what `--proxy`, the environment and `NO_PROXY` say. Bus and store ask here alone.

They ask before each connection. So every connection of a program takes the same way, also those of RQ and of a training
script, which has this environment. `--proxy` sets its variable, which comes before those that other programs read.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from flavor.atomic import write_whole
from flavor.errors import InvalidSetting

PROXY_VARIABLE = "FLAVOR_PROXY"
NONE = "none"
"""The value of `PROXY_VARIABLE` with which every connection is direct."""
_OF_SCHEME = {
    "rediss": ("HTTPS_PROXY", "ALL_PROXY"),
    "redis": ("ALL_PROXY",),
    "https": ("HTTPS_PROXY", "ALL_PROXY"),
    "http": ("HTTP_PROXY", "ALL_PROXY"),
}
"""The variables that name a proxy for a URL. `HTTP_PROXY` is for HTTP, which Redis does not speak."""
_KINDS = {"http": "http", "socks5": "socks5", "socks5h": "socks5"}
_PORTS = {"http": 80, "socks5": 1080}
_MOST_BYTES = 4096
_KEPT = "proxy"
"""The name of a file with a proxy's URL, in a workspace."""


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that names it. `user` is None for a proxy without authentication."""

    kind: str
    """`http` or `socks5`."""
    host: str
    port: int
    source: str
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return shown_place(self.host, self.port)

    @property
    def url(self) -> str:
        """The whole URL, with the password: for a library that connects by itself."""
        signs_in = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        return f"{self.kind}://{signs_in}{self.where}"

    @property
    def headers(self) -> dict[str, str]:
        """What an HTTP proxy is told beside the request."""
        if self.user is None:
            return {}
        words = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Proxy-Authorization": f"Basic {words}"}


def proxy_for(scheme: str, host: str, port: int | None = None) -> Proxy | None:
    """Return the proxy that leads to this host for a URL with this scheme; None for a direct connection.

    This machine, and what `NO_PROXY` names, are reached directly. Raises `InvalidSetting` for a variable that names no
    proxy that can be used.
    """
    if is_loopback(host) or _is_excepted(host, port, _value("NO_PROXY")):
        return None
    if own := os.environ.get(PROXY_VARIABLE):
        return None if own == NONE else _own(own, host)
    for variable in _OF_SCHEME[scheme]:
        if value := _value(variable):
            return parse_proxy(value, variable, host)
    return None


def why_direct(scheme: str, host: str, port: int | None = None) -> str:
    """Return why no proxy leads to this host, as a cause to look for; '' where one does, and for this machine."""
    if is_loopback(host) or proxy_for(scheme, host, port) is not None:
        return ""
    named = [name for name in (PROXY_VARIABLE, *_OF_SCHEME[scheme]) if _value(name) not in ("", NONE)]
    if named and _is_excepted(host, port, _value("NO_PROXY")):
        return f"it is reached directly: NO_PROXY names this host, although {named[0]} is set"
    if os.environ.get(PROXY_VARIABLE) == NONE:
        return f"it is reached directly: --proxy or {PROXY_VARIABLE} is {NONE}"
    others = sorted({name for names in _OF_SCHEME.values() for name in names if _value(name)})
    unused = f" ({others[0]} is not for {scheme}://)" if others else ""
    return (
        f"it is reached directly, as no proxy is set for it{unused}: if this machine needs one, name it with "
        f"--proxy or {_OF_SCHEME[scheme][0]}"
    )


_last: dict[str, Proxy] = {}
"""The proxy that each file has named last: one that is being written to is no reason to end."""


def _own(text: str, host: str) -> Proxy:
    try:
        _last[text] = parse_proxy(_of_file(text), PROXY_VARIABLE, host)
    except InvalidSetting:
        if text not in _last:
            raise
    return _last[text]


def parse_proxy(text: str, source: str, host: str = "HOST") -> Proxy:
    """Read a proxy's URL. Raises `InvalidSetting`, which quotes nothing of it: it may hold a password."""
    around = f"or go around it with NO_PROXY={host}"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        scheme, name, port, user, password = parts.scheme, parts.hostname, parts.port, parts.username, parts.password
    except ValueError:
        scheme, name, port, user, password = "", None, None, None, None
    if scheme and scheme not in _KINDS:
        raise InvalidSetting(
            f"{source} names a proxy that speaks {scheme if scheme.isalnum() else 'something else'}, and flavor speaks "
            f"to HTTP and SOCKS5 proxies: write http://HOST:PORT or socks5://HOST:PORT, {around}"
        )
    if not name or not name.isprintable() or " " in name:
        raise InvalidSetting(
            f"{source} names no proxy that can be used: write http://USER:PASSWORD@HOST:PORT (or socks5://…), with "
            f"special characters of the password percent-encoded, {around}"
        )
    kind = _KINDS[scheme]
    user, password = None if user is None else unquote(user), unquote(password or "")
    if kind == "socks5" and user is not None and not (_fits_socks(user) and _fits_socks(password)):
        raise InvalidSetting(f"{source}: SOCKS5 takes a user and a password of 1 to 255 ASCII characters each")
    if user is not None and (":" in user or not (user + password).isprintable()):
        raise InvalidSetting(f"{source}: the proxy's user holds a colon, or its password a control character")
    return Proxy(kind, name, port or _PORTS[kind], source, user, password)


def _fits_socks(words: str) -> bool:
    return words.isascii() and 0 < len(words) < 256


def chosen(text: str) -> str:
    """Return the value for `PROXY_VARIABLE` that stands for a value of `--proxy`, from any folder.

    Raises `InvalidSetting` for one that cannot be used.
    """
    if text == NONE:
        return text
    parse_proxy(_of_file(text), "--proxy")
    return f"@{os.path.abspath(text[1:])}" if text.startswith("@") else text


def without_password(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment for a program of the site, which finds the proxy of `PROXY_VARIABLE` in a file instead.

    The file is in `folder`, for this user alone, until `forget_password`. Variables that other programs read are left
    as they are.
    """
    value = environment.get(PROXY_VARIABLE, "")
    if "@" not in value or value.startswith("@"):
        return dict(environment)
    file = folder.absolute() / _KEPT
    write_whole(file, value, mode=0o600)
    return {**environment, PROXY_VARIABLE: f"@{file}"}


def forget_password(folder: Path) -> None:
    """Remove the file of `without_password`, if there is one: a result folder is given to others."""
    (folder / _KEPT).unlink(missing_ok=True)


def shown_place(host: str, port: int | None) -> str:
    """Return host and port as a URL spells them."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def is_loopback(host: str) -> bool:
    """Whether this is a name or an address of this machine itself."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _value(variable: str) -> str:
    """Return the variable, whose spelling in small letters comes first as everywhere."""
    return os.environ.get(variable.lower()) or os.environ.get(variable) or ""


def _of_file(text: str) -> str:
    """Return a URL, or that in the file FILE for `@FILE`. It is read anew each time: a password may change."""
    if not text.startswith("@"):
        return text
    try:
        with open(text[1:], encoding="utf-8") as file:
            return file.read(_MOST_BYTES).strip()
    except OSError as error:
        raise InvalidSetting(f"--proxy {text}: {error.strerror}") from None
    except UnicodeDecodeError:
        return ""


def excepted_hosts() -> list[str]:
    """Return the hosts, domains and networks that `NO_PROXY` names with all their ports."""
    return [entry.removeprefix("*") or entry for entry in _entries(_value("NO_PROXY")) if not _with_port(entry)]


def _is_excepted(host: str, port: int | None, listed: str) -> bool:
    """Whether `NO_PROXY` names a host: by its name, a domain, an address or a network, each perhaps with a port."""
    name = host.strip("[]").rstrip(".").lower()
    return any(_is_meant(entry, name, port) for entry in _entries(listed))


def _entries(listed: str) -> list[str]:
    return [entry for entry in re.split(r"[,\s]+", listed.lower()) if entry]


def _with_port(entry: str) -> re.Match[str] | None:
    return re.fullmatch(r"\[?([^\[\]]*?)\]?:(\d+)", entry) if entry.count(":") == 1 or "]:" in entry else None


def _is_meant(entry: str, name: str, port: int | None) -> bool:
    if entry == "*":
        return True
    if with_port := _with_port(entry):
        if port is not None and int(with_port[2]) != port:
            return False
        entry = with_port[1]
    entry = entry.strip("[]")
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        domain = entry.removeprefix("*").strip(".")
        return bool(domain) and (name == domain or name.endswith(f".{domain}"))
