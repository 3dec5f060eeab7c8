"""The errors that the load tester raises, with those of the client that it passes on."""

from __future__ import annotations

from echo_client.errors import ClientError, UnresolvedError
from echo_core.errors import EchoswarmError, ExitCode, InvalidValueError
from echo_core.tls_files import TlsFileError

__all__ = [
    "AdminError",
    "ClientError",
    "EchoswarmError",
    "GeneratorError",
    "IncomparableError",
    "InvalidValueError",
    "LoadError",
    "LocalServerError",
    "LostReportError",
    "MetricsError",
    "OutputError",
    "ResultFileError",
    "TargetError",
    "TlsFileError",
    "UnresolvedError",
]


class LoadError(EchoswarmError):
    """The base class of the load tester's errors."""


class GeneratorError(LoadError):
    """A generator could not be started, failed, or ended too early."""


class LocalServerError(LoadError):
    """The echo-server for a test without targets did not start."""

    exit_code = ExitCode.SERVER


class OutputError(LoadError):
    """A requested file cannot be written."""

    exit_code = ExitCode.USAGE


class LostReportError(LoadError):
    """The test ran, but part of its report cannot be printed or written.

    Args:
        message: the part, and the reason.
        verdict: exit code that the command would have had; 0 becomes 1.
    """

    def __init__(self, message: str, verdict: ExitCode = ExitCode.OK) -> None:
        super().__init__(message)
        self.exit_code = verdict or ExitCode.FAILED


class TargetError(LoadError):
    """The target does not answer, so that it cannot be measured."""


class AdminError(LoadError):
    """The counters of the server cannot be read."""


class ResultFileError(LoadError):
    """A result file cannot be read, is not a result, or has another schema."""

    exit_code = ExitCode.USAGE


class IncomparableError(LoadError):
    """Two results cannot be compared: their tests differ, or one is incomplete."""

    exit_code = ExitCode.USAGE


class MetricsError(LoadError):
    """The metrics cannot be served at the requested address."""

    exit_code = ExitCode.USAGE
