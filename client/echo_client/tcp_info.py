"""The kernel's figures of a TCP connection (tcp(7), TCP_INFO)."""

from __future__ import annotations

import socket
import sys
from typing import NamedTuple, Protocol


class TcpInfo(NamedTuple):
    """Some of it.

    Attributes:
        retransmits: segments that this end had to send again.
        round_trip_us: the kernel's smoothed estimate of the round trip, in microseconds.
    """

    retransmits: int
    round_trip_us: int

    def connecting_ns(self, elapsed_ns: int) -> int:
        """Return how long the path took to establish a connection on which nothing was sent yet.

        The kernel has measured the round trip of the handshake. Whoever comes round to it later,
        because many connections are opened at once, would measure itself as well.

        Args:
            elapsed_ns: from connect(2) until the connection was seen to be established, which is
                what it took where a part of the handshake was lost.
        """
        if self.retransmits or not self.round_trip_us:
            return elapsed_ns
        return min(elapsed_ns, self.round_trip_us * 1000)


class HasOptions(Protocol):
    """A socket, as far as it is needed here."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Read an option of several bytes."""


def read_tcp_info(connected: HasOptions) -> TcpInfo | None:
    """Ask the kernel about a TCP socket; None where it does not say, as outside of Linux."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    information = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    # struct tcp_info of linux/tcp.h: tcpi_rtt is the 32-bit word at byte 68, tcpi_total_retrans
    # that at byte 100.
    return TcpInfo(
        retransmits=int.from_bytes(information[100:104], sys.byteorder),
        round_trip_us=int.from_bytes(information[68:72], sys.byteorder),
    )
