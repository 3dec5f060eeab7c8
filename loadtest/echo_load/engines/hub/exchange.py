"""The hub engine's hot path: receive, check and send, on many connections at a time.

There is no greenlet and no watcher per connection. With one message in flight, a round trip takes
one receive and one send on a raw socket, a comparison of all bytes, and appending to an array. With
a pipeline, a whole run of messages takes that: they are sent together, and checked as a stream.
Anything but exactly the expected reply is handled separately.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence

from echo_client.errors import lost
from echo_client.failure_kinds import FailureKind
from echo_core.epoll_set import READABLE, WRITABLE, EpollSet, OtherDirectionError, Ready
from echo_core.units import format_duration
from echo_load.engines.checking import Completed, Difference, InFlight, Run
from echo_load.engines.evidence import Failure
from echo_load.engines.hub import datagrams
from echo_load.engines.hub.connection import HandshakeRejectedError, HubConnection
from echo_load.engines.recorder import FOLD_AT, Recorder
from echo_load.engines.share import Share
from echo_load.measure.counts import Counts

# Largest number of replies, and of their bytes, in a batch, so that they fit in the CPU caches.
_BATCH_REPLIES = 64
_BATCH_BYTES = 256 * 1024
# Largest number of bytes that are received at once, and of a run of several messages.
_MOST_BYTES = 256 * 1024


class Exchange:
    """The exchange of messages and checked replies on many connections.

    Args:
        share: share of the generator.
        recorder: receives the times and the failures.
        counts: counts bytes, messages and failures.
        epoll_set: watches the connections.
        on_answered: called with a connection that has received a reply, to continue or to end it.
        on_writable: called with a connection whose socket has accepted all bytes after a delay.
        on_lost: called with a connection to give up, and its failure, or None if that has been
            counted already.
        on_other: called with a descriptor that does not belong to an open connection, and its
            events.
        after_step: called after each batch of replies.

    Attributes:
        connections: open connections by descriptor.
        pipeline: largest number of messages in flight on a connection.
        batch: smallest number of messages to send together, while at least as many more are due.
    """

    def __init__(
        self,
        share: Share,
        recorder: Recorder,
        counts: Counts,
        epoll_set: EpollSet,
        *,
        on_answered: Callable[[HubConnection], None],
        on_writable: Callable[[HubConnection], None],
        on_lost: Callable[[HubConnection, Failure | None], None],
        on_other: Callable[[int, int], None],
        after_step: Callable[[], None],
    ) -> None:
        self.connections: dict[int, HubConnection] = {}
        self._share = share
        self._recorder = recorder
        self._counts = counts
        self._set = epoll_set
        self._on_answered = on_answered
        self._on_writable = on_writable
        self._on_lost = on_lost
        self._on_other = on_other
        self._after_step = after_step
        self._open_loop = share.plan.open_loop
        self._datagrams = share.plan.speaks("udp")
        self.pipeline = share.plan.pipeline
        self._most = max(1, _MOST_BYTES // share.payload.largest)
        self.batch = 1 if self._datagrams else max(1, min(self.pipeline, self._most) // 2)
        # Exactly one reply: surplus bytes are received with the next one. For a datagram, one byte
        # more than that shows if it is too long.
        self._receive_size = min(share.payload.largest + self._datagrams, _MOST_BYTES)
        self._step = max(1, min(_BATCH_REPLIES, _BATCH_BYTES // self._receive_size))

    def serve(self, ready: Ready) -> None:
        """Handle the connections that are ready, a batch at a time."""
        # With one message in flight, all of these replies count as received at this instant.
        now = time.monotonic_ns()
        serve_some = self._serve_some if self.pipeline == 1 else self._serve_runs
        for begin in range(0, len(ready), self._step):
            serve_some(ready[begin : begin + self._step], now)
            self._after_step()
        if len(self._recorder.times.replies) >= FOLD_AT:
            self._recorder.fold()

    def _serve_some(self, ready: Ready, now: int) -> None:
        """Receive from all connections, check all replies, then send on all connections.

        Each step then has its code in the CPU caches: to do all three for one connection after the
        other took 10 % longer.
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
            except BlockingIOError as error:
                self._wait(connection, error)
            except OSError as error:
                self._on_lost(connection, _failure(error))
        self._counts.bytes_received += sum(map(len, replies))
        if replies != [connection.expected for connection in batch]:
            batch = self._sort_out(batch, replies, now)
        self._go_on(batch, now)

    def _serve_runs(self, ready: Ready, _now: int) -> None:
        """Receive and check the replies to runs of messages, and continue, for each connection."""
        connections = self.connections
        for descriptor, events in ready:
            connection = connections.get(descriptor)
            if connection is None or events != READABLE:
                self._serve_other(descriptor, connection, events)
                continue
            in_flight = connection.in_flight
            due = 0 if in_flight is None or connection.datagram else in_flight.bytes
            try:
                data = connection.recv(min(due, _MOST_BYTES) or _MOST_BYTES)
            except BlockingIOError as error:
                self._wait(connection, error)
                continue
            except OSError as error:
                self._on_lost(connection, _failure(error))
                continue
            self._counts.bytes_received += len(data)
            # Handling a run takes so long that replies to the next one may have arrived meanwhile.
            now = time.monotonic_ns()
            if (
                in_flight is not None
                and due
                and not (connection.fresh or connection.overdue or connection.unsent)
                and (run := in_flight.take_run(data)) is not None
            ):
                self._note([Completed(run, 0, len(run.ends))], now)
                self._on_answered(connection)
            else:
                self._take(connection, data, now)

    def _sort_out(
        self, batch: list[HubConnection], replies: list[bytes], now: int
    ) -> list[HubConnection]:
        """Return the connections whose replies are right; handle the other replies."""
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
        service = [now - connection.sent_ns for connection in batch]
        times.service.extend(service)
        if self._open_loop:
            times.response.extend([now - connection.due_ns for connection in batch])
        times.replies.extend(array("q", (now,)) * len(batch))
        self._counts.messages += len(batch)
        if self._datagrams:
            self._note_datagrams(batch, service)
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
                self._note_broken(connection, error)
        self._counts.bytes_sent += sum(taken)
        if taken.count(self._share.payload.largest) != len(taken):
            # Some messages are smaller than the largest one, or were not accepted completely.
            self._keep_rests(sending, taken)
        if self._datagrams:
            self._counts.datagrams_sent += sum(
                connection.datagram and sent > 0
                for connection, sent in zip(sending, taken, strict=True)
            )

    def _keep_rests(self, sending: list[HubConnection], taken: list[int]) -> None:
        """Keep the parts of messages that their sockets did not accept."""
        for connection, sent in zip(sending, taken, strict=True):
            message = connection.expected or b""
            if sent < len(message) and connection.fileno() >= 0:
                self._keep(connection, message, sent)

    def _note_datagrams(self, batch: list[HubConnection], service: list[int]) -> None:
        """Count the datagrams among right replies, and update the jitter."""
        received = 0
        for connection in batch:
            if connection.datagram:
                connection.highest = connection.sequence - 1
                received += 1
        self._counts.datagrams_received += received
        datagrams.note_round_trips(batch, service, self._counts)

    def capacity(self, connection: HubConnection) -> int:
        """Return the number of messages that can be sent on a connection with one `send`.

        It is 0 until the socket has accepted all earlier bytes; otherwise `unsent` would grow.
        """
        if connection.unsent is not None:
            return 0
        return min(
            self.pipeline - connection.messages_in_flight,
            connection.stop_at - connection.sequence,
            1 if connection.datagram else self._most,
        )

    def send(
        self, connection: HubConnection, count: int, now: int, due_ns: Sequence[int] = ()
    ) -> None:
        """Send a connection's next messages together, and keep what the socket does not accept.

        Args:
            connection: the connection to send on.
            count: number of messages; not more than its capacity.
            now: current instant in nanoseconds of the monotonic clock.
            due_ns: instant at which each message was due; empty in a closed loop.
        """
        sequence = connection.sequence
        connection.sequence = sequence + count
        if count > 1:
            message, ends = self._share.payload.run(connection.number, sequence, count)
            connection.listed().add(Run(sequence, message, ends, now, due_ns))
        else:
            message = self._message(connection, sequence)
            if connection.fresh or self.pipeline > 1 or connection.waits:
                connection.listed().add(Run.of_one(sequence, message, now, due_ns))
            else:
                connection.in_flight = None
                connection.expected = message
                connection.due_ns = due_ns[0] if due_ns else now
                connection.sent_ns = now
        try:
            taken = connection.send(message)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            taken = 0
            self._note_broken(connection, error)
            if connection.broken is None:
                return
        self._counts.bytes_sent += taken
        if taken < len(message):
            self._keep(connection, message, taken)
        elif connection.datagram:
            self._counts.datagrams_sent += 1

    def _message(self, connection: HubConnection, sequence: int) -> bytes:
        payload = self._share.payload
        if payload.tails is None:
            return payload.message(connection.number, sequence)
        return connection.head + payload.tails[sequence]

    def _keep(self, connection: HubConnection, data: bytes, sent: int) -> None:
        """Keep the bytes that the socket did not accept, to send them when it is writable.

        A datagram that it did not accept is not sent again, and counts as lost later.
        """
        if connection.datagram:
            return
        self._set.change(connection.fileno(), READABLE | WRITABLE)
        connection.unsent = memoryview(data)[sent:]
        # A reply may now arrive before its message was sent. Only the full check detects that.
        connection.listed()

    def _serve_other(self, descriptor: int, connection: HubConnection | None, events: int) -> None:
        """Handle events other than a reply on an open connection."""
        if connection is not None:
            self._move(connection, events)
        else:
            self._on_other(descriptor, events)

    def _move(self, connection: HubConnection, events: int) -> None:
        """Send unsent bytes, and receive data or the error of a connection."""
        try:
            if events & WRITABLE and connection.crossed:
                connection.crossed = False
                unsent = 0 if connection.unsent is None else WRITABLE
                self._set.change(connection.fileno(), READABLE | unsent)
            if events & WRITABLE and connection.unsent is not None and connection.broken is None:
                self._send_rest(connection, connection.unsent)
            if (events & ~WRITABLE or connection.broken) and connection.fileno() >= 0:
                data = connection.recv(_MOST_BYTES)
                self._counts.bytes_received += len(data)
                if not data and isinstance(connection.broken, ConnectionResetError):
                    # The failed send has already consumed the error of the socket.
                    raise connection.broken
                self._take(connection, data, time.monotonic_ns())
        except BlockingIOError as error:
            if connection.broken is None:
                self._wait(connection, error)
            else:
                self._on_lost(connection, _failure(connection.broken))
        except OSError as error:
            self._on_lost(connection, _failure(error))

    def _note_broken(self, connection: HubConnection, error: OSError) -> None:
        """Note a failed send: the connection is given up once what had arrived is received."""
        if isinstance(error, ConnectionError) and not connection.datagram:
            connection.broken = error
        else:
            self._on_lost(connection, _failure(error))

    def _wait(self, connection: HubConnection, blocked: BlockingIOError) -> None:
        """Wait for the event that a receive needs, which over TLS is not always that of bytes."""
        if isinstance(blocked, OtherDirectionError):
            connection.crossed = True
            self._set.change(connection.fileno(), WRITABLE)

    def _send_rest(self, connection: HubConnection, unsent: bytes | memoryview) -> None:
        """Send bytes that the socket did not accept before.

        Raises:
            OSError: the connection broke.
        """
        try:
            taken = connection.send(unsent)
        except BlockingIOError:
            return
        except ConnectionError as error:
            self._note_broken(connection, error)
            return
        self._counts.bytes_sent += taken
        connection.unsent = unsent[taken:] or None
        if connection.unsent is None:
            self._set.change(connection.fileno(), READABLE)
            self._on_writable(connection)

    def take_surplus(self, connection: HubConnection) -> bool:
        """Handle bytes that came with a connection's last reply; return whether there were any.

        Replies are received with their exact size, so that other surplus comes with the next one.
        """
        if connection.datagram or connection.fileno() < 0:
            return False
        try:
            data = connection.recv(self._receive_size)
        except OSError:
            # There are none, or the target has ended the connection, which all agree is over.
            return False
        if data:
            self._counts.bytes_received += len(data)
            self._take(connection, data, time.monotonic_ns())
        return bool(data)

    def _take(self, connection: HubConnection, data: bytes, now: int) -> None:
        """Handle any received data: replies, right or wrong, a part, or the end of the stream."""
        if connection.datagram:
            self._take_datagram(connection, data, now)
        elif not data:
            partial = connection.listed().partial
            kind = FailureKind.TRUNCATED if partial else FailureKind.CLOSED
            self._on_lost(connection, Failure(kind, "the server closed the connection"))
        elif connection.overdue:
            reason = f"the reply took longer than {format_duration(self._share.plan.reply_timeout)}"
            self._on_lost(connection, Failure(FailureKind.TIMEOUT, reason))
        else:
            self._take_stream(connection, data, now)

    def _take_stream(self, connection: HubConnection, data: bytes, now: int) -> None:
        self._note_first_byte(connection, now)
        in_flight = connection.listed()
        checked = in_flight.check(
            self._share.payload, connection.number, connection.sequence - 1, data
        )
        if checked.wrong:
            self._counts.errors.update(checked.wrong)
            self._counts.wrong += checked.completed_wrong
            for found in checked.differences:
                self._recorder.evidence.add_reply(connection.number, found)
        self._note(checked.completed, now)
        if not checked.in_step:
            self._on_lost(connection, None)
        elif connection.unsent is not None and len(connection.unsent) > in_flight.bytes:
            # A reply to bytes that have not been sent.
            self._counts.errors[FailureKind.FOREIGN] += 1
            self._recorder.evidence.add_reply(connection.number, _too_early(in_flight, data))
            self._on_lost(connection, None)
        elif checked.completed:
            if self.pipeline == 1 and not in_flight.partial:
                # It takes more memory than the connection, which may be idle for long.
                connection.in_flight = None
            self._on_answered(connection)

    def _note(self, completed: list[Completed], now: int) -> None:
        """Record the times of messages that were answered, and count them."""
        times = self._recorder.times
        for run, first, count in completed:
            if self._open_loop:
                times.service.extend([now - run.sent_ns] * count)
                times.response.extend([now - due for due in run.due_ns[first : first + count]])
                times.replies.extend([now] * count)
            else:
                times.service.append(now - run.sent_ns)
                times.replies.append(now)
                if self.pipeline > 1:
                    times.counts.append(count)
            self._counts.messages += count

    def _take_datagram(self, connection: HubConnection, data: bytes, now: int) -> None:
        self._counts.datagrams_received += 1
        self._note_first_byte(connection, now)
        found = datagrams.take(
            self._share.payload, connection, data, self._counts, self._recorder.evidence
        )
        if found is not None:
            self._note([Completed(found, 0, 1)], now)
            datagrams.note_round_trips((connection,), (now - found.sent_ns,), self._counts)
            self._on_answered(connection)

    def _note_first_byte(self, connection: HubConnection, now: int) -> None:
        if connection.fresh and (runs := connection.listed().runs):
            connection.fresh = False
            self._recorder.times.first_byte.append(now - runs[0].sent_ns)


def _failure(error: OSError) -> Failure:
    """Return the failure for an error of an open connection."""
    if isinstance(error, HandshakeRejectedError):
        return Failure(FailureKind.HANDSHAKE, str(error))
    return Failure.of(lost(error), error)


def _too_early(in_flight: InFlight, data: bytes) -> Difference:
    """Return the difference of a right reply to bytes that have not been sent."""
    note = f"{len(data):,} bytes came before the message was sent"
    return Difference(FailureKind.FOREIGN, in_flight.oldest or 0, b"", data, note)
