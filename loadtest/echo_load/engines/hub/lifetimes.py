"""The periods in which each connection of the hub engine is open, if stages set their number."""

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

    If a connection is still being opened or closed when its next period begins, it is not opened
    twice: it stays open, or is opened again when it has been closed.

    Args:
        share: share of the generator.
        timeline: timeline of the number of connections.
    """

    def __init__(self, share: Share, timeline: Timeline) -> None:
        self._share = share
        self._spans: dict[int, Iterator[Span]] = {
            number: timeline.lifetimes(number) for number in share.numbers
        }
        self._next: dict[int, Span] = {}
        self._alive: set[int] = set()
        # Connections that are open, being opened, or waiting for another attempt.
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
            origin_ns: instant 0 of the timeline, in nanoseconds of the monotonic clock.
            timer_queue: queue for the beginnings and ends of periods.
            begin: called with a slot when its connection is to be opened.
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
        """Return whether to open a connection now; if not, keep its slot for the next period."""
        alive = slot.number in self._alive
        if not alive:
            self._slots[slot.number] = slot
            self._busy.discard(slot.number)
        return alive

    def is_to_go_on(self) -> bool:
        """Return whether a connection that has messages left has another period."""
        return any(not self._is_through(number) for number in self._next)

    def add(self, connection: HubConnection) -> bool:
        """Add a connection that is open; return False if its period is already over."""
        self._connections[connection.number] = connection
        return connection.number in self._alive

    def close(self, connection: HubConnection) -> None:
        """Remove a connection that was closed, and keep its slot."""
        self._connections.pop(connection.number, None)
        self._slots[connection.number] = connection.slot()

    def rest(self, number: int) -> None:
        """Leave a connection closed until its next period; open it if that has begun."""
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
