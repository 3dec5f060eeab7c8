"""Figures of a process from /proc (proc(5)): memory, descriptors and start time."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# The index of the start time, in ticks since boot, in /proc/PID/stat after the program's name.
_START_FIELD = 19


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """The figures of a process at one moment.

    Attributes:
        resident_bytes: the resident set size in bytes.
        descriptors: the number of open descriptors.
        max_descriptors: the soft limit on open descriptors; infinity if there is none.
        started_at: the start time in seconds of Unix time.
    """

    resident_bytes: int
    descriptors: int
    max_descriptors: float
    started_at: float

    @classmethod
    def of(cls, pid: int) -> ProcessFigures | None:
        """Return the figures of a process; None if it has ended or there is no /proc."""
        directory = f"/proc/{pid}"
        try:
            resident = int(_read(f"{directory}/statm").split()[1])
            ticks = int(_read(f"{directory}/stat").rpartition(b")")[2].split()[_START_FIELD])
            limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
            return cls(
                resident * _PAGE_BYTES,
                _count_descriptors(f"{directory}/fd"),
                float("inf") if limit == resource.RLIM_INFINITY else limit,
                _booted_at() + ticks / _TICKS_PER_SECOND,
            )
        except OSError:
            return None


def _count_descriptors(directory: str) -> int:
    # Since Linux 6.2 this is the directory's size. Before, the size is 0, and listing is slow.
    return os.stat(directory).st_size or len(os.listdir(directory))  # noqa: PTH116, PTH208  # quick


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


@cache
def _booted_at() -> int:
    """Return the boot time of the system, in seconds of Unix time."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    raise OSError("/proc/stat has no btime")
