"""Reports as files."""

from __future__ import annotations

from pathlib import Path

from echo_load.errors import OutputError


def check_writable(path: Path) -> None:
    """Find out before a test whether its result can be written after it.

    Raises:
        OutputError: it cannot.
    """
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def write(path: Path, content: bytes) -> None:
    """Write a report, in place of what was there.

    Raises:
        OutputError: it cannot be written after all.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
