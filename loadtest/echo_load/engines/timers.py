"""Exact timers: a descriptor for instants (timerfd_create(2)), and sleeps.

An event loop's own timers are late by up to a millisecond; a descriptor that becomes readable at
an instant is served like any other.
"""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress

from echo_load.errors import LoadError

# timerfd_settime(2): the time is absolute, not relative to now.
_ABSOLUTE = 1
_NANOSECONDS = 1_000_000_000
_PR_SET_TIMERSLACK = 29


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Setting(ctypes.Structure):
    _fields_ = [("interval", _Time), ("value", _Time)]


def sleep_exactly() -> None:
    """Make the sleeps of this thread, and of threads that it starts, end on time.

    By default the kernel may end them 50 us late, together with others (prctl(2),
    PR_SET_TIMERSLACK). Without prctl, that stays so.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)


class InstantTimer:
    """A descriptor that is readable from an instant of the monotonic clock on.

    Raises:
        LoadError: the system has no such timers.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._set_time = libc.timerfd_settime
            self._descriptor: int = libc.timerfd_create(
                time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC
            )
        except AttributeError as error:
            raise LoadError("this system has no timerfd, which rates need; use Linux") from error
        if self._descriptor < 0:
            raise LoadError(f"cannot make a timer: {os.strerror(ctypes.get_errno())}")
        self._setting = _Setting()
        self._at = ctypes.byref(self._setting)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def set(self, instant_ns: int) -> None:
        """Become readable at an instant, and not before; at once if it has passed."""
        value = self._setting.value
        value.seconds, value.nanoseconds = divmod(max(1, instant_ns), _NANOSECONDS)
        if self._set_time(self._descriptor, _ABSOLUTE, self._at, None) < 0:
            raise LoadError(f"cannot set a timer: {os.strerror(ctypes.get_errno())}")

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
