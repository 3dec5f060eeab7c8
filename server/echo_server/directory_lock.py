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

# A server holds the lock for a few system calls only, but another program may never release it.
MAX_WAIT_SECONDS = 2.0
_RETRY_SECONDS = 0.01


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory while the block runs, if it can be acquired.

    The block runs without the lock if the directory is not readable, if its file system does not
    support locks, or if another process still holds the lock after `MAX_WAIT_SECONDS`.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        log.debug("folder not locked", folder=str(directory), reason=error.strerror)
        yield
        return
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                log.warning("folder not locked", folder=str(directory), reason=error.strerror)
                return
            time.sleep(_RETRY_SECONDS)
        except OSError as error:
            log.debug("folder not locked", folder=str(directory), reason=error.strerror)
            return
        else:
            return
