"""Standard streams whose failure does not stop a test."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import TextIO

import click
from rich.console import Console, RenderableType

from echo_load.errors import LostReportError

_PLAIN_WIDTH = 100
_TABLE_WIDTH = 96


class Output:
    """A standard stream whose failure does not stop a test, but is reported later.

    Args:
        stream: standard output or standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        self.console = console(stream)
        self._stream = stream
        self._failure: OSError | None = None

    def print(self, *parts: RenderableType, wrap: bool = True) -> None:
        """Print the parts one below the other, without breaking lines unless `wrap` is set."""
        width = min(self.console.width, _TABLE_WIDTH) if wrap else None
        self.guarded(lambda: self.console.print(*parts, sep="\n", soft_wrap=not wrap, width=width))

    def print_json(self, content: bytes) -> None:
        """Print JSON without changes."""
        self.guarded(lambda: click.echo(content, nl=False))

    @property
    def can_be_redrawn(self) -> bool:
        """True on a terminal that can move its cursor; FORCE_COLOR does not make a log one."""
        console = self.console
        return self._stream.isatty() and console.is_terminal and not console.is_dumb_terminal

    @property
    def failure(self) -> str | None:
        """The reason why output was lost; None if none was, or if its reader closed the pipe."""
        if self._failure is None or isinstance(self._failure, BrokenPipeError):
            return None
        return f"cannot write the output: {self._failure.strerror}"

    def check(self) -> None:
        """Check that no output was lost.

        Raises:
            LostReportError: output was lost.
        """
        if self.failure is not None:
            raise LostReportError(self.failure)

    def guarded(self, write: Callable[[], None]) -> None:
        """Call a function that writes to the stream, unless writing has failed before."""
        if self._failure is not None:
            return
        try:
            write()
            self._stream.flush()
        except OSError as error:
            self._failure = error
            # At exit, Python tries again to write the rest of the buffer; it must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class _Console(Console):
    """A console that raises an error when its pipe is broken."""

    def on_broken_pipe(self) -> None:
        """Raise an error, where rich would end the program."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console(stream: TextIO) -> Console:
    """Return a console; if the stream is not a terminal, it has a fixed width."""
    # Names of files and targets must not be interpreted as markup.
    make = partial(_Console, file=stream, highlight=False, markup=False, emoji=False)
    made = make()
    return made if stream.isatty() else make(width=_PLAIN_WIDTH)
