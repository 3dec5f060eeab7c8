"""The hub engine's open loop: messages are sent when they are due, on free connections."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from echo_core.epoll_set import READABLE, EpollSet
from echo_load.engines.hub.connection import HubConnection
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import NEVER
from echo_load.engines.timers import InstantTimer
from echo_load.plan.pacing import Schedule

# Overdue messages are distributed over up to this number of free connections.
_SPREAD = 16
# Waking up for a message takes longer than sending it: messages due within this time are sent
# together.
_TOGETHER_NS = 50_000
# Messages are sent on up to this number of connections before replies are received. Otherwise a
# generator that is behind would only send, and replies would count as late that had arrived.
_MOST_SENDS = 64


class Sender(Protocol):
    """The interface through which the dispatcher sends messages; see `exchange.Exchange`."""

    pipeline: int
    batch: int

    def capacity(self, connection: HubConnection) -> int:
        """Return the number of messages that can be sent on a connection with one `send`."""

    def send(
        self, connection: HubConnection, count: int, now: int, due_ns: Sequence[int] = ()
    ) -> None:
        """Send a connection's next messages."""


class Dispatcher:
    """A sender of the messages that are due, on the connections that have been free the longest.

    Several messages that are due are distributed evenly over some free connections; the messages of
    a connection are sent together.

    Args:
        schedule: schedule of the messages.
        epoll_set: watches the timer; the engine calls `timer_is_ready` for its descriptor.
        recorder: receives the lateness of messages.
        sender: sends the messages.

    Attributes:
        descriptor: descriptor of the timer.
        due_ns: instant at which the next message is due, in nanoseconds of the monotonic clock;
            `NEVER` if there is none.
    """

    def __init__(
        self, schedule: Schedule, epoll_set: EpollSet, recorder: Recorder, sender: Sender
    ) -> None:
        self.due_ns = NEVER
        # Connections on which messages can be sent, each of them once.
        self._free: deque[HubConnection] = deque()
        self._schedule = schedule
        self._recorder = recorder
        self._sender = sender
        self._origin_ns = 0
        # The instant since which at least one connection has been free at any time.
        self._free_since_ns = NEVER
        self._timer = InstantTimer()
        self._timer_ns = NEVER
        self.descriptor = self._timer.fileno()
        epoll_set.watch(self.descriptor, READABLE)

    def start(self, origin_ns: int) -> None:
        """Start the schedule.

        Args:
            origin_ns: instant 0 of the schedule, in nanoseconds of the monotonic clock.
        """
        self._origin_ns = origin_ns
        self._advance()

    def timer_is_ready(self) -> None:
        """Handle the expiry of the timer, whose descriptor is readable until it is set again."""
        self._timer_ns = 0

    def add(self, connection: HubConnection) -> None:
        """Add a connection on which messages can be sent."""
        if not connection.queued:
            connection.queued = True
            self._free.append(connection)

    def dispatch(self) -> None:
        """Send due messages on free connections, and set the timer for the next message."""
        free = self._free
        capacity, send, batch = self._sender.capacity, self._sender.send, self._sender.batch
        pipelined = self._sender.pipeline > 1
        now = time.monotonic_ns()
        self._free_since_ns = min(self._free_since_ns, now)
        sends = 0
        while self.due_ns <= now and free and sends < _MOST_SENDS:
            connection = free.popleft()
            connection.queued = False
            if connection.fileno() < 0 or (most := capacity(connection)) <= 0:
                continue
            if most < batch and self._waiting(now) >= batch:
                # Not before its next reply: otherwise runs would shrink to single messages, as
                # segments do in the silly window syndrome (RFC 813).
                continue
            due_ns = [self.due_ns] if most == 1 else self._take(now, most)
            if due_ns[0] >= self._free_since_ns:
                # Otherwise no connection was free, and the target caused the delay.
                self._recorder.times.lateness.extend([now - one for one in due_ns])
            self._advance()
            send(connection, len(due_ns), now, due_ns)
            sends += 1
            if pipelined and connection.fileno() >= 0 and capacity(connection) > 0:
                self.add(connection)
            now = time.monotonic_ns()
        if not free:
            self._free_since_ns = NEVER
        # If no connection is free, the next reply calls this again.
        instant_ns = max(self.due_ns, now + _TOGETHER_NS) if free else NEVER
        # A timer that is set to an earlier instant may stay: when it expires, it is set again.
        if not now < self._timer_ns <= instant_ns:
            self._timer_ns = instant_ns
            self._timer.set(instant_ns)

    @property
    def through(self) -> bool:
        """True if the number of messages is limited, and all of them were sent."""
        return self.due_ns == NEVER and self._schedule.through

    def rest(self, until_ns: int) -> int:
        """End the schedule; return the number of messages that were due and not sent.

        Args:
            until_ns: instant up to which they were due, in nanoseconds of the monotonic clock.
        """
        overdue = self.due_ns <= until_ns
        self.due_ns = NEVER
        return overdue + self._schedule.rest(until_ns - self._origin_ns)

    def close(self) -> None:
        """Close the timer."""
        self._timer.close()

    def _take(self, now: int, most: int) -> list[int]:
        """Return the instants of the messages to send on a free connection, up to `most`."""
        origin_ns, schedule = self._origin_ns, self._schedule
        share = self._waiting(now) // min(len(self._free) + 1, _SPREAD)
        more = schedule.take(min(most - 1, share))
        return [self.due_ns, *(origin_ns + instant for instant in more)]

    def _waiting(self, now: int) -> int:
        """Return the number of messages that are due after the next one, if already computed."""
        return self._schedule.count_until(now - self._origin_ns)

    def _advance(self) -> None:
        """Set `due_ns` to the next instant of the schedule."""
        instant = next(self._schedule, None)
        self.due_ns = NEVER if instant is None else self._origin_ns + instant
