"""Figures of a process from /proc (proc(5)): its memory, its descriptors, its start."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
# Of /proc/PID/stat behind the name of the program: when the process started, in ticks after boot.
_START_FIELD = 19


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """The figures of a process at one moment.

    Attributes:
        resident_bytes: memory in RAM.
        descriptors: descriptors that are open.
        most_descriptors: descriptors that may be open.
        started_at: when it started, in seconds of Unix time.
    """

    resident_bytes: int
    descriptors: int
    most_descriptors: float
    started_at: float

    @classmethod
    def of(cls, pid: int) -> ProcessFigures | None:
        """Return the figures of a process; None if it has ended, or without /proc."""
        directory = f"/proc/{pid}"
        try:
            resident = int(_read(f"{directory}/statm").split()[1])
            ticks = int(_read(f"{directory}/stat").rpartition(b")")[2].split()[_START_FIELD])
            most = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
            return cls(
                resident * _PAGE_BYTES,
                _count_descriptors(f"{directory}/fd"),
                float("inf") if most == resource.RLIM_INFINITY else most,
                _booted_at() + ticks / _TICKS,
            )
        except OSError:
            return None


def _count_descriptors(directory: str) -> int:
    # Since Linux 6.2 the directory's size; before, 0, and listing takes a while if they are many.
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
