"""The processor time, context switches and memory of a process and of all that it has started."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from echo_load.lab.experiment import CannotRunError

_SWITCHES = re.compile(rb"ctxt_switches:\s+(\d+)")
_PSS = re.compile(rb"^Pss_Anon:\s+(\d+) kB", re.MULTILINE)


class Usage(NamedTuple):
    """What some threads have used.

    Attributes:
        cpu_seconds: their processor time.
        switches: their context switches, voluntary or not.
    """

    cpu_seconds: float
    switches: int


class Probe:
    """Reads what processes have used, thread by thread (proc_pid_schedstat(5), proc_pid_status(5)).

    Args:
        processes: their ids.
    """

    def __init__(self, processes: Iterable[int]) -> None:
        self._threads = {
            path: (_read(f"{path}/schedstat", _first_number), _read(f"{path}/status", _switches))
            for pid in processes
            for path in _threads(pid)
        }

    def since(self, before: Probe) -> Usage:
        """Return what has been used since then, by threads that have not ended."""
        nanoseconds = switches = 0
        for path, (now_nanoseconds, now_switches) in self._threads.items():
            then = before._threads.get(path, (0, 0))
            nanoseconds += now_nanoseconds - then[0]
            switches += now_switches - then[1]
        return Usage(nanoseconds / 1e9, switches)


def processes_of(pid: int) -> list[int]:
    """Return the ids of a process and of all below it."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def memory(processes: Iterable[int]) -> int:
    """Return the bytes that some processes have in memory; what they share is counted once.

    This is the proportional set size of what they have written (Pss_Anon, proc_pid_smaps(5)): not
    programs and libraries, which others use too, and not what the kernel has for them.
    """
    return sum(_read(f"/proc/{pid}/smaps_rollup", _pss) for pid in processes)


def check_supported() -> None:
    """Check that the kernel has these figures.

    Raises:
        CannotRunError: it does not.
    """
    for name in ("schedstat", "smaps_rollup"):
        if not Path(f"/proc/self/{name}").exists():
            raise CannotRunError(f"this system has no /proc/PID/{name}")


def _threads(pid: int) -> list[str]:
    """Return the folders of a process's threads; none if it has ended."""
    tasks = f"/proc/{pid}/task"
    try:
        return [f"{tasks}/{number}" for number in os.listdir(tasks)]  # noqa: PTH208  # likewise
    except FileNotFoundError:
        return []


def _read(path: str, find: Callable[[bytes], int]) -> int:
    """Read a number; 0 if the process has ended."""
    # As there may be thousands, and a core is shared with what is measured, without a Path.
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return find(os.read(descriptor, 8192))
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _first_number(content: bytes) -> int:
    return int(content.split(maxsplit=1)[0])


def _switches(content: bytes) -> int:
    return sum(map(int, _SWITCHES.findall(content)))


def _pss(content: bytes) -> int:
    match = _PSS.search(content)
    return int(match[1]) * 1024 if match else 0
