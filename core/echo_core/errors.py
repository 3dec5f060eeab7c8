"""The base class of all errors that echoswarm raises, and the exit codes of its commands."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SERVER = 3
    THRESHOLD = 99
    INTERRUPTED = 130


class EchoswarmError(Exception):
    """An error with a message for the user: one line that names the fault and the remedy.

    Attributes:
        exit_code: the exit code of a command that ends with this error.
    """

    exit_code: ExitCode = ExitCode.FAILED


class InvalidValueError(EchoswarmError, ValueError):
    """A value that a user wrote (an endpoint, a duration, a count) is not valid."""

    exit_code = ExitCode.USAGE
