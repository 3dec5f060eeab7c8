"""Which of the hub engine's connections are open when, where stages say how many are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from echo_load.engines import Share
from echo_load.engines.hub_connection import HubConnection, Place
from echo_load.engines.later import Later
from echo_load.pacing import Timeline

Span = tuple[float, float]


class Lives:
    """The times in which each connection of a share is open.

    Args:
        share: whose connections.
        timeline: the number of connections over time.
    """

    def __init__(self, share: Share, timeline: Timeline) -> None:
        self._spans: dict[int, Iterator[Span]] = {
            number: timeline.lives(number) for number in share.numbers
        }
        self._next: dict[int, Span] = {}
        self._alive: set[int] = set()
        self._connections: dict[int, HubConnection] = {}
        self._places: dict[int, Place] = {}
        for number in share.numbers:
            self._advance(number)

    @property
    def over(self) -> bool:
        """No connection is to be opened any more."""
        return not self._next

    def first(self) -> list[int]:
        """The connections that are open from the beginning."""
        first = [number for number, (begin, _) in self._next.items() if begin == -math.inf]
        self._alive.update(first)
        return first

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
            if number not in self._alive:
                self._alive.add(number)
                begin(self._places.pop(number, Place(number)))
            if until != math.inf:
                later.at(origin_ns + int(until * 1e9), lambda: close_one(number))

        def close_one(number: int) -> None:
            self._alive.discard(number)
            if (connection := self._connections.get(number)) is not None:
                end(connection)
            plan(number)

        for number in list(self._spans):
            plan(number)

    def add(self, connection: HubConnection) -> bool:
        """Note that a connection is open; False if its time is over already."""
        self._connections[connection.number] = connection
        return connection.number in self._alive

    def remove(self, connection: HubConnection) -> None:
        """Note that a connection was closed."""
        if self._connections.get(connection.number) is connection:
            del self._connections[connection.number]
        self._places[connection.number] = connection.place()

    def _advance(self, number: int) -> None:
        span = next(self._spans[number], None)
        if span is None:
            self._next.pop(number, None)
        else:
            self._next[number] = span
