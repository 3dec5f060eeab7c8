"""The kernel's information about a TCP connection (tcp(7), TCP_INFO)."""

from __future__ import annotations

import socket
import sys
from typing import NamedTuple, Protocol


class TcpInfo(NamedTuple):
    """Fields of the kernel's `struct tcp_info`.

    Attributes:
        retransmits: the number of segments that this end has retransmitted.
        round_trip_us: the kernel's smoothed estimate of the round trip, in microseconds.
    """

    retransmits: int
    round_trip_us: int

    def connecting_ns(self, elapsed_ns: int) -> int:
        """Return the nanoseconds that the path took to establish a connection.

        Valid only before anything is sent: then the kernel's estimate is the round trip of the TCP
        handshake. A program that opens many connections at once notices an established connection
        late, so its own measurement would include its own delay.

        Args:
            elapsed_ns: the time from connect(2) until the connection was seen to be established; it
                is returned if a segment of the handshake was retransmitted.
        """
        if self.retransmits or not self.round_trip_us:
            return elapsed_ns
        return min(elapsed_ns, self.round_trip_us * 1000)


class HasOptions(Protocol):
    """The part of a socket's interface that is needed here."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Return the value of an option of several bytes."""


def read_tcp_info(connected: HasOptions) -> TcpInfo | None:
    """Return the kernel's information about a TCP socket; None outside Linux."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    information = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    # struct tcp_info of linux/tcp.h: tcpi_rtt is the 32-bit word at byte 68, tcpi_total_retrans
    # the one at byte 100.
    return TcpInfo(
        retransmits=int.from_bytes(information[100:104], sys.byteorder),
        round_trip_us=int.from_bytes(information[68:72], sys.byteorder),
    )
