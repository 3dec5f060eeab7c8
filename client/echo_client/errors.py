"""What can go wrong between a client and an echo service, as errors.

Each has a `kind`: the name it is counted under when many connections fail.
"""

from __future__ import annotations

from typing import ClassVar

from echo_core.errors import EchoswarmError


class ClientError(EchoswarmError):
    """The root of the client's errors."""

    kind: ClassVar[str] = "error"


class ConnectError(ClientError):
    """No connection could be opened, for a reason that has no class of its own."""

    kind = "connect_error"


class UnresolvedError(ConnectError):
    """The host name is not known."""

    kind = "unresolved"


class RefusedError(ConnectError):
    """Nobody listens on the port (ECONNREFUSED)."""

    kind = "refused"


class UnreachableError(ConnectError):
    """There is no way to the host (EHOSTUNREACH, ENETUNREACH)."""

    kind = "unreachable"


class ConnectTimeoutError(ConnectError):
    """The connection was not established in time."""

    kind = "connect_timeout"


class LostError(ClientError):
    """An open connection broke, for a reason that has no class of its own."""

    kind = "lost"


class ResetError(LostError):
    """The other end reset the connection (ECONNRESET, EPIPE)."""

    kind = "reset"


class ClosedError(LostError):
    """The other end closed the connection before the whole reply had come."""

    kind = "closed"


class ReplyTimeoutError(ClientError):
    """The whole reply was not there in time.

    Attributes:
        received: the bytes of it that came.
    """

    kind = "timeout"

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


class MismatchError(ClientError):
    """What came back is not what was sent."""

    kind = "mismatch"


class StreamError(ClientError):
    """The input of a stream cannot be read, or its output not be written."""

    kind = "stream"
