"""Sockets that wait so long and no longer, in threads and in greenlets."""

from __future__ import annotations

import _socket
import errno
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from echo_client.tls_socket import TlsSocket


def is_late(error: OSError) -> bool:
    """True if a receive or send has taken too long, for Python's timeout or for the kernel's.

    That the kernel has given the other end up (ETIMEDOUT) is something else: the connection broke.
    """
    late = isinstance(error, TimeoutError | BlockingIOError)
    return late and error.errno != errno.ETIMEDOUT


def set_timeout(connected: socket.socket | TlsSocket, seconds: float) -> None:
    """Let each receive and send wait so long at most; what is late raises one of `TIMEOUTS`.

    A timeout of Python's costs a poll(2) before each of them, one of the kernel's nothing
    (socket(7), SO_RCVTIMEO). Only where the socket is a native one: gevent's wraps one that never
    blocks, and waits itself.
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
    """Seconds that are left until an instant of `time.monotonic`.

    Raises:
        TimeoutError: none are.
    """
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def wait(poll: select.poll, deadline: float) -> int:
    """Wait for the one socket that a poll object has, whatever timeout that has.

    Returns:
        The events that it is ready for.

    Raises:
        TimeoutError: it was not ready until the deadline.
    """
    ready = poll.poll(seconds_until(deadline) * 1e3)
    if not ready:
        raise TimeoutError
    return ready[0][1]
