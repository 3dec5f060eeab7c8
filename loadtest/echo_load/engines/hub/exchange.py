"""The hub engine's hot path: receive, check, send, on many connections at a time.

There is no greenlet and no watcher per connection. Each message takes one receive and one send on a
raw socket, a comparison of every byte, and a time appended to an array. Anything but exactly the
reply that was due is handled separately.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable

from echo_client.connection import CHUNK
from echo_client.errors import connected_failure
from echo_client.failure_kinds import FailureKind
from echo_core.epoll_set import READABLE, WRITABLE, EpollSet, Ready
from echo_load.engines.checking import UnderWay, check
from echo_load.engines.hub import datagrams
from echo_load.engines.hub.connection import HubConnection
from echo_load.engines.recorder import FOLD_AT, Recorder
from echo_load.engines.share import Share
from echo_load.measure.counts import Counts

# The most replies, and bytes of them, that are held at once, so that they fit the caches.
_HELD = 64
_HELD_BYTES = 256 * 1024


class Exchange:
    """Receives and checks the replies of many connections, and sends their messages.

    Args:
        share: what is to be done.
        recorder: where times are recorded.
        counts: where bytes, messages and errors are counted.
        epoll_set: watches the connections.
        on_answered: called with a connection that may take another message; continues or ends it.
        on_lost: called with a connection to be given up, and the kind of error; None if it has been
            counted already.
        on_other: called with a descriptor that does not belong to an open connection, and its
            events.
        after_step: called after each batch of replies.

    Attributes:
        connections: the open connections by descriptor.
    """

    def __init__(
        self,
        share: Share,
        recorder: Recorder,
        counts: Counts,
        epoll_set: EpollSet,
        *,
        on_answered: Callable[[HubConnection], None],
        on_lost: Callable[[HubConnection, str | None], None],
        on_other: Callable[[int, int], None],
        after_step: Callable[[], None],
    ) -> None:
        self.connections: dict[int, HubConnection] = {}
        self._share = share
        self._recorder = recorder
        self._counts = counts
        self._set = epoll_set
        self._on_answered = on_answered
        self._on_lost = on_lost
        self._on_other = on_other
        self._after_step = after_step
        self._open_loop = share.plan.open_loop
        self._datagrams = share.plan.speaks("udp")
        # Without a pipeline, exactly a reply: surplus bytes come with the next receive. Of a
        # datagram that is too long, one byte more shows it.
        receive_size = share.payload.largest + self._datagrams
        self._receive_size = CHUNK if share.plan.pipeline > 1 else min(receive_size, CHUNK)
        self._step = max(1, min(_HELD, _HELD_BYTES // self._receive_size))

    def serve(self, ready: Ready) -> None:
        """Serve the connections that are ready, a batch at a time."""
        # When these replies were noticed.
        now = time.monotonic_ns()
        for begin in range(0, len(ready), self._step):
            self._serve_some(ready[begin : begin + self._step], now)
            self._after_step()
        if len(self._recorder.times.replies) >= FOLD_AT:
            self._recorder.fold()

    def _serve_some(self, ready: Ready, now: int) -> None:
        """Receive from all, check all, then send on all: each step finds its code in the caches.

        Doing all three for one connection after the other took a tenth longer.
        """
        connections, size = self.connections, self._receive_size
        batch: list[HubConnection] = []
        replies: list[bytes] = []
        for descriptor, events in ready:
            connection = connections.get(descriptor)
            if connection is None or events != READABLE:
                self._serve_other(descriptor, connection, events)
                continue
            try:
                replies.append(connection.recv(size))
                batch.append(connection)
            except BlockingIOError:
                continue
            except OSError as error:
                self._on_lost(connection, _kind(error))
        self._counts.bytes_received += sum(map(len, replies))
        if replies != [connection.expected for connection in batch]:
            batch = self._sort_out(batch, replies, now)
        self._go_on(batch, now)

    def _sort_out(
        self, batch: list[HubConnection], replies: list[bytes], now: int
    ) -> list[HubConnection]:
        """Handle all other replies, and return the connections whose replies are right."""
        right = []
        for connection, reply in zip(batch, replies, strict=True):
            if reply == connection.expected:
                right.append(connection)
            else:
                self._take(connection, reply, now)
        return right

    def _go_on(self, batch: list[HubConnection], now: int) -> None:
        """Record the times of right replies, and send the next messages."""
        times = self._recorder.times
        times.service.extend([now - connection.sent_ns for connection in batch])
        if self._open_loop:
            times.response.extend([now - connection.due_ns for connection in batch])
        times.replies.extend(array("q", (now,)) * len(batch))
        self._counts.messages += len(batch)
        if self._datagrams:
            self._note_datagrams(batch)
        if self._open_loop or now >= self._share.end_ns.value:
            for connection in batch:
                connection.expected = None
                self._on_answered(connection)
            return
        tails, make = self._share.payload.tails, self._share.payload.message
        sending: list[HubConnection] = []
        for connection in batch:
            sequence = connection.sequence
            if sequence < connection.stop_at:
                connection.sequence = sequence + 1
                if tails is not None:
                    connection.expected = connection.head + tails[sequence]
                else:
                    connection.expected = make(connection.number, sequence)
                sending.append(connection)
            else:
                connection.expected = None
                self._on_answered(connection)
        self._send_all(sending)

    def _send_all(self, sending: list[HubConnection]) -> None:
        """Send the `expected` message of each connection."""
        clock = time.monotonic_ns
        taken: list[int] = []
        note_taken = taken.append
        for connection in sending:
            connection.sent_ns = clock()
            try:
                note_taken(connection.send(connection.expected or b""))
            except BlockingIOError:
                note_taken(0)
            except OSError as error:
                note_taken(0)
                self._on_lost(connection, _kind(error))
        self._counts.bytes_sent += sum(taken)
        if taken.count(self._share.payload.largest) != len(taken):
            # Some messages are smaller than the largest, or did not fit.
            self._keep_rests(sending, taken)
        if self._datagrams:
            self._counts.datagrams_sent += sum(
                connection.datagram and sent > 0
                for connection, sent in zip(sending, taken, strict=True)
            )

    def _keep_rests(self, sending: list[HubConnection], taken: list[int]) -> None:
        for connection, sent in zip(sending, taken, strict=True):
            message = connection.expected or b""
            if sent < len(message) and connection.fileno() >= 0:
                self._keep(connection, message[sent:])

    def _note_datagrams(self, batch: list[HubConnection]) -> None:
        for connection in batch:
            if connection.datagram:
                connection.highest = connection.sequence - 1
                self._counts.datagrams_received += 1

    def send(self, connection: HubConnection, due_ns: int, now: int) -> None:
        """Send a connection's next message, and keep what the socket does not accept.

        Args:
            connection: the connection to send on.
            due_ns: when the message was due, on the monotonic clock.
            now: the current instant.
        """
        sequence = connection.sequence
        tails = self._share.payload.tails
        if tails is not None:
            message = connection.head + tails[sequence]
        else:
            message = self._share.payload.message(connection.number, sequence)
        connection.sequence = sequence + 1
        if connection.fresh or self._share.plan.pipeline > 1 or connection.waits:
            connection.listed().append(UnderWay(sequence, message, due_ns, now))
        else:
            connection.under_way = None
            connection.expected = message
            connection.due_ns = due_ns
            connection.sent_ns = now
        try:
            taken = connection.send(message) if connection.unsent is None else 0
        except BlockingIOError:
            taken = 0
        except OSError as error:
            self._on_lost(connection, _kind(error))
            return
        self._counts.bytes_sent += taken
        if taken < len(message):
            self._keep(connection, message[taken:])
        elif connection.datagram:
            self._counts.datagrams_sent += 1

    def _keep(self, connection: HubConnection, rest: bytes) -> None:
        """Keep what the socket did not accept, to be sent when it accepts more.

        A datagram that it did not accept is lost, as if on the network.
        """
        if connection.datagram:
            return
        if connection.unsent is None:
            self._set.change(connection.fileno(), READABLE | WRITABLE)
            connection.unsent = bytearray()
            # A reply that comes now may be too early: the quick comparison does not suffice.
            connection.listed()
        connection.unsent += rest

    def _serve_other(self, descriptor: int, connection: HubConnection | None, events: int) -> None:
        """Serve events other than a reply on an open connection."""
        if connection is not None:
            self._move(connection, events)
        else:
            self._on_other(descriptor, events)

    def _move(self, connection: HubConnection, events: int) -> None:
        """Send what did not fit before, and receive data or the error of a connection."""
        try:
            if events & WRITABLE and connection.unsent is not None:
                taken = connection.send(connection.unsent)
                self._counts.bytes_sent += taken
                del connection.unsent[:taken]
                if not connection.unsent:
                    connection.unsent = None
                    self._set.change(connection.fileno(), READABLE)
            if events & ~WRITABLE:
                data = connection.recv(CHUNK)
                self._counts.bytes_received += len(data)
                self._take(connection, data, time.monotonic_ns())
        except BlockingIOError:
            return
        except OSError as error:
            self._on_lost(connection, _kind(error))

    def _take(self, connection: HubConnection, data: bytes, now: int) -> None:
        """Handle what came: several replies, part of one, a wrong one, or the end of the stream."""
        if connection.datagram:
            self._take_datagram(connection, data, now)
        elif not data:
            self._on_lost(
                connection, FailureKind.TRUNCATED if connection.partial else FailureKind.CLOSED
            )
        elif connection.overdue:
            self._on_lost(connection, FailureKind.TIMEOUT)
        else:
            self._take_stream(connection, data, now)

    def _take_stream(self, connection: HubConnection, data: bytes, now: int) -> None:
        self._note_first_byte(connection, now)
        under_way = connection.listed()
        if connection.partial is not None:
            connection.partial += data
            if under_way and len(connection.partial) < len(under_way[0].message):
                return
            data = bytes(connection.partial)
            connection.partial = None
        checked = check(
            self._share.payload, connection.number, connection.sequence - 1, under_way, data
        )
        self._counts.errors.update(checked.wrong)
        self._counts.wrong += checked.completed_wrong
        self._note(checked.completed, now)
        if not checked.in_step:
            self._on_lost(connection, None)
            return
        if connection.unsent is not None and len(connection.unsent) > sum(
            len(one.message) for one in under_way
        ):
            # A reply to bytes that have not left: accepting it would let `unsent` grow for ever.
            self._on_lost(connection, FailureKind.FOREIGN)
            return
        if checked.rest:
            connection.partial = bytearray(checked.rest)
        for _ in checked.completed:
            if connection.fileno() < 0:
                return
            self._on_answered(connection)

    def _note(self, completed: list[UnderWay], now: int) -> None:
        times = self._recorder.times
        for one in completed:
            times.service.append(now - one.sent_ns)
            if self._open_loop:
                times.response.append(now - one.due_ns)
            times.replies.append(now)
        self._counts.messages += len(completed)

    def _take_datagram(self, connection: HubConnection, data: bytes, now: int) -> None:
        self._counts.datagrams_received += 1
        self._note_first_byte(connection, now)
        found = datagrams.take(self._share.payload, connection, data, self._counts)
        if found is not None:
            self._note([found], now)
            self._on_answered(connection)

    def _note_first_byte(self, connection: HubConnection, now: int) -> None:
        under_way = connection.listed()
        if connection.fresh and under_way:
            connection.fresh = False
            self._recorder.times.first_byte.append(now - under_way[0].sent_ns)


def _kind(error: OSError) -> str:
    """Return the kind of failure that an error of an open connection counts as."""
    return connected_failure(error.errno).kind
