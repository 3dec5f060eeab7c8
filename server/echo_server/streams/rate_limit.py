"""The rate limit: a token bucket per connection, with one timer for all."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from gevent.hub import get_hub

from echo_server.streams.connection import Connection

log = structlog.get_logger()

# The interval at which held connections are checked.
TICK_SECONDS = 0.05


class RateLimit:
    """Holds connections that exceed their rate until they may be read again.

    A bucket holds what may come in a tenth of a second. It is refilled only when it is empty: a
    connection that keeps within its limit costs a comparison a message. One that was idle may send
    two buckets at once.

    Args:
        bytes_per_second: what each connection may send.
        resume: called with a held connection when it may send again.

    Attributes:
        burst: size of a bucket in bytes; at least 1. A connection that is read at most so much at
            once is held for little longer than a tenth of a second.
        held: the connections that wait, and until when, in seconds of the monotonic clock.
    """

    def __init__(self, bytes_per_second: int, resume: Callable[[Connection], None]) -> None:
        self.burst = max(1, bytes_per_second // 10)
        self.held: dict[Connection, float] = {}
        self._rate = bytes_per_second
        self._resume = resume
        self._timer = get_hub().loop.timer(TICK_SECONDS, TICK_SECONDS)

    def start(self, connection: Connection) -> None:
        """Give a new connection a full bucket."""
        connection.allowance = self.burst
        connection.refilled_at = time.monotonic()

    def holds(self, connection: Connection) -> bool:
        """Refill the empty bucket of a connection; return True if the connection must wait."""
        now = time.monotonic()
        refill = int((now - connection.refilled_at) * self._rate)
        # A fraction of a byte still counts the next time.
        connection.refilled_at += refill / self._rate
        left = min(self.burst, connection.allowance - connection.received + refill)
        connection.allowance = connection.received + left
        if left >= 0:
            return False
        if not self.held:
            self._timer.again(self._on_tick)
        self.held[connection] = now - left / self._rate
        return True

    def forget(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.held.pop(connection, None)

    def close(self) -> None:
        """Stop the timer for good."""
        self._timer.stop()
        self._timer.close()

    def _on_tick(self) -> None:
        # An exception that left a callback of the hub would stop its watcher for ever.
        try:
            now = time.monotonic()
            for connection in [one for one, until in self.held.items() if until <= now]:
                del self.held[connection]
                self._resume(connection)
            if not self.held:
                self._timer.stop()
        except Exception:
            log.exception("rate limit failed")
