"""The hub engine's open loop: messages leave when they are due, on connections that are free."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from echo_core.epoll_set import READABLE, EpollSet
from echo_load.engines.hub.connection import HubConnection
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import NEVER
from echo_load.engines.timers import InstantTimer
from echo_load.plan.pacing import Schedule

# Waking up for a message costs more than sending it: messages due this soon after one another leave
# together.
_TOGETHER_NS = 50_000


class Dispatcher:
    """Gives each message that is due to the connection that has been free the longest.

    Args:
        schedule: when messages are due.
        epoll_set: watches the timer; the engine calls `timer_is_ready` for its descriptor.
        recorder: where lateness is recorded.
        send: called with a connection, the instant at which its message was due, and now.

    Attributes:
        descriptor: that of the timer.
        free: connections that can take a message, each once for every message it can take.
        due_ns: when the next message is due, on the monotonic clock; `NEVER` if none is.
    """

    def __init__(
        self,
        schedule: Schedule,
        epoll_set: EpollSet,
        recorder: Recorder,
        send: Callable[[HubConnection, int, int], None],
    ) -> None:
        self.free: deque[HubConnection] = deque()
        self.due_ns = NEVER
        self._schedule = schedule
        self._recorder = recorder
        self._send = send
        self._origin_ns = 0
        # Since when at least one connection has been free without interruption.
        self._free_since_ns = NEVER
        self._timer = InstantTimer()
        self._timer_ns = NEVER
        self.descriptor = self._timer.fileno()
        epoll_set.watch(self.descriptor, READABLE)

    def start(self, origin_ns: int) -> None:
        """Start the schedule.

        Args:
            origin_ns: the instant 0 of the schedule, on the monotonic clock.
        """
        self._origin_ns = origin_ns
        self._advance()

    def timer_is_ready(self) -> None:
        """Note that the timer has expired: it stays readable until it is set again."""
        self._timer_ns = 0

    def dispatch(self) -> None:
        """Send due messages on free connections, and set the timer for the next message."""
        free = self.free
        now = time.monotonic_ns()
        self._free_since_ns = min(self._free_since_ns, now)
        while self.due_ns <= now and free:
            connection = free.popleft()
            if connection.fileno() < 0 or connection.sequence >= connection.stop_at:
                continue
            due_ns = self.due_ns
            if due_ns >= self._free_since_ns:
                # Otherwise no connection was free: the message waited for the target.
                self._recorder.times.lateness.append(now - due_ns)
            self._advance()
            self._send(connection, due_ns, now)
            now = time.monotonic_ns()
        if not free:
            self._free_since_ns = NEVER
        # If no connection is free, the next reply triggers sending.
        instant_ns = max(self.due_ns, now + _TOGETHER_NS) if free else NEVER
        # A timer that expires earlier does no harm: it leads here again.
        if not now < self._timer_ns <= instant_ns:
            self._timer_ns = instant_ns
            self._timer.set(instant_ns)

    @property
    def through(self) -> bool:
        """Whether all messages of a limited number have left."""
        return self.due_ns == NEVER and self._schedule.through

    def rest(self, until_ns: int) -> int:
        """End the schedule, and return how many messages were still due until an instant."""
        overdue = self.due_ns <= until_ns
        self.due_ns = NEVER
        return overdue + self._schedule.rest(until_ns - self._origin_ns)

    def close(self) -> None:
        """Close the timer."""
        self._timer.close()

    def _advance(self) -> None:
        instant = next(self._schedule, None)
        self.due_ns = NEVER if instant is None else self._origin_ns + instant
