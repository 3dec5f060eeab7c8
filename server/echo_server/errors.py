"""The server's errors."""

from __future__ import annotations

from echo_core.errors import EchoswarmError, ExitCode


class ServerError(EchoswarmError):
    """The base class of the server's errors."""


class ListenError(ServerError):
    """The server cannot listen on a configured address."""

    exit_code = ExitCode.SERVER


class WorkerStartError(ServerError):
    """The worker processes cannot be started."""

    exit_code = ExitCode.SERVER


class SharedMemoryError(ServerError):
    """Memory that the server's processes share cannot be allocated."""

    exit_code = ExitCode.SERVER
