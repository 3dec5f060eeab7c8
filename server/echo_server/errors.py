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
    """A connection failed before it could be echoed.

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
    """The system provides no memory that processes can share."""

    exit_code = ExitCode.SERVER
