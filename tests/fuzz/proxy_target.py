"""What a proxy answers to CONNECT: it is told to a person in one line."""

from __future__ import annotations

from flavor.proxy import Proxy
from flavor.tunnel import connect_answer, refusal_of

GOOD_ANSWERS = (
    b"HTTP/1.1 200 Connection established\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n",
    b'HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n',
)


def fuzz_proxy_answer(data: bytes) -> None:
    answer = connect_answer(data)
    if answer is not None and not 200 <= answer.status < 300:
        told = str(refusal_of(answer, Proxy("http", "proxy", 1, "FLAVOR_PROXY"), "host", 2))
        assert told.isprintable(), repr(told)
        assert len(told) < 500, told
