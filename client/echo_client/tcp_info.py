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

        Valid only before data is sent: then the kernel's estimate is the round trip of the TCP
        handshake. A program that opens many connections at once notices late that one of them is
        established, so its own measurement would include that delay.

        Args:
            elapsed_ns: the program's own measurement in nanoseconds, an upper bound; it is returned
                if a segment of the handshake was retransmitted, or the kernel has no estimate.
        """
        if self.retransmits or not self.round_trip_us:
            return elapsed_ns
        return min(elapsed_ns, self.round_trip_us * 1000)


class HasOptions(Protocol):
    """An object with the options of a socket."""

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
