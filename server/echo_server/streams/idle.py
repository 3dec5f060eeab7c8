"""Closing of idle connections."""

from __future__ import annotations

import fcntl
import struct
import sys
import termios

import structlog
from gevent.hub import get_hub

from echo_server.metrics.counters import Counter
from echo_server.streams.connection import Connection
from echo_server.streams.echo_set import EchoSet

log = structlog.get_logger()

# A connection is ended between one timeout and 1 1/4 of it after its last byte.
SWEEPS_PER_TIMEOUT = 4
# More often would cost more than the connections do.
SHORTEST_SWEEP_SECONDS = 0.01


class IdleSweep:
    """A check of all connections, four times per timeout, with one timer for all.

    What the peer acknowledges moves: one that reads slowly from what the kernel still has to send
    is not idle. The kernel is asked (SIOCOUTQ, tcp(7), unix(7)) only where nothing else moved, and
    no more once it has nothing to send. A connection whose peer does not read what it sent is idle
    too; one that is held back on purpose is not.

    Args:
        echo_set: the connections.
        timeout: seconds without a byte received, sent or acknowledged.
    """

    def __init__(self, echo_set: EchoSet, timeout: float) -> None:
        self._echo_set = echo_set
        interval = max(timeout / SWEEPS_PER_TIMEOUT, SHORTEST_SWEEP_SECONDS)
        self._timer = get_hub().loop.timer(interval, interval)
        self._timer.start(self._on_tick)

    def close(self) -> None:
        """Stop checking for good."""
        self._timer.stop()
        self._timer.close()

    def _on_tick(self) -> None:
        # An exception that left a callback of the hub would stop its watcher for ever.
        try:
            idle = [one for one in self._echo_set.connections.values() if _is_idle(one)]
            for connection in idle:
                if self._echo_set.holds(connection):
                    connection.idle_sweeps = 0
                else:
                    self._echo_set.end(connection, Counter.CLOSED_IDLE)
        except Exception:
            log.exception("idle sweep failed")


def _is_idle(connection: Connection) -> bool:
    # Grows with every byte received and with every byte sent.
    progress = 2 * connection.received - len(connection.unsent)
    if progress != connection.progress:
        connection.progress = progress
        connection.unacknowledged = -1
        connection.idle_sweeps = 0
        return False
    if connection.unacknowledged:
        before = connection.unacknowledged
        connection.unacknowledged = _unacknowledged(connection)
        if connection.unacknowledged < before:
            connection.idle_sweeps = 0
            return False
    connection.idle_sweeps += 1
    return connection.idle_sweeps >= SWEEPS_PER_TIMEOUT


def _unacknowledged(connection: Connection) -> int:
    """Return the bytes that the peer has not acknowledged; 0 if the kernel does not tell."""
    if sys.platform != "linux":
        return 0
    # linux/sockios.h: SIOCOUTQ has the number of TIOCOUTQ.
    (size,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(size)
