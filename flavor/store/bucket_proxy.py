"""How a bucket is reached through a proxy: obstore is told the proxy that this project chooses, and refusals are read.

obstore retries what a proxy refuses, and says nothing of why. So the proxy is asked here once when a bucket is opened,
and again for the reason of a failure.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import SplitResult, urlsplit

from flavor.proxy import Proxy, excepted_hosts, proxy_for, why_direct
from flavor.store.socks_bridge import bridge_to
from flavor.store.wire import Silence, Wire
from flavor.tunnel import ProxyFailure
from flavor.watch import Watch

_NOWHERE = "http://127.0.0.1:9"
"""A proxy for nothing: where one is named, obstore reads no variables."""
_NEAR = ("169.254.0.0/16", "fd00:ec2::/32", "metadata.google.internal")
"""Where a machine in a cloud gets its credentials: always reached directly."""
_ASK_S = 5.0


def endpoint_of(url: str) -> SplitResult:
    """Return the address of the service that the store's URL and the environment name; only its scheme and host."""
    endpoints = (value for name, value in sorted(os.environ.items()) if name.startswith("AWS_ENDPOINT") and value)
    scheme, _, rest = url.partition("://")
    if scheme == "s3":
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return urlsplit(next(endpoints, f"https://s3.{region}.amazonaws.com"))
    if scheme == "gs":
        return urlsplit("https://storage.googleapis.com")
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or rest.partition("/")[0]
    return urlsplit(f"https://{account}.blob.core.windows.net")


def proxy_of(endpoint: SplitResult) -> Proxy | None:
    """Return the proxy that leads to the service."""
    return proxy_for(endpoint.scheme, endpoint.hostname or "", _port_of(endpoint))


def _port_of(endpoint: SplitResult) -> int:
    """Return the port, which an entry of `NO_PROXY` may have, too."""
    return endpoint.port or (443 if endpoint.scheme == "https" else 80)


def reached_through(endpoint: SplitResult) -> str:
    """Name the way to the service, as a cause to look for; '' for this machine itself."""
    proxy = proxy_of(endpoint)
    if proxy is None:
        direct = why_direct(endpoint.scheme, endpoint.hostname or "", _port_of(endpoint))
        return f" ({direct})" if direct else ""
    return f" (it is reached through the proxy {proxy.where}, {proxy.source}; NO_PROXY names what is reached directly)"


def proxy_options(endpoint: SplitResult) -> dict[str, Any]:
    """Return what obstore is told so that it takes the same way as the rest of this project."""
    proxy = proxy_of(endpoint)
    if proxy is None:
        return {"proxy_url": _NOWHERE, "proxy_excludes": f"{endpoint.hostname},*"}
    near = ",".join((*_NEAR, *excepted_hosts()))  # obstore also asks services that give out credentials, such as STS
    options = {"proxy_url": proxy.url if proxy.kind == "http" else bridge_to(proxy), "proxy_excludes": near}
    if endpoint.scheme == "http":
        options["pool_max_idle_per_host"] = "0"  # tinyproxy leaves a second request on a connection without an answer
    return options


def refusal_of_proxy(endpoint: SplitResult) -> ProxyFailure | None:
    """Ask the proxy, if one leads to the service, and return why it does not lead there; None where it does."""
    if proxy_of(endpoint) is None:
        return None
    wire = Wire(connect_s=_ASK_S, silence_s=_ASK_S, answer_s=_ASK_S)
    try:
        wire.send("HEAD", f"{endpoint.scheme}://{endpoint.netloc}/", {}, memoryview(b""), Watch())
    except Silence as silent:
        return silent.failure
    return None
