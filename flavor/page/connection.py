"""A connection to the page's server: how long a request may take to arrive, and who makes room for a new one.

Anyone who reaches the port can open connections, also without the page's token. So a request has to be whole, with its
header and its body, within a few seconds, however its bytes trickle in. Where there are as many connections as may be,
one without a whole request is closed for a new one: of the address that has most of them, first one that has never
asked, the oldest. So those that only hold a place give way to those that ask, and a machine that opens connections as
fast as it can mostly closes its own. Programs of one machine cannot be told apart: see SECURITY.md.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
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
    _has_asked = False
    _address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._address = network_of(self.client[0] if self.client else "")
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
        self._since, self._has_asked = self.loop.time(), True
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
        """Close one that asks nothing now, as the module says; else the one that has not read for longest."""
        others: list[Any] = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        held = Counter(each._address for each in self.connections if isinstance(each, Connection))
        idle = [each for each in others if not each._is_whole or each.cycle is None or each.cycle.response_complete]
        stalled = [each for each in others if each.flow.write_paused]
        for found in (idle, stalled):
            if found:
                min(found, key=lambda each: (-held[each._address], each._has_asked, each._since))._drop()
                return


def network_of(address: str) -> str:
    """Return by what a client is counted: its address, or of IPv6 the first 64 bits, which one site has for itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
