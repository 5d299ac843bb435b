"""Whether a request for an HTTP server without a token comes from this machine: the page and the metrics ask the same.

A web site could reach such a server through a name of its own that leads to this machine (DNS rebinding), and a proxy
could let others in. A proxy that shows nothing of itself cannot be told from a program of this machine: only a token
keeps others out then.
"""

from __future__ import annotations

from collections.abc import Callable

_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


def is_own_name(name: str) -> bool:
    """Whether a name or an address leads to this machine from this machine alone."""
    if name in ("localhost", "::1") or name.endswith(".localhost"):
        return True
    return name.startswith("127.") and name.replace(".", "").isdigit()


def why_foreign(header: Callable[[str], str], version: str) -> str:
    """Say why a request may come from elsewhere; '' for one of this machine.

    `header` returns a header, '' for none. `version` is that of HTTP: nginx asks with 1.0 by default, under the
    server's own address and without a header that tells of it.
    """
    if version == "1.0" or any(header(name) for name in _OF_PROXIES):
        return "this came through a proxy"
    host = header("host")
    name = (host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]).lower()
    return "" if is_own_name(name) else f"this machine is not called {name[:100]!r}"
