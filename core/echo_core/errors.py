"""The root of every error that echoswarm raises on purpose, and the exit codes they end in."""

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
    """An error with a message for the user: one line that says what was given and what is right.

    Attributes:
        exit_code: what a command that ends in this error exits with.
    """

    exit_code: ExitCode = ExitCode.FAILED


class InvalidValueError(EchoswarmError, ValueError):
    """A value that a person wrote (an endpoint, a duration, a count) is not what it should be."""

    exit_code = ExitCode.USAGE
