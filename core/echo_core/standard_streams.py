"""Standard input, output and error, as a command can rely on them.

All three are there, whatever the program was started with. What cannot be written to standard
output is an error that says so; what cannot be written to standard error is lost, since nobody can
be told. A character that their encoding lacks is written otherwise.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from echo_core.errors import EchoswarmError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_INPUT, _OUTPUT, _ERROR = range(3)
# How characters that are printed here are written in an encoding that lacks them.
_PLAIN = dict(
    zip(
        "µ…→±·—─│▁▂▃▄▅▆▇█",
        ("u", "...", "->", "+-", "-", "-", "-", "|", *"..::--=="),
        strict=True,
    )
)
_OTHERWISE = "echo_core.standard_streams.otherwise"


class OutputError(EchoswarmError, OSError):
    """Standard output cannot be written to."""

    def __str__(self) -> str:
        return f"cannot write to standard output: {self.strerror}"


class _OutputFile(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            # Its reader has left, which is its right.
            raise
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


class _ErrorFile(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def prepare() -> None:
    """Set up the standard streams of this process; call it before anything opens a file.

    A descriptor that was closed before the start would be given to the next file or socket, which
    would then be taken for a standard stream: it becomes /dev/null, here and in child processes.
    Writing to a standard output that was closed still fails.
    """
    codecs.register_error(_OTHERWISE, _written_otherwise)
    for number in (_INPUT, _OUTPUT, _ERROR):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            opened = os.open(os.devnull, os.O_RDONLY if number == _OUTPUT else os.O_RDWR)
            os.set_inheritable(opened, True)
    sys.stdin = sys.stdin or open(_INPUT, closefd=False)  # noqa: SIM115  # stays open
    # What somebody else has put there is theirs.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_OutputFile(_OUTPUT, "wb", closefd=False), sys.__stdout__)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_ErrorFile(_ERROR, "wb", closefd=False), sys.__stderr__)


def announce(lines: str) -> None:
    """Print lines on standard output at once; where that was closed, nobody waits for them.

    Raises:
        OutputError: they cannot be written.
    """
    try:
        print(lines, flush=True)
    except OutputError as error:
        if error.errno != errno.EBADF:
            raise
        abandon_output()


def abandon_output() -> None:
    """Send to /dev/null from now on what is written to standard output, and what is buffered.

    At its end the interpreter would try to write it once more.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _OUTPUT)
    os.close(nowhere)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    """A text stream on a file, with the settings that Python chose for the one before."""
    if not isinstance(before, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), errors=_OTHERWISE)
    before.flush()
    unbuffered = before.write_through
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        before.encoding,
        _OTHERWISE,
        newline="\n",
        line_buffering=before.line_buffering,
        write_through=unbuffered,
    )


def _written_otherwise(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle an error of encoding (codecs.register_error)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or _escaped(one) for one in lacking), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
