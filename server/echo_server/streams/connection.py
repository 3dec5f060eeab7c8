"""An accepted connection and its state."""

from __future__ import annotations

import _socket
import contextlib
import socket
import struct

from echo_core.socket_address import host_of

# struct linger: enabled, with a timeout of 0 seconds.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_DISCARDED_AT_ONCE = 64 * 1024


class Connection(_socket.socket):
    """A raw non-blocking socket, with the state that the server keeps for it.

    `recv_into` and `send` raise BlockingIOError where they would block: `recv_into` until the
    socket is readable, and `send` until it is writable. They raise OtherDirectionError in the
    opposite case.

    Attributes:
        sockaddr: the peer's address, from accept(2) or a PROXY header.
        address: the IP address that the connection is counted under if there is a limit per
            address; otherwise, and for unix sockets, empty.
        accepted_at: when it was accepted, in seconds of the monotonic clock; set only for the
            access log.
        buffer: the buffer to receive into: a larger one after a read that filled the default one.
        received: the number of bytes received.
        unsent: the bytes received and not yet sent back.
        watched: the event that the echo set watches for: readable, writable, or none.
        allowance: the value of `received` above which the rate limit is checked.
        refilled_at: when the rate limit computed the allowance, in seconds of the monotonic clock.
        progress: the bytes received plus the bytes sent, at the last idle sweep; -1 before.
        unacknowledged: the bytes sent that the peer had not acknowledged at the last idle sweep; -1
            if that sweep found progress and so did not query the kernel.
        idle_sweeps: the number of idle sweeps in a row without progress.
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
        """Return the number of bytes that can be received although the socket is not readable.

        It is 0 without TLS.
        """
        return 0

    def end_sending(self) -> None:
        """Send the end of the stream; then the connection can only be closed.

        If bytes have arrived that were not read, `close` sends a reset. A peer that has received
        the end of the stream before it is told of that, not of the reset.
        """
        # It fails if the peer has reset the connection, which does not matter.
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_WR)

    def end_both_ways(self) -> None:
        """Send the end of the stream, and receive no more, so that `close` can follow at once.

        On a unix socket a peer is told of a reset even if it has received the end of the stream
        before. Therefore what has arrived there is discarded.
        """
        self.end_sending()
        if self.family == socket.AF_UNIX:
            # It fails if the peer has gone, which does not matter.
            with contextlib.suppress(OSError):
                self.shutdown(socket.SHUT_RD)
                while self.recv(_DISCARDED_AT_ONCE):
                    pass

    def abort_at_close(self) -> None:
        """Let `close` send a reset instead of an end of stream (socket(7), SO_LINGER)."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    @property
    def is_closed(self) -> bool:
        """True once `close` was called."""
        return self.fileno() < 0

    @property
    def peer(self) -> str:
        """The peer's address for logs: `127.0.0.1:41234`, `[::1]:41234`, `unix`."""
        return peer_name(self.sockaddr)


def peer_name(sockaddr: object) -> str:
    """Return a peer's address for logs: `127.0.0.1:41234`, `[::1]:41234`, `unix`."""
    if not isinstance(sockaddr, tuple):
        return "unix"
    host, port = ip_address(sockaddr), sockaddr[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ip_address(sockaddr: object) -> str:
    """Return a peer's IP address; empty for unix sockets.

    An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) is returned as an IPv4 address, and a
    link-local address with its zone: `fe80::1%eth0`.
    """
    if not isinstance(sockaddr, tuple):
        return ""
    return host_of(sockaddr).removeprefix("::ffff:")
