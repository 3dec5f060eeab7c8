"""Who is let in, and the books on who came and left."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import structlog

from echo_server.config import ServerConfig
from echo_server.connection import Connection, ip_address
from echo_server.counters import Counter, Counters

log = structlog.get_logger()

WARNING_PERIOD_SECONDS = 10.0
# A name for the hot path: an attribute of an enumeration costs more than counting does.
_ACCEPTED = int(Counter.ACCEPTED)


class Admission:
    """Keeps the limits on the number of connections of this process and of all together.

    A place is taken before a connection is let in and counted first: two processes that reach for
    the last place at once may both be turned away, but never both be let in.

    Args:
        config: the limits, and what is logged.
        counters: this process's row; the open connections of the others are in its table.

    Attributes:
        waits: beyond the limit, connections wait in the backlog instead of being closed.
    """

    def __init__(self, config: ServerConfig, counters: Counters) -> None:
        self.waits = config.max_connections is not None and config.when_full == "wait"
        self._most = config.max_connections
        self._most_per_ip = config.max_connections_per_ip
        self._access_log = config.access_log
        self._counters = counters
        self._per_ip: dict[str, int] = {}
        self._on_room: list[Callable[[], None]] = []
        self._warned_at = -WARNING_PERIOD_SECONDS
        # A line that is not written costs as much as all the counting.
        self._debug = config.log_level == "debug"

    def take_place(self) -> bool:
        """Take a place for one more connection; False if there is none."""
        self._counters.places[0] += 1
        if self._most is None or self._counters.table.places_taken() <= self._most:
            return True
        self._counters.places[0] -= 1
        self._warn()
        return False

    def give_back_place(self) -> None:
        """Leave a place that no connection has come for."""
        self._counters.places[0] -= 1

    def when_room(self, call: Callable[[], None]) -> None:
        """Call once, as soon as a connection of this process has left."""
        if call not in self._on_room:
            self._on_room.append(call)

    def find_place(self, connection: Connection) -> bool:
        """Take a place for an accepted connection, or count that it was turned away.

        Where connections wait for a place, this one has had it since before it was accepted.
        """
        if self.waits or self.take_place():
            return True
        self._reject(connection, Counter.REJECTED_MAX_CONNECTIONS)
        return False

    def accept(self, connection: Connection) -> None:
        """Count a connection that has a place."""
        if self._access_log:
            connection.since = time.monotonic()
            # It may end before it is echoed.
            connection.received = 0
            connection.unsent = b""
        self._counters.cells[_ACCEPTED] += 1

    def enter(self, connection: Connection) -> bool:
        """Let in a connection that has a place, or count that it was rejected."""
        if self._most_per_ip is not None and not self._enter_address(connection):
            self._reject(connection, Counter.REJECTED_MAX_CONNECTIONS_PER_IP)
            return False
        if self._debug:
            log.debug("connection accepted", peer=connection.peer)
        return True

    def turn_away(self) -> None:
        """Give back the place of a connection that was rejected before it was accepted."""
        self.give_back_place()
        self._make_room()

    def refuse(self, connection: Connection, reason: Counter, why: str) -> None:
        """Count the end of an accepted connection before the echo began."""
        if self._debug:
            log.debug("handshake failed", peer=connection.peer, reason=reason.label, why=why)
        self._end(connection, reason)

    def leave(self, connection: Connection, reason: Counter) -> None:
        """Count a connection that was let in and has ended."""
        if self._most_per_ip is not None:
            self._leave_address(connection.address)
        if self._debug:
            log.debug("connection closed", peer=connection.peer, reason=reason.label)
        self._end(connection, reason)

    def _end(self, connection: Connection, reason: Counter) -> None:
        # In this order: there are never more connections open than places taken.
        self._counters.cells[reason] += 1
        self.give_back_place()
        if self._access_log and random.random() < self._access_log:  # noqa: S311  # a sample
            log.info(
                "connection",
                peer=connection.peer,
                received_bytes=connection.received,
                sent_bytes=connection.received - len(connection.unsent),
                seconds=round(time.monotonic() - connection.since, 6),
                reason=reason.label,
            )
        self._make_room()

    def _make_room(self) -> None:
        if self._on_room:
            calls, self._on_room = self._on_room, []
            for call in calls:
                call()

    def _reject(self, connection: Connection, reason: Counter) -> None:
        self._counters.add(reason)
        log.debug("connection rejected", peer=connection.peer, reason=reason.label)

    def _enter_address(self, connection: Connection) -> bool:
        address = ip_address(connection.sockaddr)
        others = self._per_ip.get(address, 0)
        if address and others >= (self._most_per_ip or 0):
            return False
        self._per_ip[address] = others + 1
        # Asked again, the name of an interface in it may be another.
        connection.address = address
        return True

    def _leave_address(self, address: str) -> None:
        left = self._per_ip[address] - 1
        if left:
            self._per_ip[address] = left
        else:
            del self._per_ip[address]

    def _warn(self) -> None:
        now = time.monotonic()
        if now - self._warned_at >= WARNING_PERIOD_SECONDS:
            self._warned_at = now
            log.warning(
                "connection limit reached",
                max_connections=self._most,
                beyond="waits" if self.waits else "is closed",
            )
