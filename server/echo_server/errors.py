"""The server's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from echo_core.errors import EchoswarmError, ExitCode

if TYPE_CHECKING:
    from echo_server.metrics.counters import Counter


class ServerError(EchoswarmError):
    """The base class of the server's errors."""


class ListenError(ServerError):
    """The server cannot listen on a configured address."""

    exit_code = ExitCode.SERVER


class HandshakeError(ServerError):
    """The handshake of a connection failed: its PROXY header or its TLS handshake.

    Attributes:
        counter: the counter of connections closed for this reason.
    """

    def __init__(self, counter: Counter, message: str) -> None:
        super().__init__(message)
        self.counter = counter


class WorkerStartError(ServerError):
    """The worker processes cannot be started."""

    exit_code = ExitCode.SERVER


class SharedMemoryError(ServerError):
    """Memory that the server's processes share cannot be allocated."""

    exit_code = ExitCode.SERVER
