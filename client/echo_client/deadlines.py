"""Timeouts of socket operations, in threads and in greenlets."""

from __future__ import annotations

import _socket
import errno
import select
import socket
import struct
import time
from typing import Protocol


class HasTimeout(Protocol):
    """A socket, or an object that is used like one."""

    def settimeout(self, seconds: float, /) -> object:
        """Set the timeout of each operation in seconds."""


def is_late(error: OSError) -> bool:
    """Return True if a receive or send exceeded its timeout, whether Python's or the kernel's.

    ETIMEDOUT is no such timeout: the kernel has given up the peer, and the connection is broken.
    """
    late = isinstance(error, TimeoutError | BlockingIOError)
    return late and error.errno != errno.ETIMEDOUT


def set_timeout(connected: HasTimeout, seconds: float) -> None:
    """Set the timeout of each receive and send of a socket, in seconds.

    Python implements its timeout with a poll(2) before each operation; the kernel's needs no extra
    call (socket(7), SO_RCVTIMEO). The kernel's is used for native sockets only: a gevent socket
    wraps a non-blocking one and waits in the hub.
    """
    if not isinstance(connected, _socket.socket):
        connected.settimeout(seconds)
        return
    connected.settimeout(None)
    microseconds = max(1, int(seconds * 1e6))
    interval = struct.pack("ll", microseconds // 1_000_000, microseconds % 1_000_000)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


def seconds_until(deadline: float) -> float:
    """Return the seconds left until an instant of `time.monotonic`.

    Raises:
        TimeoutError: the deadline has passed.
    """
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def wait(poll: select.poll, deadline: float) -> int:
    """Wait for the only socket of a poll object, regardless of the socket's own timeout.

    Returns:
        The events that the socket is ready for.

    Raises:
        TimeoutError: the socket was not ready by the deadline.
    """
    ready = poll.poll(seconds_until(deadline) * 1e3)
    if not ready:
        raise TimeoutError
    return ready[0][1]
