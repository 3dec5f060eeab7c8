"""What can go wrong in the server, as errors."""

from __future__ import annotations

from echo_core.errors import EchoswarmError, ExitCode


class ServerError(EchoswarmError):
    """The root of the server's errors."""


class ListenError(ServerError):
    """The server cannot listen where it was told to."""

    exit_code = ExitCode.SERVER


class WorkerStartError(ServerError):
    """The system has no room for the worker processes."""

    exit_code = ExitCode.SERVER
