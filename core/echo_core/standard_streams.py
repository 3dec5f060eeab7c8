"""Standard input, output and error that a command can rely on.

All three are open, even if the program was started with some of them closed. A failed write to
standard output raises `OutputError`; a failed write to standard error is ignored, since it could
not be reported. Characters that cannot be encoded are replaced with similar ones or escaped.
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
# ASCII replacements for the characters that these programs print.
_REPLACEMENTS = dict(
    zip(
        "µ…→±·—─│▁▂▃▄▅▆▇█",
        ("u", "...", "->", "+-", "-", "-", "-", "|", *"..::--=="),
        strict=True,
    )
)
_REPLACE_OR_ESCAPE = "echo_core.standard_streams.replace_or_escape"


class OutputError(EchoswarmError, OSError):
    """Standard output cannot be written to."""

    def __str__(self) -> str:
        return f"cannot write to standard output: {self.strerror}"


class _OutputFile(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            # The reader has closed the pipe, which is not reported as an error.
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

    If a standard descriptor is closed, the next file or socket opened would get its number and be
    used as a standard stream. It is therefore opened on /dev/null, here and in child processes.
    Writing to a standard output that was closed still fails.
    """
    codecs.register_error(_REPLACE_OR_ESCAPE, _replace_or_escape)
    for number in (_INPUT, _OUTPUT, _ERROR):
        try:
            os.fstat(number)
        except OSError:
            # open(2) returns the lowest free descriptor, which is this one.
            opened = os.open(os.devnull, os.O_RDONLY if number == _OUTPUT else os.O_RDWR)
            os.set_inheritable(opened, True)
    sys.stdin = sys.stdin or open(_INPUT, closefd=False)  # noqa: SIM115  # stays open
    # Streams that other code has replaced are left unchanged.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_OutputFile(_OUTPUT, "wb", closefd=False), sys.__stdout__)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_ErrorFile(_ERROR, "wb", closefd=False), sys.__stderr__)


def announce(lines: str) -> None:
    """Print lines to standard output and flush it; do nothing if standard output was closed.

    Raises:
        OutputError: the lines cannot be written.
    """
    try:
        # One write, also to an unbuffered stream: a log line on the same pipe must not divide it.
        print(f"{lines}\n", end="", flush=True)
    except OutputError as error:
        if error.errno != errno.EBADF:
            raise
        abandon_output()


def abandon_output() -> None:
    """Redirect standard output to /dev/null, including the data still buffered.

    Otherwise the interpreter would try to write that data again when it exits.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _OUTPUT)
    os.close(null)


def _text(raw: io.FileIO, replaced: TextIO | None) -> TextIO:
    """Return a text stream on a file, with the settings of the stream that it replaces."""
    if not isinstance(replaced, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), errors=_REPLACE_OR_ESCAPE)
    replaced.flush()
    unbuffered = replaced.write_through
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        replaced.encoding,
        _REPLACE_OR_ESCAPE,
        newline="\n",
        line_buffering=replaced.line_buffering,
        write_through=unbuffered,
    )


def _replace_or_escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle an encoding error (codecs.register_error)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unencodable = error.object[error.start : error.end]
    return "".join(_REPLACEMENTS.get(one) or _escaped(one) for one in unencodable), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
