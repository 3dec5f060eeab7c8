"""`echo-load lab run` as a process, and what it leaves on the machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from support.processes import DEADLINE, LOAD, environment, until

LAB = (*LOAD, "lab", "run")
# Where glibc keeps semaphores and shared memory that have names.
_SHARED_MEMORY = Path("/dev/shm")
_MARK = "LAB_OF_A_TEST"
# The command, its experiment, and the resource tracker of multiprocessing.
_WITHOUT_OTHERS = 3


def outcomes(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """Run experiments and return what became of each."""
    ended = subprocess.run(
        [*LAB, "--json", *arguments],
        capture_output=True,
        env=environment(),
        # On a busy machine measurements are repeated, or take longer.
        timeout=5 * DEADLINE,
        check=False,
    )
    assert ended.returncode == code, ended.stderr.decode()
    return _experiments(ended.stdout)


def limited_outcomes(limit: Callable[[], None], *arguments: str) -> list[dict[str, Any]]:
    """Run experiments in a process with less than usual, and return what became of each."""
    ended = subprocess.run(
        [*LAB, "--quick", "--json", *arguments],
        capture_output=True,
        preexec_fn=limit,
        env=environment(),
        timeout=DEADLINE,
        check=False,
    )
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    return _experiments(ended.stdout)


def _experiments(printed: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(printed)["experiments"]
    return found


def started(*arguments: str, **settings: str) -> subprocess.Popen[bytes]:
    """Start to run experiments; keyword arguments are environment variables."""
    return subprocess.Popen(
        [*LAB, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**settings),
    )


def outcome_of(lab: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for the end of a run of one experiment with --json; return what became of it."""
    printed, _ = lab.communicate(timeout=DEADLINE)
    (outcome,) = _experiments(printed)
    return outcome


def experiment_of(lab: subprocess.Popen[bytes]) -> psutil.Process | None:
    """Return the process of the experiment that is running."""
    children = psutil.Process(lab.pid).children()
    return next((one for one in children if "echo_load.lab" in one.cmdline()), None)


def is_running(process: psutil.Process) -> bool:
    """Return whether a process has not ended."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Traces:
    """The traces of a run: its processes, temporary files, semaphores and shared memory.

    Args:
        folder: an empty folder for temporary files.

    Attributes:
        settings: the environment variables with which the run has to be started.
    """

    def __init__(self, folder: Path) -> None:
        self.settings = {"TMPDIR": str(folder), _MARK: str(folder)}
        self._folder = folder
        self._before = self._named()

    def named(self) -> set[str]:
        """Return the names of semaphores and shared memory made since."""
        return self._named() - self._before

    def in_use(self) -> bool:
        """Return whether processes use what has a name.

        Before there are any, it may not be known yet to the process that is to remove it: between
        the two steps of multiprocessing nothing can.
        """
        return bool(self.named()) and len(self._processes()) > _WITHOUT_OTHERS

    def without_names(self) -> list[object]:
        """Return the processes and temporary files that there are."""
        return [*self._folder.iterdir(), *self._processes()]

    def check_names_removed(self) -> None:
        """Check that no name is left, once there are no processes.

        What has a name now may be of the run of another test, which will remove it; nothing
        removes what a run whose processes have ended has left.
        """
        now = self.named()
        until(lambda: not now & self.named(), "the removal of semaphores and shared memory")

    def _named(self) -> set[str]:
        # Other programs' names change meanwhile.
        return {
            one.name for one in _SHARED_MEMORY.iterdir() if one.name.startswith(("sem.mp-", "psm_"))
        }

    def _processes(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter() if self._is_ours(one)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(_MARK) == self.settings[_MARK]
        except psutil.Error:
            return False
