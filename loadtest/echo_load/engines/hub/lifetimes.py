"""Which of the hub engine's connections are open when, where stages say how many are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from echo_load.engines.hub.connection import HubConnection, Place
from echo_load.engines.hub.timer_queue import Later
from echo_load.engines.share import Share
from echo_load.plan.pacing import Timeline

Span = tuple[float, float]


class Lives:
    """The times in which each connection of a share is open.

    A connection that is still being opened, or closed, when its next time begins is not opened a
    second time: it goes on, or is opened again once it is closed.

    Args:
        share: whose connections.
        timeline: the number of connections over time.
    """

    def __init__(self, share: Share, timeline: Timeline) -> None:
        self._share = share
        self._spans: dict[int, Iterator[Span]] = {
            number: timeline.lives(number) for number in share.numbers
        }
        self._next: dict[int, Span] = {}
        self._alive: set[int] = set()
        # Open, being opened, or to be tried again.
        self._busy: set[int] = set()
        self._places = {number: Place(number) for number in share.numbers}
        self._connections: dict[int, HubConnection] = {}
        self._begin: Callable[[Place], None] | None = None
        for number in share.numbers:
            self._advance(number)

    def first(self) -> list[Place]:
        """The connections that are open from the beginning."""
        first = [number for number, (begin, _) in self._next.items() if begin == -math.inf]
        self._alive.update(first)
        self._busy.update(first)
        return [self._places[number] for number in first]

    def start(
        self,
        origin_ns: int,
        later: Later,
        begin: Callable[[Place], None],
        end: Callable[[HubConnection], None],
    ) -> None:
        """Let connections begin and end from now on.

        Args:
            origin_ns: the instant 0 of the timeline, on the monotonic clock.
            later: where the instants are noted.
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
                later.at(origin_ns + int(span[0] * 1e9), lambda: open_one(number))

        def open_one(number: int) -> None:
            _, until = self._next[number]
            self._advance(number)
            self._alive.add(number)
            self._wake(number)
            if until != math.inf:
                later.at(origin_ns + int(until * 1e9), lambda: close_one(number))

        def close_one(number: int) -> None:
            self._alive.discard(number)
            if (connection := self._connections.get(number)) is not None:
                end(connection)
            plan(number)

        for number in list(self._spans):
            plan(number)

    def is_alive(self, place: Place) -> bool:
        """Whether a connection is to be opened; one that is not rests until its next time."""
        alive = place.number in self._alive
        if not alive:
            self._places[place.number] = place
            self._busy.discard(place.number)
        return alive

    def is_to_go_on(self) -> bool:
        """Whether a connection that has messages left is to be opened later."""
        return any(not self._is_through(number) for number in self._next)

    def add(self, connection: HubConnection) -> bool:
        """Note that a connection is open; False if its time is over already."""
        self._connections[connection.number] = connection
        return connection.number in self._alive

    def close(self, connection: HubConnection) -> None:
        """Note that a connection was closed, and how far it has come."""
        self._connections.pop(connection.number, None)
        self._places[connection.number] = connection.place()

    def rest(self, number: int) -> None:
        """Note that a connection is not opened anew, until its next time, which may be now."""
        self._busy.discard(number)
        if number in self._alive:
            self._wake(number)

    def _wake(self, number: int) -> None:
        if number not in self._busy and self._begin is not None and not self._is_through(number):
            self._busy.add(number)
            self._begin(self._places[number])

    def _is_through(self, number: int) -> bool:
        place, quota = self._places[number], self._share.quota(number)
        through = quota is not None and place.sequence >= quota
        return through or self._share.gives_up(place.failures)

    def _advance(self, number: int) -> None:
        span = next(self._spans[number], None)
        if span is None:
            self._next.pop(number, None)
        else:
            self._next[number] = span
