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

# A connection is closed between 1 and 1.25 timeouts after its last byte.
SWEEPS_PER_TIMEOUT = 4
# More frequent sweeps would cost more than the echo.
SHORTEST_SWEEP_SECONDS = 0.01


class IdleSweep:
    """A sweep over all connections, four times per timeout, that closes the idle ones.

    A connection is idle if no byte is received, sent or acknowledged. Acknowledgements count since
    a peer may slowly read what the kernel's send buffer still contains. The kernel is queried for
    them (SIOCOUTQ, tcp(7), unix(7)) only if no byte was received or sent, and not again once the
    buffer is empty. A connection whose peer does not read becomes idle; one that is suspended by
    the rate limit or a fault does not.

    Args:
        echo_set: the connections.
        timeout: the idle timeout in seconds.
    """

    def __init__(self, echo_set: EchoSet, timeout: float) -> None:
        self._echo_set = echo_set
        interval = max(timeout / SWEEPS_PER_TIMEOUT, SHORTEST_SWEEP_SECONDS)
        self._timer = get_hub().loop.timer(interval, interval)
        self._timer.start(self._on_tick)

    def close(self) -> None:
        """Stop the sweeps for good."""
        self._timer.stop()
        self._timer.close()

    def _on_tick(self) -> None:
        # An exception that escapes from a hub callback would stop its watcher for good.
        try:
            idle = [one for one in self._echo_set.connections.values() if _is_idle(one)]
            for connection in idle:
                if self._echo_set.is_suspended(connection):
                    connection.idle_sweeps = 0
                    continue
                # If this process did not run for a while, the bytes of a busy peer are still here.
                self._echo_set.echo_arrived(connection)
                if not connection.is_closed and connection.progress == _progress(connection):
                    connection.end_both_ways()
                    self._echo_set.end(connection, Counter.CLOSED_IDLE)
        except Exception:
            log.exception("idle sweep failed")


def _is_idle(connection: Connection) -> bool:
    """Compare a connection with the last sweep; return True if the timeout has passed."""
    progress = _progress(connection)
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


def _progress(connection: Connection) -> int:
    """Return the number of bytes received plus the number of bytes sent."""
    return 2 * connection.received - len(connection.unsent)


def _unacknowledged(connection: Connection) -> int:
    """Return the number of bytes that the peer has not acknowledged; 0 if it is unknown."""
    if sys.platform != "linux":
        return 0
    # SIOCOUTQ and TIOCOUTQ are the same number (linux/sockios.h).
    (size,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(size)
