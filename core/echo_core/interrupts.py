"""Handling of SIGINT (Ctrl-C) before a command begins and after it has ended.

At these times no work can be lost, and a KeyboardInterrupt would be raised inside an import or the
interpreter's shutdown, where it would be printed as a traceback or swallowed. Programs import this
module first, so it imports little itself.
"""

import os
import signal

# The convention of shells: 128 plus the number of the signal.
INTERRUPTED = 130


def quit_on_interrupt(code: int = INTERRUPTED) -> None:
    """Let SIGINT end this process at once with an exit code, unless SIGINT is ignored."""

    def quit_now(_number: int, _frame: object) -> None:
        os._exit(code)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, quit_now)


def raise_on_interrupt() -> None:
    """Let SIGINT raise KeyboardInterrupt, Python's default, unless SIGINT is ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
