"""`python -m echo_load.lab CHAPTER NAME SCALE`: measures one experiment, in a process of its own.

What is measured is written to standard output, a line of JSON each: a figure, or why the
experiment cannot run here; a last line says that it has ended. Whatever an experiment prints goes
nowhere.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module

from echo_load.lab.experiment import CannotRunError, Chapter

_PR_SET_PDEATHSIG = 1
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSYS})
_NO_THREAD = "can't start new thread"


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent has ended (prctl(2))."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _shortage(error: BaseException) -> str | None:
    """Return what the machine did not give; None if that is not the reason of an error."""
    if isinstance(error, CannotRunError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        return error.strerror
    if isinstance(error, MemoryError):
        return "not enough memory"
    return str(error) if isinstance(error, RuntimeError) and _NO_THREAD in str(error) else None


def main(chapter: str, name: str, scale: str) -> None:
    """Measure an experiment.

    Args:
        chapter: the module that it is in.
        name: of the experiment.
        scale: `quick` or `full`.
    """
    _end_with_parent()
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    found: Chapter = import_module(f"echo_load.lab.{chapter}").CHAPTER
    experiment = next(one for one in found.experiments if one.name == name)
    try:
        for figure in experiment.measure(scale == "quick"):
            values = [float(value) for value in figure.values]
            print(json.dumps({"figure": {**asdict(figure), "values": values}}), file=lines)
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
