"""The hot path: connections that are echoed without a greenlet or a watcher each.

Every byte received is sent back, in order (RFC 862). A connection whose peer does not read is
not read from either, so that it never holds more than one read. A peer that shuts down its
writing half gets everything it sent; then the connection is closed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from errno import ECONNRESET, EPIPE, ETIMEDOUT

import structlog
from gevent.event import Event
from gevent.hub import get_hub

from echo_core.epoll_set import READABLE, WRITABLE, OtherDirectionError, Ready
from echo_server.metrics.counters import Counter, Counters
from echo_server.streams.connection import Connection
from echo_server.streams.descriptor_set import MakeDescriptorSet, make_descriptor_set
from echo_server.streams.rate_limit import RateLimit

log = structlog.get_logger()

# The most that is read at once: of a connection, and of one whose last read was as much as that.
# Each call may wake the peer, which costs more than copying does: with messages of 1 MiB, reads of
# 64 KiB take more than twice the processor time. Reads of 512 KiB took 1.2 times as much as those
# of 256 KiB, and so did a second receive before the send instead of a larger one the next time.
BUFFER_SIZE = 64 * 1024
LARGEST_READ = 256 * 1024
# Bytes that may be echoed before they are counted. A process that is killed takes with it what it
# has not counted: less than this, and the read it is at.
COUNTED_BYTES = 64 * 1024
# Slicing a memoryview costs as much as looking up the connection; small slices are made once.
SMALL = 2048

_NOTHING = 0
_UNLIMITED = sys.maxsize

_CLOSED_BY_ERROR = {
    ECONNRESET: Counter.CLOSED_RESET,
    EPIPE: Counter.CLOSED_RESET,
    ETIMEDOUT: Counter.CLOSED_TIMED_OUT,
}
# Names for the hot path: an attribute of an enumeration costs more than counting does.
_RECEIVED_BYTES = int(Counter.RECEIVED_BYTES)
_SENT_BYTES = int(Counter.SENT_BYTES)
_READS = int(Counter.READS)


class EchoSet:
    """Connections that are echoed by one callback of the hub.

    Args:
        counters: where bytes and reads are counted.
        on_end: called with each connection that has ended, and why.
        rate_limit: bytes a second that a connection may send; None is as many as it can.
        make_set: makes what tells of readiness, for a loop and a callback.

    Attributes:
        connections: the open connections by descriptor.
    """

    def __init__(
        self,
        counters: Counters,
        on_end: Callable[[Connection, Counter], None],
        rate_limit: int | None = None,
        make_set: MakeDescriptorSet = make_descriptor_set,
    ) -> None:
        self.connections: dict[int, Connection] = {}
        self._hub = get_hub()
        self._counters = counters
        self._on_end = on_end
        self._rate_limit = RateLimit(rate_limit, self._resume) if rate_limit else None
        # A read that fills the buffer is one byte more than a rate limit ever allows: whatever is
        # left of a TLS record then is looked for when the limit is.
        burst = self._rate_limit.burst if self._rate_limit else LARGEST_READ
        self._whole = memoryview(bytearray(min(LARGEST_READ, burst + 1)))
        self._buffer = self._whole[:BUFFER_SIZE]
        self._small = [self._buffer[:size] for size in range(SMALL + 1)]
        self._empty = Event()
        self._set = make_set(self._hub.loop, self._on_ready)

    def __len__(self) -> int:
        return len(self.connections)

    def add(self, connection: Connection) -> None:
        """Echo this connection from now on, until it ends; it must be non-blocking.

        Raises:
            OSError: its descriptor cannot be watched.
        """
        connection.received = 0
        connection.unsent = b""
        connection.buffer = self._buffer
        connection.progress = -1
        connection.allowance = _UNLIMITED
        if self._rate_limit:
            self._rate_limit.start(connection)
        descriptor = connection.fileno()
        self._set.watch(descriptor, READABLE)
        connection.watched = READABLE
        self.connections[descriptor] = connection

    def holds(self, connection: Connection) -> bool:
        """True while the rate limit keeps a connection from being read."""
        return self._rate_limit is not None and connection in self._rate_limit.held

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until no connection is open; False if one still is."""
        if self.connections:
            self._empty.clear()
            self._empty.wait(timeout)
        return not self.connections

    def close(self) -> None:
        """Close every connection, and stop watching for good."""
        for connection in list(self.connections.values()):
            self.end(connection, Counter.CLOSED_SERVER_STOPPED)
        if self._rate_limit:
            self._rate_limit.close()
        self._set.close()

    def end(self, connection: Connection, reason: Counter) -> None:
        """Close a connection, and count why."""
        descriptor = connection.fileno()
        del self.connections[descriptor]
        self._set.forget(descriptor)
        if self._rate_limit:
            self._rate_limit.forget(connection)
        connection.close()
        self._on_end(connection, reason)
        if not self.connections:
            self._empty.set()

    def echo(self, ready: Ready) -> None:  # noqa: C901, PLR0915  # calls cost
        """Serve the connections that are ready, each a descriptor and its events.

        Whatever goes wrong with a connection ends that connection and no other.
        """
        connections = self.connections
        buffer, whole, small = self._buffer, self._whole, self._small
        total = kept = without_data = 0
        for descriptor, events in ready:
            if total >= COUNTED_BYTES:
                self._count(total, kept)
                total = kept = 0
            connection = connections[descriptor]
            try:
                if not events & READABLE:
                    without_data += 1
                    self._go_on(connection)
                    continue
                try:
                    received = connection.recv_into(connection.buffer)
                except BlockingIOError as blocked:
                    without_data += 1
                    self._nothing_received(connection, blocked)
                    continue
                if not received:
                    without_data += 1
                    self.end(connection, Counter.CLOSED_END_OF_STREAM)
                    continue
                total += received
                connection.received = so_far = connection.received + received
                if received <= SMALL:
                    view = small[received]
                else:
                    view = whole[:received]
                    connection.buffer = whole if received >= BUFFER_SIZE else buffer
                try:
                    sent = connection.send(view)
                except OSError as error:
                    kept += received
                    connection.unsent = bytes(view)
                    self._not_sent(connection, error)
                    continue
                if sent < received:
                    kept += received - sent
                    connection.unsent = bytes(view[sent:])
                    self._change(connection, WRITABLE)
                elif so_far > connection.allowance:
                    self._read_on(connection)
            except OSError as error:
                self._fail(connection, error)
            except Exception:
                log.exception("connection failed", peer=connection.peer)
                self.end(connection, Counter.CLOSED_ERROR)
        self._count(total, kept)
        self._counters.cells[_READS] += len(ready) - without_data

    def _on_ready(self, ready: Ready) -> None:
        # An exception that left a callback of the hub would stop its watcher for ever.
        try:
            self.echo(ready)
        except Exception:
            log.exception("echo set failed")

    def _count(self, received: int, kept: int) -> None:
        """Count bytes received, and those of them that were not kept back as sent."""
        cells = self._counters.cells
        cells[_RECEIVED_BYTES] += received
        cells[_SENT_BYTES] += received - kept

    def _go_on(self, connection: Connection) -> None:
        """Serve a connection that has become writable, or has failed."""
        if connection.unsent:
            self._send_rest(connection)
        elif connection.watched == WRITABLE:
            self._read_now(connection)
        else:
            # Watched for nothing, and yet there is an event: the peer's reset.
            self.end(connection, Counter.CLOSED_RESET)

    def _read_now(self, connection: Connection) -> None:
        """Receive without waiting for an event."""
        if connection.watched != READABLE:
            self._change(connection, READABLE)
        self.echo(((connection.fileno(), READABLE),))

    def _nothing_received(self, connection: Connection, blocked: BlockingIOError) -> None:
        """Wait until a receive that did not succeed can."""
        if connection.unsent:
            # It is the rest that waited for something to read.
            self._send_rest(connection)
        elif isinstance(blocked, OtherDirectionError):
            self._change(connection, WRITABLE)

    def _not_sent(self, connection: Connection, error: OSError) -> None:
        """Wait until a send that did not succeed can; a failure ends the connection.

        Raises:
            OSError: it failed.
        """
        if not isinstance(error, BlockingIOError):
            raise error
        wanted = READABLE if isinstance(error, OtherDirectionError) else WRITABLE
        if wanted != connection.watched:
            self._change(connection, wanted)

    def _send_rest(self, connection: Connection) -> None:
        """Send what did not fit before; once all of it is gone, read again."""
        self._counters.add(Counter.EXTRA_WRITES)
        self._send_unsent(connection)

    def _send_unsent(self, connection: Connection) -> None:
        try:
            sent = connection.send(connection.unsent)
        except BlockingIOError as error:
            self._not_sent(connection, error)
            return
        self._counters.add(Counter.SENT_BYTES, sent)
        connection.unsent = connection.unsent[sent:]
        if not connection.unsent:
            self._read_on(connection)
        elif connection.watched != WRITABLE:
            self._change(connection, WRITABLE)

    def _read_on(self, connection: Connection) -> None:
        """Read on, or not before the rate limit allows it."""
        if connection.received > connection.allowance and self._holds_back(connection):
            self._change(connection, _NOTHING)
        elif self._rate_limit and connection.pending():
            self._read_now(connection)
        elif connection.watched != READABLE:
            self._change(connection, READABLE)

    def _holds_back(self, connection: Connection) -> bool:
        return self._rate_limit is not None and self._rate_limit.holds(connection)

    def _resume(self, connection: Connection) -> None:
        """Read on after the rate limit has held a connection."""
        if connection.pending():
            self._read_now(connection)
        else:
            self._change(connection, READABLE)

    def _fail(self, connection: Connection, error: OSError) -> None:
        reason = _CLOSED_BY_ERROR.get(error.errno or 0, Counter.CLOSED_ERROR)
        if reason is Counter.CLOSED_ERROR:
            log.debug("connection failed", peer=connection.peer, reason=error.strerror)
        self.end(connection, reason)

    def _change(self, connection: Connection, events: int) -> None:
        """Watch a connection for other events, or for nothing but its failure."""
        connection.watched = events
        self._set.change(connection.fileno(), events)
