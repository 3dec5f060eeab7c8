"""Round trips of locust users, on one epoll set for all connections.

To receive, a socket of gevent tries a read, which fails, starts a watcher and a timer, switches,
stops both, and reads again. Here a connection is registered once, edge-triggered (epoll(7)), and
one timer handles all timeouts: a round trip takes a write, a switch and a read.
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

# Largest size in bytes of a message that usually takes a single write.
AT_ONCE = 16 * 1024
# EPOLLET of epoll_ctl(2): each arrival of data is reported once.
_EDGE_TRIGGERED = 1 << 31
# EPOLLERR, EPOLLHUP and EPOLLRDHUP: they are reported once, and permanent.
_ERROR, _HANG_UP, _END = 0x008, 0x010, 0x2000
_ENDED = _ERROR | _HANG_UP | _END
# Sizes passed to os.read, which first allocates a buffer: a large one costs more than a small read.
_SMALL, _LARGE = 1024, 64 * 1024
# Interval at which timeouts are checked.
_SWEEP_SECONDS = 0.05


class PolledStream:
    """A connected stream whose user waits for replies on the shared epoll set.

    Args:
        descriptor: descriptor of a connected, non-blocking stream.
        timeout: seconds that a round trip may take.
    """

    def __init__(self, descriptor: int, timeout: float) -> None:
        self.descriptor = descriptor
        # A read may succeed.
        self.ready = False
        # The stream has ended: no read blocks any more.
        self.ended = False
        self.waiting: gevent.Greenlet[..., object] | None = None
        self.deadline = 0.0
        self._timeout = timeout
        self._hub = gevent.get_hub()

    def round_trip(self, message: bytes) -> bytes:
        """Send a message and receive at least as many bytes.

        Args:
            message: at most `AT_ONCE` bytes.

        Raises:
            ReplyTimeoutError: fewer bytes arrived within the timeout.
            LostError: the connection was lost.
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
                        reply,
                    )
                reply += piece
        except TimeoutError as error:
            if not is_late(error):
                raise lost(error, reply) from error
            raise ReplyTimeoutError(
                f"{len(reply)} of {size} bytes came back within {format_duration(self._timeout)}",
                reply,
            ) from error
        except OSError as error:
            raise lost(error, reply) from error
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
            # After a short read of a stream, further data is reported again (epoll(7)).
            self.ready = len(data) == chunk or self.ended
            return data

    def _write(self, rest: bytes) -> None:
        while rest:
            wait_write(self.descriptor, max(0.0, self.deadline - time.monotonic()))
            rest = rest[os.write(self.descriptor, rest) :]

    def _wait(self) -> None:
        self.waiting = getcurrent()  # type: ignore[assignment]  # users run in gevent's greenlets
        try:
            self._hub.switch()
        finally:
            self.waiting = None


class StreamPoller:
    """The epoll set of all streams, which wakes their waiting users."""

    def __init__(self) -> None:
        loop = gevent.get_hub().loop
        self._streams: dict[int, PolledStream] = {}
        self._set = EpollSet(loop, get_original("select", "epoll")(), self._on_ready)
        self._timer = loop.timer(_SWEEP_SECONDS, _SWEEP_SECONDS, ref=False)
        self._timer.start(self._sweep)

    def watch(self, stream: PolledStream) -> None:
        """Start waking the user of a stream."""
        self._set.watch(stream.descriptor, READABLE | _END | _EDGE_TRIGGERED)
        self._streams[stream.descriptor] = stream

    def forget(self, stream: PolledStream) -> None:
        """Stop waking the user of a stream; call this before its descriptor is closed."""
        del self._streams[stream.descriptor]
        self._set.forget(stream.descriptor)

    def _on_ready(self, ready: Ready) -> None:
        for descriptor, events in ready:
            stream = self._streams.get(descriptor)
            if stream is None:
                continue
            stream.ready = True
            if events & _ENDED:
                stream.ended = True
            if stream.waiting is not None:
                stream.waiting.switch()

    def _sweep(self) -> None:
        now = time.monotonic()
        for stream in list(self._streams.values()):
            if stream.waiting is not None and now >= stream.deadline:
                stream.waiting.throw(TimeoutError())


@cache
def poller() -> StreamPoller:
    """Return the poller of this process."""
    return StreamPoller()
