"""When each of the hub engine's connections is open, where stages set their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from echo_load.engines.hub.connection import ConnectionSlot, HubConnection
from echo_load.engines.hub.timer_queue import TimerQueue
from echo_load.engines.share import Share
from echo_load.plan.pacing import Timeline

Span = tuple[float, float]


class Lifetimes:
    """The periods in which each connection of a share is open.

    A connection that is still being opened, or closed, when its next period begins is not opened
    twice: it continues, or is opened again once it is closed.

    Args:
        share: whose connections.
        timeline: the number of connections over time.
    """

    def __init__(self, share: Share, timeline: Timeline) -> None:
        self._share = share
        self._spans: dict[int, Iterator[Span]] = {
            number: timeline.lifetimes(number) for number in share.numbers
        }
        self._next: dict[int, Span] = {}
        self._alive: set[int] = set()
        # Open, being opened, or to be tried again.
        self._busy: set[int] = set()
        self._slots = {number: ConnectionSlot(number) for number in share.numbers}
        self._connections: dict[int, HubConnection] = {}
        self._begin: Callable[[ConnectionSlot], None] | None = None
        for number in share.numbers:
            self._advance(number)

    def first(self) -> list[ConnectionSlot]:
        """Return the slots of the connections that are open from the beginning."""
        first = [number for number, (begin, _) in self._next.items() if begin == -math.inf]
        self._alive.update(first)
        self._busy.update(first)
        return [self._slots[number] for number in first]

    def start(
        self,
        origin_ns: int,
        timer_queue: TimerQueue,
        begin: Callable[[ConnectionSlot], None],
        end: Callable[[HubConnection], None],
    ) -> None:
        """Start to open and close connections over time.

        Args:
            origin_ns: the instant 0 of the timeline, on the monotonic clock.
            timer_queue: calls at the instants.
            begin: called when a connection is to be opened.
            end: called with a connection when it is to be closed.
        """
        self._begin = begin

        def plan(number: int) -> None:
            if number not in self._next:
                return
            span = self._next[number]
            if span[0] == -math.inf:
                open_one(number)
            else:
                timer_queue.at(origin_ns + int(span[0] * 1e9), lambda: open_one(number))

        def open_one(number: int) -> None:
            _, until = self._next[number]
            self._advance(number)
            self._alive.add(number)
            self._wake(number)
            if until != math.inf:
                timer_queue.at(origin_ns + int(until * 1e9), lambda: close_one(number))

        def close_one(number: int) -> None:
            self._alive.discard(number)
            if (connection := self._connections.get(number)) is not None:
                end(connection)
            plan(number)

        for number in list(self._spans):
            plan(number)

    def is_alive(self, slot: ConnectionSlot) -> bool:
        """Return whether a connection is to be opened; otherwise it rests until its next period."""
        alive = slot.number in self._alive
        if not alive:
            self._slots[slot.number] = slot
            self._busy.discard(slot.number)
        return alive

    def is_to_go_on(self) -> bool:
        """Return whether a connection that has messages left is to be opened later."""
        return any(not self._is_through(number) for number in self._next)

    def add(self, connection: HubConnection) -> bool:
        """Note that a connection is open; return False if its period is over already."""
        self._connections[connection.number] = connection
        return connection.number in self._alive

    def close(self, connection: HubConnection) -> None:
        """Note that a connection was closed, and at which message."""
        self._connections.pop(connection.number, None)
        self._slots[connection.number] = connection.slot()

    def rest(self, number: int) -> None:
        """Note that a connection stays closed until its next period, which may have begun."""
        self._busy.discard(number)
        if number in self._alive:
            self._wake(number)

    def _wake(self, number: int) -> None:
        if number not in self._busy and self._begin is not None and not self._is_through(number):
            self._busy.add(number)
            self._begin(self._slots[number])

    def _is_through(self, number: int) -> bool:
        slot, quota = self._slots[number], self._share.quota(number)
        through = quota is not None and slot.sequence >= quota
        return through or self._share.gives_up(slot.failures)

    def _advance(self, number: int) -> None:
        span = next(self._spans[number], None)
        if span is None:
            self._next.pop(number, None)
        else:
            self._next[number] = span
