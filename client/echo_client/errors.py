"""The errors of a client's connection to an echo service.

Each has a `kind`, under which it is counted in the results of a load test.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from echo_client.failure_kinds import FailureKind
from echo_core.errors import EchoswarmError


class ClientError(EchoswarmError):
    """The base class of the client's errors.

    Attributes:
        received: the bytes of the reply that had arrived; empty without a reply.
    """

    kind: ClassVar[FailureKind] = FailureKind.ERROR
    received: bytes = b""


class ConnectError(ClientError):
    """Connecting failed, for a reason that has no subclass."""

    kind = FailureKind.CONNECT_ERROR


class UnresolvedError(ConnectError):
    """The host name cannot be resolved."""

    kind = FailureKind.UNRESOLVED


class RefusedError(ConnectError):
    """The port has no listener (ECONNREFUSED), or the unix socket does not exist (ENOENT).

    Over UDP it is raised by a round trip, because ICMP reports it only after a datagram.
    """

    kind = FailureKind.REFUSED


class UnreachableError(ConnectError):
    """There is no route to the host (EHOSTUNREACH, ENETUNREACH)."""

    kind = FailureKind.UNREACHABLE


class ConnectTimeoutError(ConnectError):
    """The connection was not established in time."""

    kind = FailureKind.CONNECT_TIMEOUT


class HandshakeError(ConnectError):
    """The connection was established, but the TLS handshake failed."""

    kind = FailureKind.HANDSHAKE


class NoSourceError(ConnectError):
    """The source address is not one from which this machine can connect to the target."""

    kind = FailureKind.NO_SOURCE


class NoPortError(ConnectError):
    """No local port is left for another connection to the target (EADDRNOTAVAIL)."""

    kind = FailureKind.NO_PORT


class NoDescriptorError(ConnectError):
    """The process or the system has no descriptors left (EMFILE, ENFILE)."""

    kind = FailureKind.NO_DESCRIPTOR


class LostError(ClientError):
    """An open connection broke, for a reason that has no subclass."""

    kind = FailureKind.BROKEN


class ResetError(LostError):
    """The peer reset the connection (ECONNRESET, EPIPE)."""

    kind = FailureKind.RESET


class ClosedError(LostError):
    """The peer closed the connection before the whole reply had arrived.

    Attributes:
        received: the bytes of the reply that had arrived.
    """

    kind = FailureKind.CLOSED

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


class ReplyTimeoutError(ClientError):
    """The whole reply did not arrive within the timeout.

    Attributes:
        received: the bytes of the reply that had arrived.
    """

    kind = FailureKind.TIMEOUT

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


class MismatchError(ClientError):
    """The reply differs from the message."""

    kind = FailureKind.MISMATCH


class LostDatagramsError(ClientError):
    """Datagrams were lost, or came back wrong, late or more than once."""

    kind = FailureKind.LOST


class StreamError(ClientError):
    """The input of a stream cannot be read, or its output cannot be written."""

    kind = FailureKind.STREAM


_ANYWHERE: dict[int, type[ConnectError]] = {
    errno.ECONNREFUSED: RefusedError,
    errno.EHOSTUNREACH: UnreachableError,
    errno.ENETUNREACH: UnreachableError,
    errno.EHOSTDOWN: UnreachableError,
    errno.ENETDOWN: UnreachableError,
}
# The errors of socket(2), bind(2) and connect(2).
_CONNECTING: dict[int, type[ConnectError]] = {
    **_ANYWHERE,
    errno.ENOENT: RefusedError,
    errno.ETIMEDOUT: ConnectTimeoutError,
    errno.EADDRNOTAVAIL: NoPortError,
    # With UDP.
    errno.EAGAIN: NoPortError,
    errno.EMFILE: NoDescriptorError,
    errno.ENFILE: NoDescriptorError,
}
# The errors of a connected socket.
_CONNECTED: dict[int, type[ClientError]] = {
    **_ANYWHERE,
    errno.ECONNRESET: ResetError,
    errno.EPIPE: ResetError,
}

# The kinds of failure before a connection is open.
CONNECTING_KINDS = frozenset(
    {ConnectError.kind, *(failure.kind for failure in ConnectError.__subclasses__())}
)


def connecting_failure(number: int | None) -> type[ConnectError]:
    """Return the error class for an error number (`errno`) of connecting."""
    return _CONNECTING.get(number or 0, ConnectError)


def connected_failure(number: int | None) -> type[ClientError]:
    """Return the error class for an error number (`errno`) of an open connection."""
    return _CONNECTED.get(number or 0, LostError)


def lost(error: OSError, received: bytes = b"") -> ClientError:
    """Convert an OSError on an open connection to a `ClientError`.

    Args:
        error: the error.
        received: the bytes of the reply that had arrived.
    """
    kind = connected_failure(error.errno)
    failure = (
        ResetError("the server reset the connection")
        if kind is ResetError
        else kind(f"the connection broke: {error.strerror}")
    )
    failure.received = received
    return failure
