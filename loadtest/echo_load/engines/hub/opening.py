"""Opens the hub engine's connections, with limits on their number and rate, and retries."""

from __future__ import annotations

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

# How often to check whether more can be opened.
TICK_SECONDS = 0.01


class Opener:
    """Opens connections for an engine and hands over those that are established.

    Args:
        share: their targets, and how many may be opened at once.
        epoll_set: watches them while they are being opened, and afterwards for replies.
        counts: where successes and failures are counted.
        recorder: where times are recorded.
        timer_queue: calls for another attempt.
        on_open: called with each connection that is established.
        is_wanted: whether a connection is still to be opened, asked just before.
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
        self._sessions: Sessions | None = {} if plan.tls_resume else None
        self._set = epoll_set
        self._counts = counts
        self._recorder = recorder
        self._timer_queue = timer_queue
        self._on_open = on_open
        self._is_wanted = is_wanted
        self._waiting: deque[ConnectionSlot] = deque()
        # Slots that wait for another attempt; before the gate opens, there is only one attempt.
        self._backing_off = 0
        self._first: set[int] = set()
        self._failed_first: list[ConnectionSlot] | None = []
        self._timeout_ns = int(plan.connect_timeout * 1e9)
        self._gap_ns = int(1e9 * share.connect_gap)
        self._next_ns = 0
        # Slots that wait for space in the backlog of a unix socket.
        self._queued = 0

    @property
    def settled(self) -> bool:
        """Whether each slot that was to be opened before the gate is open or has failed."""
        return not self._first

    @property
    def idle(self) -> bool:
        """Whether nothing is being opened or waits to be."""
        return not (self.opening or self._waiting or self._backing_off or self._queued)

    def add(self, slot: ConnectionSlot, *, first: bool = False) -> None:
        """Open a connection for a slot, in its turn.

        Args:
            slot: the slot.
            first: it is to be opened before the gate.
        """
        if first:
            self._first.add(slot.number)
        self._waiting.append(slot)

    def start(self) -> None:
        """Retry what has failed so far, and what fails from now on."""
        failed, self._failed_first = self._failed_first, None
        for slot in failed or ():
            self.again(slot)

    def stop(self) -> None:
        """Open nothing more."""
        self._waiting.clear()
        self._first.clear()
        self._backing_off = self._queued = 0
        for connection in list(self.opening.values()):
            if _is_established(connection):
                # Its other end counts it too.
                self._count_opened(_connecting_ns(connection))
                self._counts.closed += 1
            self._abandon(connection)

    def again(self, slot: ConnectionSlot) -> None:
        """Open a connection for a slot after a pause that grows with its failures."""
        seconds = back_off_seconds(slot.failures)
        self._backing_off += 1

        def retry() -> None:
            if self._backing_off:
                self._backing_off -= 1
                self._waiting.append(slot)

        self._timer_queue.at(time.monotonic_ns() + int(seconds * 1e9), retry)

    def open_some(self) -> None:
        """Open waiting connections, as many at once and as fast as the plan allows."""
        now = time.monotonic_ns()
        # Delays from coarse ticks are made up for; times without demand are not.
        self._next_ns = max(self._next_ns, now - int(2 * TICK_SECONDS * 1e9))
        most = self._share.plan.connects_in_flight
        while self._waiting and len(self.opening) + self._queued < most and now >= self._next_ns:
            slot = self._waiting.popleft()
            if self._is_wanted(slot):
                self._next_ns += self._gap_ns
                self._open(slot, 0)
            else:
                self._first.discard(slot.number)

    def proceed(self, connection: HubConnection, events: int) -> None:
        """Continue with a connection that has an event: connected, failed, or in its handshake.

        A connection that is being connected is watched for other events than `READABLE` alone,
        which is a late event of an earlier connection with the same descriptor.
        """
        if connection.in_handshake:
            self._shake_hands(connection)
        elif events != READABLE:
            self._end_connecting(connection)
        self.open_some()

    def _end_connecting(self, connection: HubConnection) -> None:
        """Continue with a connection that the kernel reports as established or failed."""
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
                shook_hands = connection.in_handshake
                self._abandon(connection)
                if shook_hands:
                    self._failed(connection.slot(), no_handshake(connection.address, "timed out"))
                else:
                    self._try_next(connection.slot(), connection.attempt, errno.ETIMEDOUT)

    def _open(self, slot: ConnectionSlot, attempt: int) -> None:
        address = self._share.addresses(slot.number)[attempt]
        try:
            kind = _connection_class(address.transport)
            connection = kind.of(slot, address, self._share.source(slot.number))
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
        """Retry a unix socket with a full backlog, which does not signal when it has space."""
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
        """Begin the handshake of a connected socket, or hand it over if it needs none."""
        connect_ns = _connecting_ns(connection)
        if connection.address.transport == "tls":
            self._begin_handshake(connection, connect_ns)
        else:
            self._established(connection, connect_ns)

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
            self._shake_hands(connection)

    def _shake_hands(self, connection: HubConnection) -> None:
        """Continue the handshake of a connection, and hand it over when that is done."""
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
            self._established(connection, connection.connect_ns)

    def _established(self, connection: HubConnection, connect_ns: int) -> None:
        self._count_opened(connect_ns)
        self._first.discard(connection.number)
        self._on_open(connection)

    def _count_opened(self, connect_ns: int) -> None:
        self._counts.opened += 1
        self._recorder.times.connect.append(connect_ns)

    def _try_next(self, slot: ConnectionSlot, attempt: int, failure: int) -> None:
        """Try the next address of the target; without one, the connection has failed."""
        if attempt + 1 < len(self._share.addresses(slot.number)):
            self._open(slot, attempt + 1)
        else:
            self._failed(slot, self._error(failure, self._share.addresses(slot.number)[attempt]))

    def _error(self, number: int, address: Address) -> ConnectError:
        """Return the error for an error number (`errno`) of connecting."""
        error = OSError(number, os.strerror(number))
        return not_connected(error, address, self._share.plan.connect_timeout)

    def _failed(self, slot: ConnectionSlot, error: ConnectError) -> None:
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
    """Return the nanoseconds that connecting took, as the kernel's TCP has it if it is TCP."""
    elapsed_ns = time.monotonic_ns() - connection.sent_ns
    information = connection.tcp_info()
    return elapsed_ns if information is None else information.connecting_ns(elapsed_ns)


def _is_established(connection: HubConnection) -> bool:
    """True if the kernel has opened a connection, also where the hub has not heard of it yet."""
    try:
        connection.getpeername()
    except OSError:
        return False
    return True
