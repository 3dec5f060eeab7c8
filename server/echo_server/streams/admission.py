"""Admission of connections within the limits, and counting of their beginning and end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import structlog

from echo_server.config import ServerConfig
from echo_server.metrics.counters import Counter, Counters
from echo_server.streams.connection import Connection, ip_address

log = structlog.get_logger()

WARNING_PERIOD_SECONDS = 10.0
# A name for the hot path: an attribute of an enumeration costs more than counting does.
_ACCEPTED = int(Counter.ACCEPTED)


class Admission:
    """Keeps the limits on the number of connections of this process and of all together.

    A connection is reserved before it is admitted and counted: two processes that try to reserve
    the last one at the same time may both be refused, but are never both admitted.

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
        self._waiting: list[Callable[[], None]] = []
        self._warned_at = -WARNING_PERIOD_SECONDS
        # Calling the logger for a line that is not written costs as much as all the counting.
        self._debug = config.log_level == "debug"

    def reserve(self) -> bool:
        """Reserve one more connection; return False if that would exceed the limit.

        Where connections wait, this comes before one is accepted; otherwise `admit` does it.
        """
        self._counters.reserved[0] += 1
        if self._most is None or self._counters.table.reserved() <= self._most:
            return True
        self._counters.reserved[0] -= 1
        self._warn()
        return False

    def cancel(self) -> None:
        """Release the reservation of a connection that was not accepted."""
        self._counters.reserved[0] -= 1

    def when_released(self, call: Callable[[], None]) -> None:
        """Call once, as soon as a connection of this process has been released."""
        if call not in self._waiting:
            self._waiting.append(call)

    def admit(self, connection: Connection, *, identified: bool = True) -> bool:
        """Count a connection as accepted, or count why it was rejected.

        Args:
            connection: accepted from a listener.
            identified: its address is known; otherwise `identify` is called once it is.
        """
        if not (self.waits or self.reserve()):
            self._reject(connection, Counter.REJECTED_MAX_CONNECTIONS)
            return False
        connection.address = ""
        if identified and not self.identify(connection):
            self.cancel()
            self._call_waiting()
            return False
        if self._access_log:
            connection.accepted_at = time.monotonic()
            # It may end before it is echoed.
            connection.received = 0
            connection.unsent = b""
        self._counters.cells[_ACCEPTED] += 1
        return True

    def identify(self, connection: Connection) -> bool:
        """Count a connection under its address, or reject it if that has too many."""
        if self._most_per_ip is not None:
            address = ip_address(connection.sockaddr)
            others = self._per_ip.get(address, 0)
            if others >= self._most_per_ip:
                self._reject(connection, Counter.REJECTED_MAX_CONNECTIONS_PER_IP)
                return False
            if address:
                self._per_ip[address] = others + 1
                # Kept for `release`: the name of an interface in it may change meanwhile.
                connection.address = address
        if self._debug:
            log.debug("connection accepted", peer=connection.peer)
        return True

    def release(self, connection: Connection, reason: Counter, why: str | None = None) -> None:
        """Count the end of an admitted connection.

        Args:
            connection: which.
            reason: what it is counted as.
            why: what its handshake failed for, if it did.
        """
        if connection.address:
            self._forget_address(connection.address)
        if self._debug and why is not None:
            log.debug("handshake failed", peer=connection.peer, reason=reason.label, why=why)
        elif self._debug:
            log.debug("connection closed", peer=connection.peer, reason=reason.label)
        # In this order: there are never more connections open than reserved.
        self._counters.cells[reason] += 1
        self.cancel()
        if self._access_log and random.random() < self._access_log:  # noqa: S311  # a sample
            log.info(
                "connection",
                peer=connection.peer,
                received_bytes=connection.received,
                sent_bytes=connection.received - len(connection.unsent),
                seconds=round(time.monotonic() - connection.accepted_at, 6),
                reason=reason.label,
            )
        self._call_waiting()

    def _call_waiting(self) -> None:
        if self._waiting:
            calls, self._waiting = self._waiting, []
            for call in calls:
                call()

    def _reject(self, connection: Connection, reason: Counter) -> None:
        self._counters.add(reason)
        log.debug("connection rejected", peer=connection.peer, reason=reason.label)

    def _forget_address(self, address: str) -> None:
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
