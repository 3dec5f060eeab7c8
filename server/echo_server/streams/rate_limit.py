"""The rate limit: a token bucket per connection, with one timer for all connections."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from gevent.hub import get_hub

from echo_server.streams.connection import Connection

log = structlog.get_logger()

# The interval at which suspended connections are checked.
TICK_SECONDS = 0.05


class RateLimit:
    """The rate limit of connections, which suspends those that exceed it.

    A token bucket has the size of a tenth of a second's bytes. It is refilled only when it is
    exhausted, so that the limit costs one comparison per message. A connection that was idle can
    therefore send twice the size of its bucket at once.

    Args:
        bytes_per_second: the maximum number of bytes per second that each connection may send.
        resume: called with a suspended connection when it may be read again.

    Attributes:
        burst: the size of a bucket in bytes, at least 1. If reads are not larger, a suspension
            lasts little more than a tenth of a second.
        suspended: for each suspended connection when it may be read again, in seconds of the
            monotonic clock.
    """

    def __init__(self, bytes_per_second: int, resume: Callable[[Connection], None]) -> None:
        self.burst = max(1, bytes_per_second // 10)
        self.suspended: dict[Connection, float] = {}
        self._rate = bytes_per_second
        self._resume = resume
        self._timer = get_hub().loop.timer(TICK_SECONDS, TICK_SECONDS)

    def start(self, connection: Connection) -> None:
        """Give a new connection a full bucket."""
        connection.allowance = self.burst
        connection.refilled_at = time.monotonic()

    def suspend_if_exceeded(self, connection: Connection) -> bool:
        """Refill the bucket of a connection; suspend it and return True if that is not enough."""
        now = time.monotonic()
        refill = int((now - connection.refilled_at) * self._rate)
        # Only whole bytes are refilled: the rest of the time counts for the next refill.
        connection.refilled_at += refill / self._rate
        left = min(self.burst, connection.allowance - connection.received + refill)
        connection.allowance = connection.received + left
        if left >= 0:
            return False
        if not self.suspended:
            self._timer.again(self._on_tick)
        self.suspended[connection] = now - left / self._rate
        return True

    def forget(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self.suspended.pop(connection, None)

    def close(self) -> None:
        """Stop the timer for good."""
        self._timer.stop()
        self._timer.close()

    def _on_tick(self) -> None:
        # An exception that escapes from a hub callback would stop its watcher for good.
        try:
            now = time.monotonic()
            for connection in [one for one, until in self.suspended.items() if until <= now]:
                del self.suspended[connection]
                self._resume(connection)
            if not self.suspended:
                self._timer.stop()
        except Exception:
            log.exception("rate limit failed")
