"""What can go wrong in the load tester itself, as errors."""

from __future__ import annotations

from echo_core.errors import EchoswarmError, ExitCode


class LoadError(EchoswarmError):
    """The root of the load tester's errors."""


class GeneratorError(LoadError):
    """A load-generating process ended before its work did."""


class LocalServerError(LoadError):
    """The echo-server that the load tester starts did not start."""

    exit_code = ExitCode.SERVER


class OutputError(LoadError):
    """A file that was asked for cannot be written."""

    exit_code = ExitCode.USAGE


class StandardOutputError(LoadError):
    """The result cannot be printed."""


class AdminError(LoadError):
    """The counters of the server cannot be read."""
