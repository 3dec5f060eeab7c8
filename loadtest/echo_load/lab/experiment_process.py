"""The process in which an experiment is run."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from echo_load.lab.started_processes import end_session

FOLDER_PREFIX = "lab-"
# The longest path of a folder that can have the folders of experiments, in bytes: the path of a
# unix socket has up to 107 (unix(7)), of which the folder's name takes 13 and those that
# multiprocessing adds take 32.
_LONGEST_PARENT = 62
_SHORT_PARENTS = ("/tmp", "/var/tmp")  # noqa: S108  # the folders in them are private


class ExperimentProcess:
    """The process of an experiment, with all that it starts; a context manager that ends them.

    It has a session of its own, so that Ctrl-C at the terminal does not reach it and all that it
    has started can be found; and a folder of its own for temporary files, which goes with it.

    Args:
        chapter: the experiment's chapter.
        name: of the experiment.
        scale: `quick` or `full`.

    Raises:
        OSError: the system has no process or descriptor for it.
    """

    def __init__(self, chapter: str, name: str, scale: str) -> None:
        with ExitStack() as stack:
            self._folder = _temporary_folder()
            stack.callback(self._remove_folder)
            errors = os.fdopen(os.memfd_create("experiment-errors"), "w+b")
            self._errors = stack.enter_context(errors)
            self._process = subprocess.Popen(
                # -P: a module of the current folder is not one of ours.
                [sys.executable, "-P", "-m", "echo_load.lab", chapter, name, scale],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | ({"TMPDIR": self._folder} if self._folder else {}),
                start_new_session=True,
            )
            assert self._process.stdout is not None
            self._output = stack.enter_context(self._process.stdout)
            stack.callback(self._end)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def lines(self, seconds: float) -> Iterator[bytes]:
        """Yield each line of its output, and an empty one after some seconds without any."""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        unfinished = b""
        while True:
            if not poll.poll(seconds * 1e3):
                yield b""
                continue
            read = os.read(self._output.fileno(), 65536)
            if not read:
                return
            *lines, unfinished = (unfinished + read).split(b"\n")
            yield from lines

    def failure(self) -> str:
        """Return why it failed, once its output has ended."""
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="backslashreplace").strip().splitlines()
        return said[-1] if said else f"its process ended with exit code {code}"

    def kill(self) -> None:
        """End it and all that it has started at once; safe in a signal handler."""
        # Without a wait(2): the signal may have interrupted one that holds the lock of Popen.
        end_session(self._process.pid)
        self._remove_folder()

    def _end(self) -> None:
        end_session(self._process.pid)
        self._process.wait()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _temporary_folder() -> str | None:
    """Make a folder for temporary files; return None where there is no place for one.

    It is in the usual folder for such files unless the paths of sockets in it would be too long.
    """
    try:
        usual = tempfile.gettempdir()
    except FileNotFoundError:
        # Only the experiments that need such files cannot be run.
        return None
    if len(os.fsencode(usual)) > _LONGEST_PARENT:
        for parent in _SHORT_PARENTS:
            with suppress(OSError):
                return tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent)
    return tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=usual)
