"""What can go wrong between a client and an echo service, as errors.

Each has a `kind`: the name it is counted under when many connections fail.
"""

from __future__ import annotations

from typing import ClassVar

from echo_core.errors import EchoswarmError, ExitCode


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
    """Nobody listens on the port (ECONNREFUSED).

    Over UDP that is learnt from the answer to a datagram: a round trip raises it then.
    """

    kind = "refused"


class UnreachableError(ConnectError):
    """There is no way to the host (EHOSTUNREACH, ENETUNREACH)."""

    kind = "unreachable"


class ConnectTimeoutError(ConnectError):
    """The connection was not established in time."""

    kind = "connect_timeout"


class HandshakeError(ConnectError):
    """The connection was established, but no TLS on it."""

    kind = "handshake"


class NoSourceError(ConnectError):
    """The source address is none that this machine can connect from to there."""

    kind = "no_source"


class NoPortError(ConnectError):
    """No local port is left for one more connection to there (EADDRNOTAVAIL)."""

    kind = "no_port"


class NoDescriptorError(ConnectError):
    """This process, or the machine, may open no more descriptors (EMFILE, ENFILE)."""

    kind = "no_descriptor"


class LostError(ClientError):
    """An open connection broke, for a reason that has no class of its own."""

    kind = "broken"


class ResetError(LostError):
    """The other end reset the connection (ECONNRESET, EPIPE)."""

    kind = "reset"


class ClosedError(LostError):
    """The other end closed the connection before the whole reply had come.

    Attributes:
        received: how many bytes of it came.
    """

    kind = "closed"

    def __init__(self, message: str, received: int = 0) -> None:
        super().__init__(message)
        self.received = received


class ReplyTimeoutError(ClientError):
    """The whole reply was not there in time.

    Attributes:
        received: the bytes of it that came.
    """

    kind = "timeout"

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


class TlsOptionsError(ClientError):
    """A file of certificates or keys is not what TLS needs."""

    kind = "tls_options"
    exit_code = ExitCode.USAGE


class MismatchError(ClientError):
    """What came back is not what was sent."""

    kind = "mismatch"


class StreamError(ClientError):
    """The input of a stream cannot be read, or its output not be written."""

    kind = "stream"


def lost(error: OSError) -> LostError:
    """What a system call on a connection failed with, as an error of the connection."""
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return ResetError("the server reset the connection")
    return LostError(f"the connection broke: {error.strerror}")
