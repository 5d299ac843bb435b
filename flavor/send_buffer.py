"""What a socket has taken, and the other side has not acknowledged yet."""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import termios


def unsent_bytes(link: socket.socket) -> int:
    """Return the bytes in the send buffer that the other side has not acknowledged; 0 where the system does not say."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(link.fileno(), termios.TIOCOUTQ, count)
    return count[0]
