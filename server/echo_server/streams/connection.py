"""An accepted connection, and what is remembered about it."""

from __future__ import annotations

import _socket
import socket
import struct

from echo_core.socket_address import host_of

_LINGER_NOT = struct.pack("ii", 1, 0)


class Connection(_socket.socket):
    """A raw non-blocking socket and what belongs to it.

    `recv_into` and `send` raise BlockingIOError where they would have to wait, `recv_into` for
    bytes and `send` for buffer space, or `OtherDirectionError` where it is the other way round.

    Attributes:
        sockaddr: the address at the other end, as accept(2) gave it.
        address: the IP address that it is counted under, where there is a limit for each; or "".
        accepted_at: when it was accepted, in seconds of the monotonic clock.
        buffer: what it is received into: a larger one while its reads are large.
        received: bytes received.
        unsent: bytes received and not sent back; empty while the connection is read.
        watched: the events that the echo set watches: readable, writable, or none.
        allowance: bytes that may have been received before the rate limit looks again.
        refilled_at: when the allowance was worked out, in seconds of the monotonic clock.
        progress: bytes moved both ways when the idle sweep last looked; -1 before.
        unacknowledged: bytes sent that the peer had not acknowledged when the idle sweep last
            asked; -1 where it has not asked since something moved.
        idle_sweeps: sweeps in a row that found nothing moved.
    """

    __slots__ = (
        "accepted_at",
        "address",
        "allowance",
        "buffer",
        "idle_sweeps",
        "progress",
        "received",
        "refilled_at",
        "sockaddr",
        "unacknowledged",
        "unsent",
        "watched",
    )

    sockaddr: object
    address: str
    accepted_at: float
    buffer: memoryview
    received: int
    unsent: bytes | memoryview
    watched: int
    allowance: int
    refilled_at: float
    progress: int
    unacknowledged: int
    idle_sweeps: int

    def pending(self) -> int:
        """Bytes that have left the socket and can be received all the same: none without TLS."""
        return 0

    def abort_at_close(self) -> None:
        """Let `close` send a reset instead of an end of stream (socket(7), SO_LINGER)."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)

    @property
    def peer(self) -> str:
        """The other end, as people write it: `127.0.0.1:41234`, `[::1]:41234`, `unix`."""
        return peer_name(self.sockaddr)


def peer_name(sockaddr: object) -> str:
    """A peer's address as people write it: `127.0.0.1:41234`, `[::1]:41234`, `unix`."""
    if not isinstance(sockaddr, tuple):
        return "unix"
    host, port = ip_address(sockaddr), sockaddr[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ip_address(sockaddr: object) -> str:
    """A peer's IP address, an IPv4 one also where it came over IPv6; empty for unix sockets.

    A link-local address has its zone: `fe80::1%eth0`.
    """
    if not isinstance(sockaddr, tuple):
        return ""
    return host_of(sockaddr).removeprefix("::ffff:")
