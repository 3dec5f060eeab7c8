"""Files that are written at the end, and checked at the beginning."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from echo_load.errors import OutputError


class OutputFiles:
    """Requested files; whether they can be written is checked at once.

    A regular file is replaced only when the new one is complete: a full disk does not destroy the
    old one.

    Args:
        paths: the files.
        inputs: files that are read, and must not be written.

    Raises:
        OutputError: one of them cannot be written, is an input, or two are the same.
    """

    def __init__(self, paths: Sequence[Path], inputs: Sequence[Path | str] = ()) -> None:
        # Pipes stay open, lest their readers see the end of the stream before anything is written.
        self._pipes: dict[Path, BinaryIO] = {}
        for number, path in enumerate(paths):
            if _is_same_file(path, paths[:number]):
                raise OutputError(f"{path} is given for two outputs; give each a file of its own")
            if _is_same_file(path, [Path(one) for one in inputs]):
                raise OutputError(f"{path} is an input of this command; give another file to write")
            self._check(path)

    def write(self, makers: Iterable[tuple[Path, Callable[[], bytes]]]) -> list[str]:
        """Write files, in place of existing ones.

        Args:
            makers: each file, and the function that makes its content.

        Returns:
            For each file that cannot be written after all: which, and why.
        """
        lost = []
        for path, make in makers:
            try:
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
    """Return whether a path is one of the others; devices and pipes may take several reports."""
    return path.resolve() in {other.resolve() for other in others} and (
        path.is_file() or not path.exists()
    )


def _open_fifo(path: Path) -> BinaryIO:
    """Open a named pipe for writing.

    Raises:
        OSError: nobody reads it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return cast("BinaryIO", os.fdopen(descriptor, "wb", buffering=0))


def _try_to_open(path: Path) -> None:
    existed = path.exists()
    with path.open("ab"):
        pass
    if not existed:
        path.unlink()


def _replace(path: Path, content: bytes) -> None:
    """Replace a file when its new content is complete."""
    beside = path.with_name(f".echo-load-{os.getpid()}")
    try:
        beside.write_bytes(content)
        if path.exists():
            shutil.copymode(path, beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno != errno.EBUSY:
            raise
        # A file that is a mount point can only be written to.
        path.write_bytes(content)
