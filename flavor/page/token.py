"""The token that opens the page, and the cookie of a browser that has shown it."""

from __future__ import annotations

import hashlib
import hmac
import time

COOKIE_S = 30 * 24 * 3600
"""How long a browser stays logged in, in seconds."""


class Token:
    """A token that pages are asked for. Neither `repr` nor a cookie shows it."""

    def __init__(self, token: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest()
        self._key = hmac.new(token.encode(), b"flavor ui: cookies", hashlib.sha256).digest()
        self.cookie = f"flavor_{self._mac('name')[:8]}"
        """The name of the cookie: browsers give cookies of one port to all ports of a machine."""

    def is_it(self, given: str) -> bool:
        """Whether this is the token. Takes the same time for each wrong one."""
        return hmac.compare_digest(hashlib.sha256(given.encode("utf-8", errors="replace")).digest(), self._digest)

    def session(self) -> str:
        """Make the value of the cookie of a browser that has shown the token."""
        until = str(int(time.time()) + COOKIE_S)
        return f"{until}.{self._mac(until)}"

    def is_session(self, value: str) -> bool:
        """Whether a cookie was made for this token, and is still valid."""
        until, _, mac = value.partition(".")
        if not hmac.compare_digest(self._mac(until).encode(), mac.encode("utf-8", errors="replace")):
            return False
        return until.isdigit() and time.time() < int(until)

    def _mac(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", errors="replace"), hashlib.sha256).hexdigest()
