"""A connection to the page's server: how long a request may take to arrive, and who makes room for a new one.

Anyone who reaches the port can open connections, also without the page's token. So a request has to be whole, with its
header and its body, within a few seconds, however its bytes trickle in. Where there are as many connections as may be,
the one that has been without a whole request for longest is closed for a new one: those that only hold a place give way
to those that ask.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 512
"""Connections at a time."""
REQUEST_S = 10.0
"""How long a request may take to arrive."""


class Connection(H11Protocol):
    """One connection, as uvicorn makes it."""

    _since = 0.0
    """When it was made, or was answered last, or began its present request."""
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_request()
        self._since = self.loop.time()
        if len(self.connections) > MOST:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        if self._is_whole:
            self._stop_waiting()
        else:
            self._await_request()

    def on_response_complete(self) -> None:
        """Take note that a request is answered."""
        self._since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _is_whole(self) -> bool:
        """Whether there is a request, and all of it has come."""
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)

    def _await_request(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(REQUEST_S, self._drop)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _drop(self) -> None:
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _make_room(self) -> None:
        """Close the connection that has asked nothing for longest; else the one that has not read for longest."""
        others: list[Any] = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        idle = [each for each in others if not each._is_whole or each.cycle is None or each.cycle.response_complete]
        stalled = [each for each in others if each.flow.write_paused]
        for found in (idle, stalled):
            if found:
                min(found, key=lambda each: each._since)._drop()
                return
