"""The errors between a client and an echo service.

Each has a `kind`: the name it is counted under when many connections fail.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from echo_client.failure_kinds import FailureKind
from echo_core.errors import EchoswarmError


class ClientError(EchoswarmError):
    """The root of the client's errors."""

    kind: ClassVar[FailureKind] = FailureKind.ERROR


class ConnectError(ClientError):
    """No connection could be opened, for a reason that has no class of its own."""

    kind = FailureKind.CONNECT_ERROR


class UnresolvedError(ConnectError):
    """The host name is not known."""

    kind = FailureKind.UNRESOLVED


class RefusedError(ConnectError):
    """Nobody listens on the port (ECONNREFUSED), or there is no such unix socket (ENOENT).

    Over UDP that is learnt from the answer to a datagram: a round trip raises it then.
    """

    kind = FailureKind.REFUSED


class UnreachableError(ConnectError):
    """There is no way to the host (EHOSTUNREACH, ENETUNREACH)."""

    kind = FailureKind.UNREACHABLE


class ConnectTimeoutError(ConnectError):
    """The connection was not established in time."""

    kind = FailureKind.CONNECT_TIMEOUT


class HandshakeError(ConnectError):
    """The connection was established, but no TLS on it."""

    kind = FailureKind.HANDSHAKE


class NoSourceError(ConnectError):
    """The source address is none that this machine can connect from to there."""

    kind = FailureKind.NO_SOURCE


class NoPortError(ConnectError):
    """No local port is left for one more connection to there (EADDRNOTAVAIL)."""

    kind = FailureKind.NO_PORT


class NoDescriptorError(ConnectError):
    """This process, or the machine, may open no more descriptors (EMFILE, ENFILE)."""

    kind = FailureKind.NO_DESCRIPTOR


class LostError(ClientError):
    """An open connection broke, for a reason that has no class of its own."""

    kind = FailureKind.BROKEN


class ResetError(LostError):
    """The other end reset the connection (ECONNRESET, EPIPE)."""

    kind = FailureKind.RESET


class ClosedError(LostError):
    """The other end closed the connection before the whole reply had come.

    Attributes:
        received: how many bytes of it came.
    """

    kind = FailureKind.CLOSED

    def __init__(self, message: str, received: int = 0) -> None:
        super().__init__(message)
        self.received = received


class ReplyTimeoutError(ClientError):
    """The whole reply was not there in time.

    Attributes:
        received: the bytes of it that came.
    """

    kind = FailureKind.TIMEOUT

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


class MismatchError(ClientError):
    """The reply differs from the message."""

    kind = FailureKind.MISMATCH


class StreamError(ClientError):
    """The input of a stream cannot be read, or its output not be written."""

    kind = FailureKind.STREAM


_ANYWHERE: dict[int, type[ConnectError]] = {
    errno.ECONNREFUSED: RefusedError,
    errno.EHOSTUNREACH: UnreachableError,
    errno.ENETUNREACH: UnreachableError,
    errno.EHOSTDOWN: UnreachableError,
    errno.ENETDOWN: UnreachableError,
}
# What it means that a socket cannot be made or connected.
_CONNECTING: dict[int, type[ConnectError]] = {
    **_ANYWHERE,
    errno.ENOENT: RefusedError,
    errno.ETIMEDOUT: ConnectTimeoutError,
    errno.EADDRNOTAVAIL: NoPortError,
    # Of UDP.
    errno.EAGAIN: NoPortError,
    errno.EMFILE: NoDescriptorError,
    errno.ENFILE: NoDescriptorError,
}
# What it means that one that was connected fails.
_CONNECTED: dict[int, type[ClientError]] = {
    **_ANYWHERE,
    errno.ECONNRESET: ResetError,
    errno.EPIPE: ResetError,
}

# The kinds of what can go wrong before a connection is open.
CONNECTING_KINDS = frozenset(
    {ConnectError.kind, *(failure.kind for failure in ConnectError.__subclasses__())}
)


def connecting_failure(number: int | None) -> type[ConnectError]:
    """Return the class for a number of `errno` with which connecting failed."""
    return _CONNECTING.get(number or 0, ConnectError)


def connected_failure(number: int | None) -> type[ClientError]:
    """Return the class for a number of `errno` with which a connection failed."""
    return _CONNECTED.get(number or 0, LostError)


def lost(error: OSError) -> ClientError:
    """Return the error of a system call on a connection as an error of the connection."""
    failure = connected_failure(error.errno)
    if failure is ResetError:
        return ResetError("the server reset the connection")
    return failure(f"the connection broke: {error.strerror}")
