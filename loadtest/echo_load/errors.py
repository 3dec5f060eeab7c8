"""The load tester's own errors."""

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


class LostReportError(LoadError):
    """The test was run, and something that was to be printed or written of it cannot be.

    Args:
        message: what, and why.
        verdict: what the command exits with otherwise; a passed test exits with 1.
    """

    def __init__(self, message: str, verdict: ExitCode = ExitCode.OK) -> None:
        super().__init__(message)
        self.exit_code = verdict or ExitCode.FAILED


class AdminError(LoadError):
    """The counters of the server cannot be read."""


class ResultFileError(LoadError):
    """A file is no result of a test, or one that cannot be read here."""

    exit_code = ExitCode.USAGE


class IncomparableError(LoadError):
    """Results are of different tests, and cannot be compared."""

    exit_code = ExitCode.USAGE


class MetricsError(LoadError):
    """The figures cannot be served where it was asked for."""

    exit_code = ExitCode.USAGE
