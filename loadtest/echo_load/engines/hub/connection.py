"""A connection of the hub engine: a raw non-blocking socket and its messages in flight."""

from __future__ import annotations

import _socket
import socket
from typing import Self

from echo_client.addresses import Address
from echo_client.connecting import bind
from echo_client.errors import ConnectError
from echo_client.tcp_info import TcpInfo, read_tcp_info
from echo_load.engines.checking import InFlight, Run
from echo_load.engines.share import NEVER

_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class HandshakeRejectedError(OSError):
    """The server rejected the client after the client's part of the TLS handshake.

    In TLS 1.3 the client is done before the server has checked its certificate (RFC 8446, section
    2).
    """


class ConnectionSlot:
    """The part of a connection that outlives its socket.

    Attributes:
        number: the connection's number, from 1.
        sequence: the number of its next message; a new socket continues the count, so that a reply
            to an old one never passes for its own.
        failures: failed attempts to open it, and losses, since it last answered.
        refused_since_ns: since when the backlog of the target's unix socket has been full, on the
            monotonic clock; 0 if it is not.
    """

    __slots__ = ("failures", "number", "refused_since_ns", "sequence")

    def __init__(self, number: int, sequence: int = 0, failures: int = 0) -> None:
        self.number = number
        self.sequence = sequence
        self.failures = failures
        self.refused_since_ns = 0


class HubConnection(_socket.socket):
    """One socket of a slot.

    A single message in flight is kept in `expected`, `due_ns` and `sent_ns`, which is fast;
    several, and the first one of a connection, are kept in `in_flight`, which is None otherwise.

    Attributes:
        number: that of its slot.
        sequence: the number of its next message.
        stop_at: the sequence before which it stops sending, to be closed or replaced.
        failures: those of its slot.
        expected: the single message in flight; None if there is none or `in_flight` has it.
        due_ns: when that was due, on the monotonic clock.
        sent_ns: when it left; before the first one, when connecting began.
        in_flight: messages in flight.
        unsent: bytes that the socket has not accepted yet; None if it accepted all.
        fresh: nothing has come back yet.
        head: the beginning of its messages, for a payload with tails.
        overdue: the reply missed its timeout, and is waited for as long again.
        queued: the dispatcher knows that it can take messages.
        over: it is to be closed as soon as nothing is in flight.
        address: the address that it connects to.
        attempt: the index of that address among its target's.
        crossed: it cannot receive before its socket accepts bytes, and is watched for that alone.
        datagram: it is a UDP socket.
        highest: the highest sequence that came back in a datagram.
        lingers: it is only open for late datagrams.
        missing: sequences of datagrams that count as lost, the oldest first.
        last_missing: the highest sequence that was lost.
        burst: how many were lost one after the other up to that one.
        round_trip_ns: the last round trip of a datagram; 0 before the first.
        jitter_ns: the jitter of its round trips (RFC 3550, section 6.4.1).
    """

    __slots__ = (
        "address",
        "attempt",
        "burst",
        "crossed",
        "datagram",
        "due_ns",
        "expected",
        "failures",
        "fresh",
        "head",
        "highest",
        "in_flight",
        "jitter_ns",
        "last_missing",
        "lingers",
        "missing",
        "number",
        "over",
        "overdue",
        "queued",
        "round_trip_ns",
        "sent_ns",
        "sequence",
        "stop_at",
        "unsent",
    )

    number: int
    sequence: int
    stop_at: int
    failures: int
    expected: bytes | None
    due_ns: int
    sent_ns: int
    in_flight: InFlight | None
    unsent: bytes | memoryview | None
    fresh: bool
    head: bytes
    overdue: bool
    queued: bool
    over: bool
    address: Address
    attempt: int
    crossed: bool
    datagram: bool
    highest: int
    lingers: bool
    missing: dict[int, None] | None
    last_missing: int
    burst: int
    round_trip_ns: int
    jitter_ns: int

    @classmethod
    def of(cls, slot: ConnectionSlot, address: Address, source: str | None) -> Self:
        """Make the socket, bound to a source address if one is given, and not connected yet.

        Raises:
            OSError: there are no descriptors left.
            NoPortError: the source has no port left.
            NoSourceError: the target cannot be reached from the source address.
        """
        datagram = address.transport == "udp"
        kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
        connection = cls(address.family, kind | _FLAGS)
        try:
            if address.transport in {"tcp", "tls"}:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source is not None and address.family != socket.AF_UNIX:
                bind(connection, source, address)
        except (OSError, ConnectError):
            connection.close()
            raise
        connection.number = slot.number
        connection.sequence = slot.sequence
        connection.failures = slot.failures
        connection.stop_at = NEVER
        connection.expected = None
        connection.due_ns = connection.sent_ns = 0
        connection.in_flight = None
        connection.unsent = None
        connection.fresh = True
        connection.head = b""
        connection.overdue = connection.over = connection.lingers = False
        connection.queued = connection.crossed = False
        connection.address = address
        connection.attempt = 0
        connection.datagram = datagram
        connection.highest = -1
        connection.missing = None
        connection.last_missing = -1
        connection.burst = connection.round_trip_ns = connection.jitter_ns = 0
        return connection

    @property
    def in_handshake(self) -> bool:
        """Whether the TLS handshake has begun."""
        return False

    @property
    def waits(self) -> bool:
        """Whether a reply is still to come."""
        return self.expected is not None or bool(self.messages_in_flight)

    @property
    def messages_in_flight(self) -> int:
        """The number of messages in flight."""
        listed = 0 if self.in_flight is None else self.in_flight.count
        return listed + (self.expected is not None)

    @property
    def oldest_ns(self) -> int:
        """The instant at which the oldest message in flight was sent."""
        runs = self.in_flight.runs if self.in_flight is not None else ()
        return runs[0].sent_ns if runs else self.sent_ns

    def listed(self) -> InFlight:
        """Return the messages in flight; `expected` is moved there."""
        if self.in_flight is None:
            self.in_flight = InFlight()
            if self.expected is not None:
                due_ns = (self.due_ns,)
                run = Run.of_one(self.sequence - 1, self.expected, self.sent_ns, due_ns)
                self.in_flight.add(run)
                self.expected = None
        return self.in_flight

    def slot(self) -> ConnectionSlot:
        """The slot in which another socket continues."""
        return ConnectionSlot(self.number, self.sequence, self.failures)

    def tcp_info(self) -> TcpInfo | None:
        """The kernel's figures of the connection; None if it is not TCP."""
        return read_tcp_info(self) if self.address.transport in {"tcp", "tls"} else None
