"""The opening of the hub engine's connections, with limits on their number and rate."""

from __future__ import annotations

import _socket
import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from echo_client.addresses import Address
from echo_client.connecting import UNIX_QUEUE_SECONDS, no_handshake, not_connected
from echo_client.errors import ConnectError, HandshakeError
from echo_core.epoll_set import READABLE, WRITABLE, EpollSet
from echo_load.engines.hub.connection import ConnectionSlot, HubConnection
from echo_load.engines.hub.timer_queue import TimerQueue
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import Share, back_off_seconds
from echo_load.measure.counts import Counts

if TYPE_CHECKING:
    from echo_load.engines.hub.tls_connection import Sessions


class Opener:
    """An opener of connections, which opens them again after a failure.

    Args:
        share: share of the generator.
        epoll_set: watches connections while they are being opened, and afterwards for replies.
        counts: counts connections that are opened, and failures.
        recorder: receives the times and the failures.
        timer_queue: queue for further attempts.
        on_open: called with each connection that is established.
        is_wanted: called before a connection is opened; returns whether it is still to be opened.

    Attributes:
        opening: connections that are being opened, by descriptor.
    """

    def __init__(
        self,
        share: Share,
        epoll_set: EpollSet,
        counts: Counts,
        recorder: Recorder,
        timer_queue: TimerQueue,
        *,
        on_open: Callable[[HubConnection], None],
        is_wanted: Callable[[ConnectionSlot], bool],
    ) -> None:
        plan = share.plan
        self.opening: dict[int, HubConnection] = {}
        self._share = share
        self._tls_context = share.tls_context()
        self._options = plan.socket_options
        self._headers = plan.proxy_headers
        self._sessions: Sessions | None = {} if plan.tls_resume else None
        self._set = epoll_set
        self._counts = counts
        self._recorder = recorder
        self._timer_queue = timer_queue
        self._on_open = on_open
        self._is_wanted = is_wanted
        self._waiting: deque[ConnectionSlot] = deque()
        # Number of slots in the pause before another attempt.
        self._backing_off = 0
        # Numbers of the connections to open before the gate, and slots that failed before it: until
        # then there is only one attempt.
        self._first: set[int] = set()
        self._failed_first: list[ConnectionSlot] | None = []
        self._timeout_ns = int(plan.connect_timeout * 1e9)
        self._gap_ns = int(1e9 * share.connect_gap)
        self._tick_ns = int(share.tick_seconds * 1e9)
        self._next_ns = 0
        # Number of slots that wait for space in the backlog of a unix socket.
        self._queued = 0

    @property
    def settled(self) -> bool:
        """True if each connection to open before the gate is established or has failed."""
        return not self._first

    @property
    def idle(self) -> bool:
        """True if no connection is being opened, or waits to be opened."""
        return not (self.opening or self._waiting or self._backing_off or self._queued)

    def add(self, slot: ConnectionSlot, *, first: bool = False) -> None:
        """Add a slot whose connection is to be opened.

        Args:
            slot: the slot.
            first: whether it is to be opened before the gate.
        """
        if first:
            self._first.add(slot.number)
        self._wait(slot)

    def start(self) -> None:
        """Open again the connections that have failed so far, and those that fail from now on."""
        failed, self._failed_first = self._failed_first, None
        for slot in failed or ():
            self.again(slot)

    def stop(self) -> None:
        """Open no further connection, and close those that are being opened."""
        self._waiting.clear()
        self._first.clear()
        self._backing_off = self._queued = 0
        for connection in list(self.opening.values()):
            if _is_established(connection):
                # The server has counted it, too.
                self._count_opened(_connecting_ns(connection))
                self._counts.closed += 1
            self._abandon(connection)

    def again(self, slot: ConnectionSlot) -> None:
        """Open the connection of a slot again after a pause that grows with its failures."""
        seconds = back_off_seconds(slot.failures)
        self._backing_off += 1

        def retry() -> None:
            if self._backing_off:
                self._backing_off -= 1
                self._wait(slot)

        self._timer_queue.at(time.monotonic_ns() + int(seconds * 1e9), retry)

    def _wait(self, slot: ConnectionSlot) -> None:
        if not self._waiting:
            # Time without waiting connections is not caught up.
            self._next_ns = max(self._next_ns, time.monotonic_ns())
        self._waiting.append(slot)

    def open_some(self) -> None:
        """Open as many waiting connections as the limits of the plan allow now."""
        now = time.monotonic_ns()
        # Delays of up to two ticks are caught up.
        self._next_ns = max(self._next_ns, now - 2 * self._tick_ns)
        most = self._share.plan.connects_in_flight
        while self._waiting and len(self.opening) + self._queued < most and now >= self._next_ns:
            slot = self._waiting.popleft()
            if self._is_wanted(slot):
                self._next_ns += self._gap_ns
                self._open(slot, 0)
            else:
                self._first.discard(slot.number)

    def proceed(self, connection: HubConnection, events: int) -> None:
        """Continue to open a connection that has an event.

        While it is connecting, `READABLE` alone is not an event of this connection, but a late one
        of an earlier connection with the same descriptor.
        """
        if connection.in_handshake:
            self._continue_handshake(connection)
        elif events != READABLE:
            self._end_connecting(connection)
        self.open_some()

    def _end_connecting(self, connection: HubConnection) -> None:
        """Continue with a connection that the kernel has established, or failed to."""
        del self.opening[connection.fileno()]
        failure = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            connection.close()
            self._try_next(connection.slot(), connection.attempt, failure)
        else:
            self._set.change(connection.fileno(), READABLE)
            self._connected(connection)

    def sweep(self, now: int) -> None:
        """Give up attempts that take longer than the connect timeout."""
        for connection in list(self.opening.values()):
            if now - connection.sent_ns > self._timeout_ns:
                in_handshake = connection.in_handshake
                self._abandon(connection)
                if in_handshake:
                    self._failed(connection.slot(), no_handshake(connection.address, "timed out"))
                else:
                    self._try_next(connection.slot(), connection.attempt, errno.ETIMEDOUT)

    def _open(self, slot: ConnectionSlot, attempt: int) -> None:
        """Begin to connect to one of the addresses of the target."""
        address = self._share.addresses(slot.number)[attempt]
        try:
            kind = _connection_class(address.transport)
            source = self._share.source(slot.number)
            connection = kind.of(slot, address, source, self._options)
        except ConnectError as error:
            self._failed(slot, error)
            return
        except OSError as error:
            self._failed(slot, self._error(error.errno or 0, address))
            return
        begin = time.monotonic_ns()
        connection.sent_ns = slot.refused_since_ns or begin
        connection.attempt = attempt
        failure = connection.connect_ex(address.sockaddr)
        if failure == errno.EINPROGRESS:
            self._set.watch(connection.fileno(), WRITABLE)
            self.opening[connection.fileno()] = connection
        elif not failure:
            self._set.watch(connection.fileno(), READABLE)
            self._connected(connection)
        elif failure == errno.EAGAIN and address.transport == "unix":
            connection.close()
            self._wait_for_queue(slot, attempt, begin)
        else:
            connection.close()
            self._try_next(slot, attempt, failure)

    def _wait_for_queue(self, slot: ConnectionSlot, attempt: int, now: int) -> None:
        """Try again later if the backlog of a unix socket is full: its space is not signalled.

        Args:
            slot: the slot.
            attempt: index of the address.
            now: current instant in nanoseconds of the monotonic clock.
        """
        slot.refused_since_ns = slot.refused_since_ns or now
        if now - slot.refused_since_ns > self._timeout_ns:
            slot.refused_since_ns = 0
            self._try_next(slot, attempt, errno.ETIMEDOUT)
            return
        self._queued += 1

        def retry() -> None:
            if self._queued:
                self._queued -= 1
                self._open(slot, attempt)

        self._timer_queue.at(now + int(UNIX_QUEUE_SECONDS * 1e9), retry)

    def _connected(self, connection: HubConnection) -> None:
        """Begin a connected socket with its PROXY header and TLS handshake, if it has them."""
        connect_ns = _connecting_ns(connection)
        if self._headers is not None and (failure := self._send_header(connection)):
            connection.close()
            self._failed(connection.slot(), self._error(failure, connection.address))
            return
        if connection.address.transport == "tls":
            self._begin_handshake(connection, connect_ns)
        else:
            self._established(connection, connect_ns)

    def _send_header(self, connection: HubConnection) -> int:
        """Send the PROXY header; return the `errno` if the connection is broken already, or 0."""
        assert self._headers is not None
        number = self._share.clients_before + connection.number
        header = self._headers.header(number).encode(connection, connection.address)
        try:
            # Not through TLS, which begins after it. An empty send buffer holds all of it.
            _socket.socket.send(connection, header)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _begin_handshake(self, connection: HubConnection, connect_ns: int) -> None:
        from echo_load.engines.hub.tls_connection import TlsConnection

        assert isinstance(connection, TlsConnection)
        assert self._tls_context is not None
        self.opening[connection.fileno()] = connection
        try:
            name = self._share.plan.tls.server_name
            connection.begin_handshake(self._tls_context, name, connect_ns, self._sessions)
        except HandshakeError as error:
            self._abandon(connection)
            self._failed(connection.slot(), error)
        else:
            self._continue_handshake(connection)

    def _continue_handshake(self, connection: HubConnection) -> None:
        """Continue the TLS handshake of a connection, and complete the opening after it."""
        from echo_load.engines.hub.tls_connection import TlsConnection

        assert isinstance(connection, TlsConnection)
        watched = connection.handshake_events
        try:
            done = connection.proceed()
        except HandshakeError as error:
            self._abandon(connection)
            self._failed(connection.slot(), error)
            return
        wanted = READABLE if done else connection.handshake_events
        if wanted != watched:
            self._set.change(connection.fileno(), wanted)
        if done:
            del self.opening[connection.fileno()]
            elapsed_ns = time.monotonic_ns() - connection.handshake_begin_ns
            self._recorder.times.handshake.append(elapsed_ns)
            self._counts.resumed += connection.resumed
            self._counts.ciphers[connection.cipher] += 1
            self._established(connection, connection.connect_ns)

    def _established(self, connection: HubConnection, connect_ns: int) -> None:
        self._count_opened(connect_ns)
        self._first.discard(connection.number)
        self._on_open(connection)

    def _count_opened(self, connect_ns: int) -> None:
        self._counts.opened += 1
        self._recorder.times.connect.append(connect_ns)

    def _try_next(self, slot: ConnectionSlot, attempt: int, failure: int) -> None:
        """Try the next address of the target; after the last one, count the failure."""
        if attempt + 1 < len(self._share.addresses(slot.number)):
            self._open(slot, attempt + 1)
        else:
            self._failed(slot, self._error(failure, self._share.addresses(slot.number)[attempt]))

    def _error(self, number: int, address: Address) -> ConnectError:
        """Return the error for an `errno` of connecting to an address."""
        error = OSError(number, os.strerror(number))
        return not_connected(error, address, self._share.plan.connect_timeout)

    def _failed(self, slot: ConnectionSlot, error: ConnectError) -> None:
        """Count the failure to open a connection, and try again if the plan says so."""
        self._counts.failed += 1
        self._counts.errors[error.kind] += 1
        self._recorder.evidence.add_failure(slot.number, error.kind, None, str(error))
        self._first.discard(slot.number)
        slot.failures += 1
        if self._share.gives_up(slot.failures):
            return
        if self._failed_first is not None:
            self._failed_first.append(slot)
        else:
            self.again(slot)

    def _abandon(self, connection: HubConnection) -> None:
        del self.opening[connection.fileno()]
        connection.close()


def _connection_class(transport: str) -> type[HubConnection]:
    if transport != "tls":
        return HubConnection
    from echo_load.engines.hub.tls_connection import TlsConnection

    return TlsConnection


def _connecting_ns(connection: HubConnection) -> int:
    """Return the time that connecting took in nanoseconds, for TCP as measured by the kernel."""
    elapsed_ns = time.monotonic_ns() - connection.sent_ns
    information = connection.tcp_info()
    return elapsed_ns if information is None else information.connecting_ns(elapsed_ns)


def _is_established(connection: HubConnection) -> bool:
    """Return whether the kernel has established a connection, even without an event so far."""
    try:
        connection.getpeername()
    except OSError:
        return False
    return True
