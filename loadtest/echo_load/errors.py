"""The load tester's own errors."""

from __future__ import annotations

from echo_core.errors import EchoswarmError, ExitCode


class LoadError(EchoswarmError):
    """The base class of the load tester's errors."""


class GeneratorError(LoadError):
    """A load-generating process ended before its work did."""


class LocalServerError(LoadError):
    """The echo-server that the load tester starts did not start."""

    exit_code = ExitCode.SERVER


class OutputError(LoadError):
    """A requested file cannot be written."""

    exit_code = ExitCode.USAGE


class LostReportError(LoadError):
    """The test ran, but part of its report cannot be printed or written.

    Args:
        message: what was lost, and why.
        verdict: the exit code without this error; 0 becomes 1.
    """

    def __init__(self, message: str, verdict: ExitCode = ExitCode.OK) -> None:
        super().__init__(message)
        self.exit_code = verdict or ExitCode.FAILED


class AdminError(LoadError):
    """The server's counters cannot be read."""


class ResultFileError(LoadError):
    """A file is not a result, has another schema, or cannot be read."""

    exit_code = ExitCode.USAGE


class IncomparableError(LoadError):
    """Results are of different tests, and cannot be compared."""

    exit_code = ExitCode.USAGE


class MetricsError(LoadError):
    """The figures cannot be served at the requested address."""

    exit_code = ExitCode.USAGE
