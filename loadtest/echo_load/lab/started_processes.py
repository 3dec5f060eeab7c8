"""The processes that an experiment has started: those of its session."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count

import psutil

# The module that multiprocessing starts to remove semaphores and shared memory once all processes
# that use them have ended.
_RESOURCE_TRACKER = "multiprocessing.resource_tracker"
_PAUSE_SECONDS = 0.005
# A tracker that is still there after so many looks at the session, which take two seconds or more,
# is ended as well. A deadline could pass while the machine stands still, before a tracker can work.
_TRACKER_LOOKS = 400


def end_session(leader: int) -> None:
    """End the processes of a session at once, and wait until they have.

    Resource trackers are left to do their work: semaphores and shared memory have names, and would
    outlive the processes that use them.

    Args:
        leader: the process that began the session.
    """
    for look in count():
        running = list(_session(leader))
        if not running:
            return
        _kill(one for one in running if look > _TRACKER_LOOKS or not _is_tracker(one))
        time.sleep(_PAUSE_SECONDS)


def end_others() -> None:
    """End the other processes of this session, but no resource trackers.

    These end once this process has.
    """
    while others := [
        one for one in _session(os.getsid(0)) if one.pid != os.getpid() and not _is_tracker(one)
    ]:
        _kill(others)
        time.sleep(_PAUSE_SECONDS)


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _session(leader: int) -> Iterator[psutil.Process]:
    """Yield the processes of a session that have not ended."""
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield process


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return any(_RESOURCE_TRACKER in argument for argument in process.cmdline())
    except psutil.Error:
        return False
