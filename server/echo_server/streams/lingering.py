"""Connections that the server has ended, until their peers have ended them, too.

close(2) answers bytes that it finds unread, or that arrive later, with a reset. Because of it a
peer may lose what it has not read yet, and the end of the stream as well. Therefore a connection is
closed in two steps, as RFC 9112 (section 9.6) recommends: end the stream; then receive and discard
until the peer has closed.
"""

from __future__ import annotations

import os
import select
import time

import gevent
from gevent import monkey

# Long enough for a round trip around the world.
LINGER_SECONDS = 0.5
_POLL_SECONDS = 0.005
_DISCARDED_AT_ONCE = 64 * 1024


class Lingering:
    """Connections that have sent the end of the stream, and discard what they receive.

    It is made for the last moments of a process: it needs no other descriptors than those of the
    connections, and polls them.
    """

    def __init__(self) -> None:
        self._descriptors: set[int] = set()
        # Not gevent's poll, which watches each descriptor anew in each call.
        self._poll: select.poll = monkey.get_original("select", "poll")()

    def add(self, descriptor: int) -> None:
        """Keep a non-blocking connection open, although its owner then closes its descriptor.

        If no descriptor is left for that, the connection ends when its owner closes it.
        """
        try:
            duplicate = os.dup(descriptor)
        except OSError:
            return
        self._descriptors.add(duplicate)
        self._poll.register(duplicate, select.POLLIN)

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until the peers have closed, and close all connections."""
        deadline = time.monotonic() + timeout
        self._discard()
        while self._descriptors and (left := deadline - time.monotonic()) > 0:
            gevent.sleep(min(_POLL_SECONDS, left))
            self._discard()
        for descriptor in list(self._descriptors):
            self._end(descriptor)

    def _discard(self) -> None:
        """Discard what has arrived, and end the connections that the peers have closed."""
        for descriptor, _ in self._poll.poll(0):
            try:
                is_over = not os.read(descriptor, _DISCARDED_AT_ONCE)
            except BlockingIOError:
                continue
            except OSError:
                # The peer has reset the connection, or has gone.
                is_over = True
            if is_over:
                self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        self._descriptors.remove(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
