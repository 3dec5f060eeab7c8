"""The schedule of an open loop, shared by many threads."""

from __future__ import annotations

import threading
import time
from collections import deque

from echo_load.engines.share import Share
from echo_load.plan.pacing import Schedule


class SharedSchedule:
    """The schedule of a share, from which each free thread takes the next message; thread-safe.

    Args:
        share: the share. In a closed loop it has no schedule, and only `start` and `rest` may be
            called.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._schedule: Schedule | None = share.schedule()
        self._origin_ns = 0
        self._lock = threading.Lock()
        self._unsent = 0
        # Instants taken from the schedule whose messages nobody sends yet, relative to the origin.
        self._pending: deque[int] = deque()

    def start(self, origin_ns: int) -> None:
        """Set the instant 0 of the schedule, in nanoseconds of the monotonic clock."""
        self._origin_ns = origin_ns

    def take(self) -> int | None:
        """Return when the next message is due, in nanoseconds of the monotonic clock.

        Returns:
            None if there is no further message, or if it is too late to send it.
        """
        assert self._schedule is not None
        with self._lock:
            instant = self._pending.popleft() if self._pending else next(self._schedule, None)
            if instant is None:
                return None
            if time.monotonic_ns() > self._last_chance_ns:
                self._unsent += 1
                return None
            return self._origin_ns + instant

    def give_back(self, due_ns: int) -> None:
        """Give back an instant that `take` returned, so that another thread sends the message."""
        with self._lock:
            self._pending.append(due_ns - self._origin_ns)

    @property
    def is_overdue(self) -> bool:
        """True if the next message is due, and not too late to be sent."""
        assert self._schedule is not None
        with self._lock:
            if not self._pending and (instant := next(self._schedule, None)) is not None:
                self._pending.append(instant)
            now = time.monotonic_ns()
            return (
                bool(self._pending)
                and self._origin_ns + min(self._pending) <= now <= self._last_chance_ns
            )

    @property
    def through(self) -> bool:
        """True if the number of messages is limited, and all of them were taken."""
        assert self._schedule is not None
        with self._lock:
            return self._schedule.through and not self._pending

    def rest(self) -> int:
        """End the schedule; return the number of messages that were due and not sent.

        It is 0 in a closed loop, and if the test was stopped.
        """
        if self._schedule is None or self._share.end_ns.value == 0:
            return 0
        with self._lock:
            until = self._share.due_until_ns - self._origin_ns
            self._unsent += sum(instant < until for instant in self._pending)
            self._unsent += self._schedule.rest(until)
            self._pending.clear()
            return self._unsent

    @property
    def _last_chance_ns(self) -> int:
        # Messages that are overdue at the end may be sent until one reply timeout later.
        return self._share.end_ns.value + int(self._share.plan.reply_timeout * 1e9)
