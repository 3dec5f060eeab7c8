"""Hands each message that is due to one of many threads."""

from __future__ import annotations

import threading
import time
from collections import deque

from echo_load.engines.share import Share
from echo_load.plan.pacing import Schedule


class Tickets:
    """Hands out the instants of an open loop's schedule, the next one to a free thread.

    Args:
        share: whose schedule; a closed loop has none, and nothing to hand out.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._schedule: Schedule | None = share.schedule()
        self._origin_ns = 0
        self._lock = threading.Lock()
        self._unsent = 0
        # Instants that were given back.
        self._overdue: deque[int] = deque()

    def start(self, origin_ns: int) -> None:
        """Set the instant 0 of the schedule."""
        self._origin_ns = origin_ns

    def take(self) -> int | None:
        """Take the instant of the next message, on the monotonic clock; None after the last."""
        assert self._schedule is not None
        with self._lock:
            instant = self._overdue.popleft() if self._overdue else next(self._schedule, None)
            if instant is None:
                return None
            if time.monotonic_ns() > self._last_chance_ns:
                self._unsent += 1
                return None
            return self._origin_ns + instant

    def give_back(self, due_ns: int) -> None:
        """Give back an instant, for another thread to send the message."""
        with self._lock:
            self._overdue.append(due_ns - self._origin_ns)

    @property
    def through(self) -> bool:
        """Whether all messages of a limited number were handed out."""
        assert self._schedule is not None
        with self._lock:
            return self._schedule.through and not self._overdue

    def rest(self) -> int:
        """Return how many messages were due and not sent."""
        if self._schedule is None or self._share.end_ns.value == 0:
            return 0
        with self._lock:
            until = self._share.due_until_ns - self._origin_ns
            self._unsent += sum(instant < until for instant in self._overdue)
            self._unsent += self._schedule.rest(until)
            self._overdue.clear()
            return self._unsent

    @property
    def _last_chance_ns(self) -> int:
        # What is overdue at the end may still be sent, but not for ever.
        return self._share.end_ns.value + int(self._share.plan.reply_timeout * 1e9)
