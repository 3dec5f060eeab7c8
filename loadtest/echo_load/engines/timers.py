"""Precise timers: a timer descriptor (timerfd_create(2)), and sleeps.

The timers of an event loop are up to a millisecond late. A descriptor that becomes readable at an
instant is handled together with those of connections, and in time.
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

    By default the kernel may end them up to 50 µs late, to combine wake-ups (prctl(2),
    PR_SET_TIMERSLACK). On a system without prctl this has no effect.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)


class InstantTimer:
    """A timer with a descriptor that becomes readable at an instant of the monotonic clock.

    Raises:
        LoadError: the system does not support such timers, or has no descriptor left.
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
        """Return the descriptor."""
        return self._descriptor

    def set(self, instant_ns: int) -> None:
        """Set the instant at which the descriptor becomes readable; until then it is not.

        Args:
            instant_ns: the instant in nanoseconds of the monotonic clock; it may have passed.

        Raises:
            LoadError: the system rejected it.
        """
        value = self._setting.value
        value.seconds, value.nanoseconds = divmod(max(1, instant_ns), _NANOSECONDS)
        if self._set_time(self._descriptor, _ABSOLUTE, self._at, None) < 0:
            raise LoadError(f"cannot set a timer: {os.strerror(ctypes.get_errno())}")

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
