"""The processor time, context switches and memory of a process and of all that it has started."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from echo_load.lab.experiment import CannotRunError

_SWITCHES = re.compile(rb"ctxt_switches:\s+(\d+)")
_PSS = re.compile(rb"^Pss_Anon:\s+(\d+) kB", re.MULTILINE)

# Processes whose footprint is read, of those that one has started.
_MOST_READ = 200


class Usage(NamedTuple):
    """The processor time and context switches of some threads.

    Attributes:
        cpu_seconds: their processor time.
        switches: their context switches, voluntary or not.
    """

    cpu_seconds: float
    switches: int


class Footprint(NamedTuple):
    """The memory and sockets of some processes.

    Attributes:
        memory: their memory, in bytes, as `memory` counts it.
        sockets: their open sockets; one that several of them have open counts once.
        processes: number of the processes.
    """

    memory: float
    sockets: float
    processes: int

    def scaled(self, processes: int) -> Footprint:
        """Return the footprint of another number of such processes."""
        ratio = processes / self.processes
        return Footprint(self.memory * ratio, self.sockets * ratio, processes)


class Probe:
    """A reading of the usage of processes by thread (proc_pid_schedstat(5), proc_pid_status(5)).

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
        """Return the usage since an earlier reading, of threads that have not ended."""
        nanoseconds = switches = 0
        for path, (now_nanoseconds, now_switches) in self._threads.items():
            then = before._threads.get(path, (0, 0))
            nanoseconds += now_nanoseconds - then[0]
            switches += now_switches - then[1]
        return Usage(nanoseconds / 1e9, switches)


def processes_of(leader: int) -> list[int]:
    """Return the ids of the processes of a group, its leader first.

    This takes a system call for each process of the machine; to look for the parents of all would
    take seconds where there are thousands.
    """
    others = [pid for pid in psutil.pids() if pid != leader and _group(pid) == leader]
    return [leader, *others]


def _group(pid: int) -> int | None:
    """Return the group of a process; None if it has ended."""
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def memory(processes: Iterable[int]) -> int:
    """Return the memory of some processes in bytes, counting shared memory once.

    This is the proportional set size of what they have written (Pss_Anon, proc_pid_smaps(5)): not
    programs and libraries, which others use too, and not the kernel's memory for them.
    """
    return sum(_read(f"/proc/{pid}/smaps_rollup", _pss) for pid in processes)


def footprint(processes: Sequence[int]) -> Footprint:
    """Return the footprint of a process and of those that it has started.

    To read a thousand takes so long that many of them end meanwhile. Of many, evenly chosen ones
    are read and stand for the others. The sockets of each are read together with its memory: one
    that has ended by then is missing in both.

    Args:
        processes: their ids, the one that started the others first.
    """
    first, *others = processes
    chosen = others[:: math.ceil(len(others) / _MOST_READ) or 1]
    weight = len(others) / len(chosen) if chosen else 0.0
    used, sockets = _read_footprint([first])
    used_by_others, sockets_of_others = _read_footprint(chosen)
    return Footprint(
        used + weight * used_by_others,
        len(sockets) + weight * len(sockets_of_others - sockets),
        len(processes),
    )


def _read_footprint(processes: Iterable[int]) -> tuple[int, set[str]]:
    total, sockets = 0, set[str]()
    for pid in processes:
        opened = _sockets(pid)
        if used := memory([pid]):
            total += used
            sockets |= opened
    return total, sockets


def _sockets(pid: int) -> set[str]:
    """Return the names of the sockets that a process has open (proc_pid_fd(5))."""
    folder = f"/proc/{pid}/fd"
    names = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for number in os.listdir(folder):  # noqa: PTH208  # there may be thousands
            with suppress(FileNotFoundError):
                names.add(os.readlink(f"{folder}/{number}"))  # noqa: PTH115  # likewise
    return {name for name in names if name.startswith("socket:")}


def check_supported() -> None:
    """Check that the kernel tells what processes use.

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
