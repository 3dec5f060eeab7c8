"""The effect of SIGINT (Ctrl-C) on a command that has not begun yet or has ended.

Nothing is lost then, and an exception would be raised in whatever is being imported or cleared
away: it would be printed, or swallowed. A program imports this first, so it imports little.
"""

import os
import signal

# As shells count: 128 and the number of the signal.
INTERRUPTED = 130


def quit_on_interrupt(code: int = INTERRUPTED) -> None:
    """From now on let SIGINT end this process at once, with an exit code; unless it is ignored."""

    def quit_now(_number: int, _frame: object) -> None:
        os._exit(code)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, quit_now)


def raise_on_interrupt() -> None:
    """From now on let SIGINT raise KeyboardInterrupt, as Python does; unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
