"""The hot path: the echo of all connections in one callback, without a greenlet or watcher each.

Every byte received is sent back, in order (RFC 862). Nothing more is received from a connection
until its last read has been sent back, so that a peer that does not read cannot fill the memory. A
peer that shuts down its writing half gets everything it sent; then the connection is closed.
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
from echo_server.streams.lingering import LINGER_SECONDS, Lingering
from echo_server.streams.rate_limit import RateLimit

log = structlog.get_logger()

# The maximum size of a read: by default, and after a read of the default size. Each call may wake
# the peer, which costs more than copying: with messages of 1 MiB, reads of 64 KiB take more than
# twice the processor time of reads of 256 KiB. Reads of 512 KiB take 1.2 times as much, and so does
# a second receive before the send, instead of a larger read the next time.
BUFFER_SIZE = 64 * 1024
LARGEST_READ = 256 * 1024
# The counters are updated at least once per this number of bytes received. If the process is
# killed, the counts of fewer bytes than this, and of the current read, are lost.
COUNTED_BYTES = 64 * 1024
# The largest slice of the buffer that is created in advance. Slicing a memoryview costs as much as
# looking up the connection.
SMALL = 2048

_NOTHING = 0
_UNLIMITED = sys.maxsize

_CLOSED_BY_ERROR = {
    ECONNRESET: Counter.CLOSED_RESET,
    EPIPE: Counter.CLOSED_RESET,
    ETIMEDOUT: Counter.CLOSED_TIMED_OUT,
}
# Constants for the hot path: the lookup of an enumeration's attribute costs more than counting.
_RECEIVED_BYTES = int(Counter.RECEIVED_BYTES)
_SENT_BYTES = int(Counter.SENT_BYTES)
_READS = int(Counter.READS)


class EchoSet:
    """The set of all connections of a worker, which one callback of the hub echoes.

    Args:
        counters: the counters for bytes, reads and writes.
        on_end: called with each connection that has been closed, and the reason.
        rate_limit: the maximum number of bytes per second that each connection may send; None for
            no limit.
        make_set: creates the set of watched descriptors, given an event loop and the callback.

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
        # The buffer is at most one byte larger than a bucket of the rate limit. If a TLS record
        # does not fit into it, a read therefore exceeds the limit, and the check of the limit finds
        # the rest of the record, which epoll does not report.
        burst = self._rate_limit.burst if self._rate_limit else LARGEST_READ
        self._large_buffer = memoryview(bytearray(min(LARGEST_READ, burst + 1)))
        self._buffer = self._large_buffer[:BUFFER_SIZE]
        self._small_views = [self._buffer[:size] for size in range(SMALL + 1)]
        self._all_ended = Event()
        self._set = make_set(self._hub.loop, self._on_ready)

    def __len__(self) -> int:
        return len(self.connections)

    def add(self, connection: Connection) -> None:
        """Echo a connection, which must be non-blocking, until it ends.

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

    def is_suspended(self, connection: Connection) -> bool:
        """Return True while the rate limit suspends reading from a connection."""
        return self._rate_limit is not None and connection in self._rate_limit.suspended

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until no connection is open; False if one still is."""
        if self.connections:
            self._all_ended.clear()
            self._all_ended.wait(timeout)
        return not self.connections

    def close(self, linger_seconds: float = LINGER_SECONDS) -> None:
        """Close all connections, and stop watching for good.

        What has arrived is echoed, and each peer receives the end of the stream, not a reset.

        Args:
            linger_seconds: the maximum time in seconds to wait until the peers have closed, too.
        """
        lingering = Lingering()
        for connection in list(self.connections.values()):
            self.echo_arrived(connection)
            if not connection.is_closed:
                connection.end_sending()
                lingering.add(connection.fileno())
                self.end(connection, Counter.CLOSED_SERVER_STOPPED)
        lingering.close(linger_seconds)
        if self._rate_limit:
            self._rate_limit.close()
        self._set.close()

    def echo_arrived(self, connection: Connection) -> None:
        """Echo what has arrived on a connection, which the loop may not have reported yet.

        Nothing is read that waits for the rate limit, a fault, or the peer to read.
        """
        if connection.watched == READABLE:
            self._on_ready(((connection.fileno(), READABLE),))

    def end(self, connection: Connection, reason: Counter) -> None:
        """Close a connection for a reason, and report it to `on_end`."""
        descriptor = connection.fileno()
        del self.connections[descriptor]
        self._set.forget(descriptor)
        if self._rate_limit:
            self._rate_limit.forget(connection)
        connection.close()
        self._on_end(connection, reason)
        if not self.connections:
            self._all_ended.set()

    def echo(self, ready: Ready) -> None:  # noqa: C901, PLR0915  # calls cost
        """Serve the connections that are ready, given as pairs of a descriptor and its events.

        A failure of a connection ends only that connection.
        """
        connections = self.connections
        buffer, large_buffer, small_views = self._buffer, self._large_buffer, self._small_views
        total = unsent = without_data = 0
        for descriptor, events in ready:
            if total >= COUNTED_BYTES:
                self._count(total, unsent)
                total = unsent = 0
            connection = connections[descriptor]
            try:
                if not events & READABLE:
                    without_data += 1
                    self._on_writable(connection)
                    continue
                try:
                    received = connection.recv_into(connection.buffer)
                except BlockingIOError as blocked:
                    without_data += 1
                    self._on_receive_blocked(connection, blocked)
                    continue
                if not received:
                    without_data += 1
                    self.end(connection, Counter.CLOSED_END_OF_STREAM)
                    continue
                total += received
                connection.received = so_far = connection.received + received
                if received <= SMALL:
                    view = small_views[received]
                else:
                    view = large_buffer[:received]
                    connection.buffer = large_buffer if received >= BUFFER_SIZE else buffer
                try:
                    sent = connection.send(view)
                except OSError as error:
                    unsent += received
                    connection.unsent = bytes(view)
                    self._on_send_failed(connection, error)
                    continue
                if sent < received:
                    unsent += received - sent
                    connection.unsent = bytes(view[sent:])
                    self._watch_for(connection, WRITABLE)
                elif so_far > connection.allowance:
                    self._continue_reading(connection)
            except OSError as error:
                self._fail(connection, error)
            except Exception:
                log.exception("connection failed", peer=connection.peer)
                self.end(connection, Counter.CLOSED_ERROR)
        self._count(total, unsent)
        self._counters.cells[_READS] += len(ready) - without_data

    def _on_ready(self, ready: Ready) -> None:
        # An exception that escapes from a hub callback would stop its watcher for good.
        try:
            self.echo(ready)
        except Exception:
            log.exception("echo set failed")

    def _count(self, received: int, unsent: int) -> None:
        """Count received bytes, and count all but the unsent ones as sent."""
        cells = self._counters.cells
        cells[_RECEIVED_BYTES] += received
        cells[_SENT_BYTES] += received - unsent

    def _on_writable(self, connection: Connection) -> None:
        """Serve a connection that has become writable, or has failed."""
        if connection.unsent:
            self._resume_sending(connection)
        elif connection.watched == WRITABLE:
            self._read_now(connection)
        else:
            # Suspended, so the event is the peer's reset, which epoll always reports.
            self.end(connection, Counter.CLOSED_RESET)

    def _read_now(self, connection: Connection) -> None:
        """Receive without waiting for an event."""
        if connection.watched != READABLE:
            self._watch_for(connection, READABLE)
        self.echo(((connection.fileno(), READABLE),))

    def _on_receive_blocked(self, connection: Connection, blocked: BlockingIOError) -> None:
        """Handle a receive that would block: watch for the event that it needs."""
        if connection.unsent:
            # With TLS: a send had to wait until the socket was readable.
            self._resume_sending(connection)
        elif isinstance(blocked, OtherDirectionError):
            self._watch_for(connection, WRITABLE)

    def _on_send_failed(self, connection: Connection, error: OSError) -> None:
        """Handle a failed send: if it would block, watch for the event that it needs.

        Raises:
            OSError: the send failed for another reason.
        """
        if not isinstance(error, BlockingIOError):
            raise error
        wanted = READABLE if isinstance(error, OtherDirectionError) else WRITABLE
        if wanted != connection.watched:
            self._watch_for(connection, wanted)

    def _resume_sending(self, connection: Connection) -> None:
        """Send unsent bytes, with a further call; once all are sent, continue to read."""
        self._counters.add(Counter.EXTRA_WRITES)
        self._send_unsent(connection)

    def _send_unsent(self, connection: Connection) -> None:
        try:
            sent = connection.send(connection.unsent)
        except BlockingIOError as error:
            self._on_send_failed(connection, error)
            return
        self._counters.add(Counter.SENT_BYTES, sent)
        connection.unsent = connection.unsent[sent:]
        if not connection.unsent:
            self._continue_reading(connection)
        elif connection.watched != WRITABLE:
            self._watch_for(connection, WRITABLE)

    def _continue_reading(self, connection: Connection) -> None:
        """Continue to read, unless the rate limit suspends the connection."""
        if connection.received > connection.allowance and self._suspend_if_exceeded(connection):
            self._watch_for(connection, _NOTHING)
        elif self._rate_limit and connection.pending():
            self._read_now(connection)
        elif connection.watched != READABLE:
            self._watch_for(connection, READABLE)

    def _suspend_if_exceeded(self, connection: Connection) -> bool:
        return self._rate_limit is not None and self._rate_limit.suspend_if_exceeded(connection)

    def _resume(self, connection: Connection) -> None:
        """Continue to read from a connection that the rate limit had suspended."""
        if connection.pending():
            self._read_now(connection)
        else:
            self._watch_for(connection, READABLE)

    def _fail(self, connection: Connection, error: OSError) -> None:
        reason = _CLOSED_BY_ERROR.get(error.errno or 0, Counter.CLOSED_ERROR)
        if reason is Counter.CLOSED_ERROR:
            log.debug("connection failed", peer=connection.peer, reason=error.strerror)
        self.end(connection, reason)

    def _watch_for(self, connection: Connection, events: int) -> None:
        """Watch a connection for an event, or only for its failure."""
        connection.watched = events
        self._set.change(connection.fileno(), events)
