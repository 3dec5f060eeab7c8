"""Options of the sockets that are opened: Nagle's algorithm, keep-alives, DSCP, buffer sizes."""

from __future__ import annotations

import _socket
import math
import socket
import sys
from dataclasses import dataclass

from echo_client.addresses import Address
from echo_core.errors import InvalidValueError
from echo_core.units import format_bytes, format_duration

# The kernel's limit in seconds (MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of linux/tcp.h).
LONGEST_KEEPALIVE = 32_767
# The kernel doubles the size of a buffer, in an int.
LARGEST_BUFFER = 1 << 30
MOST_DSCP = 63
# RFC 2474 (CS), RFC 2597 (AF), RFC 3246 (EF).
_DSCP_NAMES = {
    "EF": 46,
    **{f"CS{number}": 8 * number for number in range(8)},
    **{f"AF{of}{drop}": 8 * of + 2 * drop for of in range(1, 5) for drop in range(1, 4)},
}


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """The options of the sockets that are opened.

    Attributes:
        nodelay: send small segments at once (TCP_NODELAY); False for Nagle's algorithm.
        keepalive: seconds without data after which TCP sends a keep-alive, and between two of them;
            None for no keep-alives.
        dscp: differentiated services code point of the packets, from 0 to 63; None for the
            system's default.
        buffer_size: bytes to request for the send buffer and for the receive buffer; None for the
            system's default, which adapts to the connection.

    Raises:
        InvalidValueError: a value is out of its range.
    """

    nodelay: bool = True
    keepalive: float | None = None
    dscp: int | None = None
    buffer_size: int | None = None

    def __post_init__(self) -> None:
        if self.keepalive is not None:
            finite = math.isfinite(self.keepalive)
            given = format_duration(self.keepalive) if finite else str(self.keepalive)
            check_keepalive(self.keepalive, f"`keepalive` {given}")
        for name, value, least, most in (
            ("dscp", self.dscp, 0, MOST_DSCP),
            ("buffer_size", self.buffer_size, 1, LARGEST_BUFFER),
        ):
            if value is not None and not least <= value <= most:
                raise InvalidValueError(f"`{name}` {value} is not between {least} and {most}")

    def apply(self, opened: _socket.socket, address: Address) -> None:
        """Set the options of a socket that is to be connected to an address.

        Options that the transport does not have are not set.

        Raises:
            OSError: the kernel does not accept one.
        """
        if address.transport in {"tcp", "tls"}:
            if self.nodelay:
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.keepalive is not None:
                seconds = int(self.keepalive)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.dscp is not None and address.transport != "unix":
            _set_dscp(opened, address, self.dscp)
        if self.buffer_size is not None:
            # Before connecting, because the window scale of TCP depends on it (tcp(7)).
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.buffer_size)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer_size)


DEFAULT_OPTIONS = SocketOptions()


def _set_dscp(opened: _socket.socket, address: Address, dscp: int) -> None:
    # The other two bits of the field are for ECN (RFC 3168), which the kernel manages.
    field = dscp << 2
    if address.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, field)
    if address.family == socket.AF_INET or str(address.sockaddr[0]).startswith("::ffff:"):
        # An IPv4-mapped address is reached over IPv4.
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, field)


def check_keepalive(seconds: float, name: str) -> None:
    """Check an interval of keep-alives.

    Args:
        seconds: the interval in seconds.
        name: the interval as it was given, for the error.

    Raises:
        InvalidValueError: the kernel does not accept it.
    """
    if not 1 <= seconds <= LONGEST_KEEPALIVE or seconds % 1:
        raise InvalidValueError(
            f"{name} is not in whole seconds, from 1s to {LONGEST_KEEPALIVE}s, as the kernel "
            "requires"
        )


def parse_dscp(text: str) -> int:
    """Return the code point of `46`, `EF`, `AF41` or `CS1`.

    Raises:
        InvalidValueError: the text is not a code point.
    """
    name = text.strip().upper()
    if name in _DSCP_NAMES:
        return _DSCP_NAMES[name]
    if not (name.isascii() and name.isdigit() and len(name) <= 2 and int(name) <= MOST_DSCP):
        raise InvalidValueError(
            f"{text!r} is not a DSCP; write a number from 0 to {MOST_DSCP}, EF, AF11 to AF43, or "
            "CS0 to CS7"
        )
    return int(name)


def format_dscp(dscp: int) -> str:
    """Return a code point with its name, if it has one: `46 (EF)`."""
    names = [name for name, value in _DSCP_NAMES.items() if value == dscp]
    return f"{dscp} ({names[0]})" if names else str(dscp)


@dataclass(frozen=True, slots=True)
class BufferSizes:
    """The sizes of a socket's buffers in bytes.

    Attributes:
        requested: the size that was requested for each.
        send: the size that the kernel gave to the send buffer.
        receive: the size that it gave to the receive buffer.
    """

    requested: int
    send: int
    receive: int

    @classmethod
    def granted(cls, requested: int | None) -> BufferSizes | None:
        """Return the sizes that the kernel gives to a socket that requests a size; None for None.

        The limits are the same for all transports (socket(7)), so a socket that is not connected
        shows them.
        """
        if requested is None:
            return None
        options = (socket.SO_SNDBUF, socket.SO_RCVBUF)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            for option in options:
                probe.setsockopt(socket.SOL_SOCKET, option, requested)
            sizes = [probe.getsockopt(socket.SOL_SOCKET, option) for option in options]
        # Linux doubles a size to allow for its bookkeeping, and returns the doubled one.
        return cls(requested, *(size // 2 if sys.platform == "linux" else size for size in sizes))

    @property
    def shortfall(self) -> str:
        """A line of text if a buffer is smaller than requested; empty if none is."""
        if min(self.send, self.receive) >= self.requested:
            return ""
        return (
            f"of the {format_bytes(self.requested)} requested for each buffer, the kernel gave "
            f"{format_bytes(self.send)} for sending (limit: net.core.wmem_max) and "
            f"{format_bytes(self.receive)} for receiving (limit: net.core.rmem_max)"
        )
