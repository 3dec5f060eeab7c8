"""A connection of the hub engine: a raw non-blocking socket and its messages in flight."""

from __future__ import annotations

import _socket
import socket
from typing import Self

from echo_client.addresses import Address
from echo_client.connecting import bind
from echo_client.errors import ConnectError
from echo_client.socket_options import DEFAULT_OPTIONS, SocketOptions
from echo_client.tcp_info import TcpInfo, read_tcp_info
from echo_load.engines.checking import InFlight, Run
from echo_load.engines.share import NEVER

_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class HandshakeRejectedError(OSError):
    """The server rejected the client after the client had completed the TLS handshake.

    In TLS 1.3 the client completes it before the server has checked the client's certificate
    (RFC 8446, section 2).
    """


class ConnectionSlot:
    """The state of a connection that is kept when its socket is replaced.

    Attributes:
        number: number of the connection, from 1.
        sequence: sequence number of the next message. A new socket continues the count, so that a
            reply to a message of an earlier socket is never taken for the right one.
        failures: number of failed attempts to open the connection, and of losses, since its last
            reply.
        refused_since_ns: instant since which the backlog of the target's unix socket has been full,
            in nanoseconds of the monotonic clock; 0 if it is not.
    """

    __slots__ = ("failures", "number", "refused_since_ns", "sequence")

    def __init__(self, number: int, sequence: int = 0, failures: int = 0) -> None:
        self.number = number
        self.sequence = sequence
        self.failures = failures
        self.refused_since_ns = 0


class HubConnection(_socket.socket):
    """The socket of a slot.

    A single message in flight is stored in `expected`, `due_ns` and `sent_ns`, which is faster.
    Several messages, or the first one of a connection, are stored in `in_flight`.

    Attributes:
        number: number of the connection, from 1.
        sequence: sequence number of the next message.
        stop_at: first sequence number that is not sent on this socket.
        failures: `failures` of the slot.
        expected: the single message in flight; None if there is none, or if it is in `in_flight`.
        due_ns: instant at which `expected` was due, in nanoseconds of the monotonic clock; used in
            an open loop only.
        sent_ns: instant at which `expected` was sent; before the first message, at which connecting
            began.
        in_flight: messages in flight; None while `expected` is used instead.
        unsent: bytes that the socket has not accepted yet; None if it has accepted all.
        fresh: True until the first bytes are received.
        head: the beginning of all messages, for a payload with tails.
        overdue: True if the reply has missed its timeout; a second timeout is running.
        queued: True if the connection is in the dispatcher's queue of free connections.
        over: True if the connection is to be closed as soon as nothing is in flight.
        address: address of the target.
        attempt: index of that address in the addresses of the target.
        broken: error of a failed send; None before. The connection is given up once what had
            arrived is received.
        crossed: True if a receive has to wait until the socket is writable; it is then watched for
            that alone.
        datagram: True for a UDP socket.
        highest: highest sequence number among the answered datagrams; -1 before the first.
        lingers: True if the socket is only kept open for late datagrams.
        missing: sequence numbers of datagrams that count as lost, the oldest first.
        last_missing: sequence number of the last datagram that was lost; -1 before the first.
        burst: number of consecutive datagrams that were lost up to that one.
        round_trip_ns: last round trip of a datagram in nanoseconds; 0 before the first.
        jitter_ns: jitter of the round trips in nanoseconds (RFC 3550, section 6.4.1).
    """

    __slots__ = (
        "address",
        "attempt",
        "broken",
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
    broken: ConnectionError | None
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
    def of(
        cls,
        slot: ConnectionSlot,
        address: Address,
        source: str | None,
        options: SocketOptions = DEFAULT_OPTIONS,
    ) -> Self:
        """Create the socket, bound to the source address if one is given; do not connect it.

        Args:
            slot: the slot.
            address: address of the target.
            source: source address; None for any.
            options: options of the socket.

        Raises:
            OSError: there is no descriptor left, or the kernel does not accept an option.
            NoPortError: the source has no port left.
            NoSourceError: the target cannot be reached from the source address.
        """
        datagram = address.transport == "udp"
        kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
        connection = cls(address.family, kind | _FLAGS)
        try:
            options.apply(connection, address)
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
        connection.broken = None
        connection.datagram = datagram
        connection.highest = -1
        connection.missing = None
        connection.last_missing = -1
        connection.burst = connection.round_trip_ns = connection.jitter_ns = 0
        return connection

    @property
    def in_handshake(self) -> bool:
        """True if the TLS handshake has begun."""
        return False

    @property
    def waits(self) -> bool:
        """True if a reply is expected."""
        return self.expected is not None or bool(self.messages_in_flight)

    @property
    def messages_in_flight(self) -> int:
        """The number of messages in flight."""
        listed = 0 if self.in_flight is None else self.in_flight.count
        return listed + (self.expected is not None)

    @property
    def oldest_ns(self) -> int:
        """The instant at which the oldest message in flight was sent, as `sent_ns`."""
        runs = self.in_flight.runs if self.in_flight is not None else ()
        return runs[0].sent_ns if runs else self.sent_ns

    def listed(self) -> InFlight:
        """Return `in_flight`, created if it is None; a message in `expected` is moved there."""
        if self.in_flight is None:
            self.in_flight = InFlight()
            if self.expected is not None:
                due_ns = (self.due_ns,)
                run = Run.of_one(self.sequence - 1, self.expected, self.sent_ns, due_ns)
                self.in_flight.add(run)
                self.expected = None
        return self.in_flight

    def slot(self) -> ConnectionSlot:
        """Return the slot in which another socket continues."""
        return ConnectionSlot(self.number, self.sequence, self.failures)

    def tcp_info(self) -> TcpInfo | None:
        """Return the kernel's figures of the connection; None if it is not TCP."""
        return read_tcp_info(self) if self.address.transport in {"tcp", "tls"} else None
