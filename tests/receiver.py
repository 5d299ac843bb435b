"""A local web server that takes messages, as a webhook does; or takes them and never answers."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any


class Receiver:
    """One that runs. `messages` has what was sent to it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answers = 200
        self.silent = threading.Event()
        """While it is set, requests get no answer."""
        self._changed = threading.Condition()
        self._over = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                while receiver.silent.is_set() and not receiver._over.wait(0.05):
                    pass
                with receiver._changed:
                    receiver.messages.append(data)
                    receiver.paths.append(self.path)
                    receiver._changed.notify_all()
                with contextlib.suppress(OSError):
                    self.send_response(receiver.answers)
                    self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        """Its URL for apprise, with a secret in its path."""
        return f"json://me:hush-hush@127.0.0.1:{self._server.server_address[1]}/hooks/s3cr3t"

    def until(self, words: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait for a message with these words in its body."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                if found := [each for each in self.messages if words in each["message"]]:
                    return found[0]
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{words!r} never came; there is {self.messages}"
                self._changed.wait(left_s)

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()
