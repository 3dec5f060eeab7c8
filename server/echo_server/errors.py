"""The server's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from echo_core.errors import EchoswarmError, ExitCode

if TYPE_CHECKING:
    from echo_server.metrics.counters import Counter


class ServerError(EchoswarmError):
    """The root of the server's errors."""


class ListenError(ServerError):
    """The server cannot listen where it was told to."""

    exit_code = ExitCode.SERVER


class HandshakeError(ServerError):
    """A connection did not get as far as the echo.

    Attributes:
        counted: what it is counted as.
    """

    def __init__(self, counted: Counter, message: str) -> None:
        super().__init__(message)
        self.counted = counted


class WorkerStartError(ServerError):
    """The system cannot start the worker processes."""

    exit_code = ExitCode.SERVER


class SharedMemoryError(ServerError):
    """The system has no memory that processes can share."""

    exit_code = ExitCode.SERVER
