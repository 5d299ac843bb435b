"""Whether a request for an HTTP server without a token comes from this machine: the page and the metrics ask the same.

A web site could reach such a server through a name of its own that leads to this machine (DNS rebinding), and a proxy
could let others in. A proxy that shows nothing of itself cannot be told from a program of this machine: only a token
keeps others out then. Any web site in a browser of this machine can also ask under this machine's own names. It cannot
read the answer, but the answer costs time: the browser says in Sec-Fetch-Site that another web site asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_OF_PROXIES = frozenset(
    {"forwarded", "via", "x-real-ip", "x-client-ip", "x-proxy-user-ip", "x-remote-ip", "true-client-ip", "client-ip"}
    | {"cdn-loop", "x-amzn-trace-id", "x-arr-log-id", "x-host", "x-scheme", "x-url-scheme", "proxy"}
)
"""Headers by which a proxy tells of itself, or of who asked it; no browser sends them."""
_OF_PROXIES_BEGIN = ("x-forwarded", "x-original-", "x-cluster-", "x-envoy-", "x-azure-", "x-appengine-", "x-proxy-")
_OF_NETWORKS_BEGIN = ("cf-", "fastly-", "fly-", "x-amz-cf-", "x-vercel-", "x-nf-", "x-github-request-", "tailscale-")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([0-9a-z._-]+))(?::[0-9]{1,5})?")
"""The header Host, as a whole: a name or an address, and perhaps a port."""


def is_own_name(name: str) -> bool:
    """Whether a name or an address leads to this machine from this machine alone."""
    if name in ("localhost", "::1") or name.endswith(".localhost"):
        return True
    return re.fullmatch(r"127(\.[0-9]{1,3}){1,3}", name) is not None


def is_of_another_site(fetch_site: str) -> bool:
    """Whether a browser says, in the header Sec-Fetch-Site, that another web site asks; '' for no such header."""
    return fetch_site.strip().lower() not in ("", "none", "same-origin")


def is_link(fetch_mode: str, fetch_dest: str) -> bool:
    """Whether a browser says, in Sec-Fetch-Mode and -Dest, that its user goes to an address, as by a link.

    A web site cannot have it do so again and again without its user.
    """
    return (fetch_mode.strip().lower(), fetch_dest.strip().lower()) == ("navigate", "document")


def why_foreign(headers: Iterable[tuple[str, str]], version: str) -> str:
    """Say why a request may come from elsewhere; '' for one of this machine.

    `headers` are all that came, empty ones too, which a proxy sends where it hides the address. `version` is that of
    HTTP: nginx asks with 1.0 by default, under the server's own address and without a header that tells of it.
    """
    given = [(name.lower().replace("_", "-"), value) for name, value in headers]
    if version == "1.0" or any(_is_of_a_proxy(name) for name, _ in given):
        return "this came through a proxy"
    hosts = [value for name, value in given if name == "host"]
    host = hosts[0].strip().lower() if len(hosts) == 1 else ""
    found = _HOST.fullmatch(host)
    if found is not None and is_own_name(found[1] or found[2]):
        return ""
    return f"this machine is not called {host[:100]!r}"


def _is_of_a_proxy(name: str) -> bool:
    return name in _OF_PROXIES or name.startswith((*_OF_PROXIES_BEGIN, *_OF_NETWORKS_BEGIN))
