"""Admission of connections within the limits, and counting of accepted and closed ones."""

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
# A constant for the hot path: the lookup of an enumeration's attribute costs more than counting.
_ACCEPTED = int(Counter.ACCEPTED)


class Admission:
    """The limits on open connections: over all workers, and per address in this worker.

    A connection is reserved before it is admitted and counted. If two processes try to reserve the
    last connection at the same time, both may fail, but they never both succeed.

    Args:
        config: the limits, and the settings of the logs.
        counters: the counters of this process; their table has the reservations of the others.

    Attributes:
        waits_when_full: True if connections beyond the limit wait in the backlog; False if they are
            closed.
    """

    def __init__(self, config: ServerConfig, counters: Counters) -> None:
        self.waits_when_full = config.max_connections is not None and config.when_full == "wait"
        self._max_connections = config.max_connections
        self._max_per_ip = config.max_connections_per_ip
        self._access_log = config.access_log
        self._counters = counters
        self._per_ip: dict[str, int] = {}
        self._waiting: list[Callable[[], None]] = []
        self._warned_at = -WARNING_PERIOD_SECONDS
        # A call of the logger costs as much as all the counting, even if the line is suppressed.
        self._debug = config.log_level == "debug"

    def reserve(self) -> bool:
        """Reserve a connection; return False if that would exceed the limit over all workers.

        If `waits_when_full`, call this before accepting a connection; otherwise `admit` calls it.
        """
        self._counters.reserved[0] += 1
        if (
            self._max_connections is None
            or self._counters.table.reserved() <= self._max_connections
        ):
            return True
        self._counters.reserved[0] -= 1
        self._warn()
        return False

    def cancel(self) -> None:
        """Release the reservation of a connection that was not accepted."""
        self._counters.reserved[0] -= 1

    def when_released(self, call: Callable[[], None]) -> None:
        """Call a function once, when a connection of this process is released."""
        if call not in self._waiting:
            self._waiting.append(call)

    def admit(self, connection: Connection, *, address_known: bool = True) -> bool:
        """Count a connection as accepted, or count it as rejected and return False.

        Args:
            connection: a connection accepted from a listener.
            address_known: False if the client's address is known only after the handshake, when
                `admit_address` is to be called.
        """
        if not (self.waits_when_full or self.reserve()):
            self._reject(connection, Counter.REJECTED_MAX_CONNECTIONS)
            return False
        connection.address = ""
        if address_known and not self.admit_address(connection):
            self.cancel()
            self._call_waiting()
            return False
        if self._access_log:
            connection.accepted_at = time.monotonic()
            # It may end before the echo set initialises these.
            connection.received = 0
            connection.unsent = b""
        self._counters.cells[_ACCEPTED] += 1
        return True

    def admit_address(self, connection: Connection) -> bool:
        """Count a connection for its address, or count it as rejected and return False."""
        if self._max_per_ip is not None:
            address = ip_address(connection.sockaddr)
            others = self._per_ip.get(address, 0)
            if others >= self._max_per_ip:
                self._reject(connection, Counter.REJECTED_MAX_CONNECTIONS_PER_IP)
                return False
            if address:
                self._per_ip[address] = others + 1
                # Kept for `release`: the name of an interface in the address may change.
                connection.address = address
        if self._debug:
            log.debug("connection accepted", peer=connection.peer)
        return True

    def release(self, connection: Connection, reason: Counter, why: str | None = None) -> None:
        """Count an admitted connection as closed, and release its reservation.

        Args:
            connection: the connection.
            reason: the counter of the reason.
            why: why its handshake failed; None if it did not.
        """
        if connection.address:
            self._forget_address(connection.address)
        if self._debug and why is not None:
            log.debug("handshake failed", peer=connection.peer, reason=reason.label, why=why)
        elif self._debug:
            log.debug("connection closed", peer=connection.peer, reason=reason.label)
        # In this order, so that there are never more open connections than reserved ones.
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
                max_connections=self._max_connections,
                beyond="waits" if self.waits_when_full else "is closed",
            )
