"""Wakes the users of a swarm when replies come, with one epoll set for all connections.

gevent's own sockets try to receive, fail, start a watcher and a timer, switch, stop both, and try
again. Here a connection is registered once, edge-triggered (epoll(7)), and one timer handles all
late replies: a round trip costs a write, a switch and a read.
"""

from __future__ import annotations

import os
import time
from functools import cache

import gevent
from gevent.monkey import get_original
from gevent.socket import wait_write
from greenlet import getcurrent

from echo_client.deadlines import is_late
from echo_client.errors import ClosedError, ReplyTimeoutError, lost
from echo_core.epoll_set import READABLE, EpollSet, Ready
from echo_core.units import format_duration

# Messages up to this size go to the kernel with one write, and their replies are small.
AT_ONCE = 16 * 1024
# Of epoll_ctl(2): reported once each time something comes.
_EDGE_TRIGGERED = 1 << 31
# Error, hang-up, end of the stream: reported once as well, and true from then on.
_ERROR, _HANG_UP, _END = 0x008, 0x010, 0x2000
_OVER = _ERROR | _HANG_UP | _END
# The buffer of a read is allocated first, and a large one costs more than a small reply.
_SMALL, _LARGE = 1024, 64 * 1024
# A late reply may be noticed this much later.
_SWEEP_SECONDS = 0.05


class Line:
    """The round trips of one connection, for its user.

    Args:
        descriptor: that of a connected, non-blocking stream.
        timeout: seconds that a round trip may take.
    """

    def __init__(self, descriptor: int, timeout: float) -> None:
        self.descriptor = descriptor
        # `ready`: there may be something to read; once `over`, there always is, if only the end.
        self.ready = False
        self.over = False
        self.waiting: gevent.Greenlet[..., object] | None = None
        self.deadline = 0.0
        self._timeout = timeout
        self._hub = gevent.get_hub()

    def round_trip(self, message: bytes) -> bytes:
        """Send a message and receive as many bytes, or more if more come along with them.

        Args:
            message: `AT_ONCE` bytes at most.

        Raises:
            ReplyTimeoutError: fewer bytes came within the timeout.
            LostError: the connection broke or ended.
        """
        size = len(message)
        chunk = _SMALL if size < _SMALL else _LARGE
        reply = b""
        self.deadline = time.monotonic() + self._timeout
        try:
            sent = os.write(self.descriptor, message)
            if sent < size:
                self._write(message[sent:])
            reply = self._read(chunk)
            while len(reply) < size:
                piece = self._read(chunk)
                if not piece:
                    raise ClosedError(
                        f"the server closed the connection after {len(reply)} of {size} bytes",
                        len(reply),
                    )
                reply += piece
        except TimeoutError as error:
            if not is_late(error):
                raise lost(error) from error
            raise ReplyTimeoutError(
                f"{len(reply)} of {size} bytes came back within {format_duration(self._timeout)}",
                reply,
            ) from error
        except OSError as error:
            raise lost(error) from error
        return reply

    def _read(self, chunk: int) -> bytes:
        while True:
            if not self.ready:
                self._wait()
            try:
                data = os.read(self.descriptor, chunk)
            except BlockingIOError:
                self.ready = False
                continue
            # What comes after this is reported again: epoll(7), on streams and incomplete reads.
            self.ready = len(data) == chunk or self.over
            return data

    def _write(self, rest: bytes) -> None:
        while rest:
            wait_write(self.descriptor, max(0.0, self.deadline - time.monotonic()))
            rest = rest[os.write(self.descriptor, rest) :]

    def _wait(self) -> None:
        self.waiting = getcurrent()  # type: ignore[assignment]  # a user's is one of gevent's
        try:
            self._hub.switch()
        finally:
            self.waiting = None


class Arrivals:
    """Knows which lines have something to read, and wakes their waiting users."""

    def __init__(self) -> None:
        loop = gevent.get_hub().loop
        self._lines: dict[int, Line] = {}
        self._set = EpollSet(loop, get_original("select", "epoll")(), self._on_ready)
        self._timer = loop.timer(_SWEEP_SECONDS, _SWEEP_SECONDS, ref=False)
        self._timer.start(self._sweep)

    def watch(self, line: Line) -> None:
        """Begin to wake a line's user."""
        self._set.watch(line.descriptor, READABLE | _END | _EDGE_TRIGGERED)
        self._lines[line.descriptor] = line

    def forget(self, line: Line) -> None:
        """Stop waking a line's user; to be called before its descriptor is closed."""
        del self._lines[line.descriptor]
        self._set.forget(line.descriptor)

    def _on_ready(self, ready: Ready) -> None:
        for descriptor, events in ready:
            line = self._lines.get(descriptor)
            if line is None:
                continue
            line.ready = True
            if events & _OVER:
                line.over = True
            if line.waiting is not None:
                line.waiting.switch()

    def _sweep(self) -> None:
        now = time.monotonic()
        for line in list(self._lines.values()):
            if line.waiting is not None and now >= line.deadline:
                line.waiting.throw(TimeoutError())


@cache
def arrivals() -> Arrivals:
    """The `Arrivals` of this process."""
    return Arrivals()
