"""`python -m echo_load.lab CHAPTER NAME SCALE`: run one experiment, in a process of its own.

Each measurement is a line of JSON on standard output. The last line says that the experiment has
ended, why it cannot run here, or which error ended it. What an experiment prints is dropped.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TextIO

from echo_load.lab.experiment import CannotRunError, Chapter
from echo_load.lab.experiment_process import FOLDER_PREFIX
from echo_load.lab.started_processes import end_others

_PR_SET_PDEATHSIG = 1
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSYS})
_NO_THREAD = "can't start new thread"
_PARENT_ENDED = signal.SIGHUP


def _end_with_parent() -> None:
    """End this process when its parent ends, by a signal from the kernel (prctl(2))."""
    signal.signal(_PARENT_ENDED, _end_all)
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _PARENT_ENDED)


def _end_all(_number: int, _frame: object) -> None:
    """End all that was started here, remove the temporary files, and end."""
    end_others()
    folder = Path(tempfile.gettempdir())
    if folder.name.startswith(FOLDER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _report(lines: TextIO, kind: type[BaseException], error: BaseException) -> None:
    """Write the error that ended an experiment."""
    message = str(error)
    said = f"{kind.__name__}: {message}" if message else kind.__name__
    print(json.dumps({"broke": said}), file=lines, flush=True)


def _shortage(error: BaseException) -> str | None:
    """Return which resource was short; None if an error has another reason."""
    if isinstance(error, CannotRunError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        return error.strerror
    if isinstance(error, MemoryError):
        return "not enough memory"
    return str(error) if isinstance(error, RuntimeError) and _NO_THREAD in str(error) else None


def main(chapter: str, name: str, scale: str) -> None:
    """Run an experiment.

    Args:
        chapter: module of the experiment.
        name: name of the experiment.
        scale: `quick` or `full`.
    """
    _end_with_parent()
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.excepthook = lambda kind, error, _traceback: _report(lines, kind, error)
    found: Chapter = import_module(f"echo_load.lab.{chapter}").CHAPTER
    experiment = next(one for one in found.experiments if one.name == name)
    try:
        if "multiprocessing" in sys.modules:
            # It starts with the first semaphore, which would remain if all were ended meanwhile.
            import_module("multiprocessing.resource_tracker").ensure_running()
        for measurement in experiment.measure(scale == "quick"):
            values = [float(value) for value in measurement.values]
            print(
                json.dumps({"measurement": {**asdict(measurement), "values": values}}), file=lines
            )
    except (CannotRunError, OSError, MemoryError, RuntimeError) as error:
        shortage = _shortage(error)
        if shortage is None:
            raise
        print(json.dumps({"cannot_run": shortage}), file=lines)
    else:
        print(json.dumps({"ended": True}), file=lines)
    lines.flush()
    # Threads that an experiment left behind, deadlocked by intent, must not hold the process.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
