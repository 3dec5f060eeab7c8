"""Functions that the hub engine calls at given instants."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from itertools import count
from typing import Any


class TimerQueue:
    """A queue of functions to call at given instants, with one timer of the event loop.

    Args:
        loop: gevent's event loop.
        guard: calls a function; must not raise.
    """

    def __init__(self, loop: Any, guard: Callable[[Callable[[], None]], None]) -> None:
        self._loop = loop
        self._guard = guard
        self._actions: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._timer: Any = None

    def at(self, instant_ns: int, action: Callable[[], None]) -> None:
        """Schedule a call.

        Args:
            instant_ns: instant of the call in nanoseconds of the monotonic clock; the call is made
                as soon as possible if it has passed.
            action: the function to call.
        """
        entry = (instant_ns, next(self._order), action)
        heapq.heappush(self._actions, entry)
        if self._actions[0] is entry:
            self._set_timer()

    def close(self) -> None:
        """Cancel all calls."""
        self._actions.clear()
        self._stop_timer()

    def _set_timer(self) -> None:
        self._stop_timer()
        if self._actions:
            seconds = max(0, self._actions[0][0] - time.monotonic_ns()) / 1e9
            self._timer = self._loop.timer(seconds)
            self._timer.start(self._run, update=True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _run(self) -> None:
        now = time.monotonic_ns()
        while self._actions and self._actions[0][0] <= now:
            self._guard(heapq.heappop(self._actions)[2])
        self._set_timer()
