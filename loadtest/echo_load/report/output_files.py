"""Output files, checked at the beginning and written at the end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import BinaryIO, cast

from echo_load.errors import OutputError
from echo_load.runner.generator import STOP_SIGNALS


class OutputFiles:
    """Output files, checked to be writable when this object is created.

    A regular file is replaced only by a complete new one, so that a full disk does not destroy it.

    Args:
        paths: the output files.
        inputs: files that are read and must not be overwritten.

    Raises:
        OutputError: a file cannot be written, is an input, or is named twice.
    """

    def __init__(self, paths: Sequence[Path], inputs: Sequence[Path | str] = ()) -> None:
        # Kept open: closing a pipe would be the end of the stream for its reader.
        self._pipes: dict[Path, BinaryIO] = {}
        for number, path in enumerate(paths):
            if _is_same_file(path, paths[:number]):
                raise OutputError(f"{path} is given for two outputs; give each a file of its own")
            if _is_same_file(path, [Path(one) for one in inputs]):
                raise OutputError(f"{path} is an input of this command; give another file to write")
            self._check(path)

    def write(self, makers: Iterable[tuple[Path, Callable[[], bytes]]]) -> list[str]:
        """Write files, and replace existing ones.

        Args:
            makers: each file, and the function that returns its content.

        Returns:
            An error message for each file that could not be written.
        """
        lost = []
        for path, make in makers:
            try:
                # Writing to a pipe may block for ever, so signals must interrupt it.
                with nullcontext() if path in self._pipes else _stop_signals_deferred():
                    self._write(path, make())
            except OSError as error:
                lost.append(f"cannot write {path}: {error.strerror}")
        return lost

    def _check(self, path: Path) -> None:
        if str(path) == "-":
            raise OutputError("- is not a file; use --json to print the result")
        try:
            if path.is_fifo():
                self._pipes[path] = _open_fifo(path)
            else:
                _try_to_open(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error

    def _write(self, path: Path, content: bytes) -> None:
        target = path.resolve()
        if path in self._pipes:
            with self._pipes.pop(path) as pipe:
                pipe.write(content)
        elif (target.is_file() or not target.exists()) and os.access(target.parent, os.W_OK):
            _replace(target, content)
        else:
            path.write_bytes(content)


def _is_same_file(path: Path, others: Sequence[Path]) -> bool:
    """Return whether a path is one of the other files, and not a device or a pipe."""
    return path.resolve() in {other.resolve() for other in others} and (
        path.is_file() or not path.exists()
    )


def _open_fifo(path: Path) -> BinaryIO:
    """Open a named pipe for writing (fifo(7)).

    Raises:
        OSError: no process has opened it for reading.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return cast("BinaryIO", os.fdopen(descriptor, "wb", buffering=0))


@contextmanager
def _stop_signals_deferred() -> Iterator[None]:
    """Defer stop signals that arrive in the block until after it.

    In the block they would truncate a file, or lose its new content.
    """
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    # Only the main thread can handle signals.
    numbers = STOP_SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {
        number: signal.signal(number, note)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for one in dict.fromkeys(arrived):
            signal.raise_signal(one)


def _try_to_open(path: Path) -> None:
    """Open a file for writing, without changing or creating it.

    Raises:
        OSError: it cannot be written.
    """
    existed = path.exists()
    with path.open("ab"):
        pass
    if not existed:
        path.unlink()


def _replace(path: Path, content: bytes) -> None:
    """Write a new file, and replace the existing one by it.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".echo-load-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno != errno.EBUSY:
            raise
        # A file that is a mount point cannot be replaced, only overwritten.
        path.write_bytes(content)
