"""A lock that lets one server at a time change files in a directory (flock(2))."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

# A server has it for a few system calls. Others may lock a folder too, and for good.
MOST_SECONDS = 2.0
_RETRY_SECONDS = 0.01


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a directory while the block runs.

    Where it cannot be had - the folder may not be read, the file system knows no locks, somebody
    else keeps it - the block runs without.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        log.debug("folder not locked", folder=str(folder), reason=error.strerror)
        yield
        return
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                log.warning("folder not locked", folder=str(folder), reason=error.strerror)
                return
            time.sleep(_RETRY_SECONDS)
        except OSError as error:
            log.debug("folder not locked", folder=str(folder), reason=error.strerror)
            return
        else:
            return
