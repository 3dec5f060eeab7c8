"""The thread of a connection, or its greenlet, of the engine with blocking sockets."""

from __future__ import annotations

import threading
import time

from echo_client.connection import EchoConnection
from echo_client.errors import ClientError, ClosedError, ReplyTimeoutError
from echo_client.failure_kinds import FailureKind
from echo_core.units import format_duration
from echo_load.engines.checking import Checked, InFlight, Run, check_one
from echo_load.engines.evidence import Failure, reason_of
from echo_load.engines.recorder import Times
from echo_load.engines.share import NEVER, back_off_seconds
from echo_load.engines.thread_control import (
    LONGEST_SLEEP_SECONDS,
    LONGEST_WAIT_SECONDS,
    ThreadControl,
)
from echo_load.measure.counts import Counts

# Bytes in flight that the socket buffers hold. With more, both ends could block in send, each
# waiting for the other to receive.
_MOST_BYTES_IN_FLIGHT = 64 * 1024
_CLOSED = "the server closed the connection"
_UNTIL_END = "no reply came until the end of the test"


class ConnectionThread(threading.Thread):
    """The thread of one connection.

    Args:
        control: the control of the engine.
        number: number of the connection, from 1.

    Attributes:
        number: number of the connection.
        settled: True if the initial connection is established or has failed, or if there is none.
        ended: True if the thread has nothing more to do.
        counts: counts since the beginning. The engine counts the messages, from the times.
        times: recorded times, which the engine moves to the recorder.
    """

    def __init__(self, control: ThreadControl, number: int) -> None:
        super().__init__(name=f"conn-{number:05d}", daemon=True)
        self.number = number
        self.settled = False
        self.ended = False
        self.counts = Counts()
        self.times = Times()
        self._control = control
        self._share = control.share
        self._connection: EchoConnection | None = None
        # Messages in flight in a window; None in a loop with one message in flight.
        self._in_flight: InFlight | None = None
        self._sequence = 0
        self._failures = 0
        self._stop_at = NEVER
        self._until_ns = NEVER

    def run(self) -> None:
        """Use the connection until nothing more is to be done; see `threading.Thread`."""
        try:
            self._control.guarded(self._run)
        finally:
            self.settled = self.ended = True

    def _run(self) -> None:
        lifetimes = self._share.lifetimes
        if lifetimes is None:
            self._keep_open(NEVER, at_first=True)
            return
        for begin, end in lifetimes.lifetimes(self.number):
            at_first = begin == -float("inf")
            if not at_first:
                self.settled = True
                self._control.wait_at_gate()
                self._control.sleep_until(self._control.origin_ns + int(begin * 1e9))
            self._keep_open(end, at_first=at_first)
            if self._is_over():
                return

    def cancel(self, failure: Failure | None) -> None:
        """End without having started; `failure` is the reason, or None if the test was stopped."""
        if failure is not None:
            self.counts.failed += 1
            self._note(failure, b"", waits=False)
        self.settled = self.ended = True

    def abort(self) -> None:
        """Wake the thread if it is blocked in a receive; `aborted` is set before."""
        connection = self._connection
        if connection is not None and not self.ended:
            connection.abort()

    def counted(self) -> Counts:
        """Return the counts, including the bytes of the open connection."""
        counts = self.counts.copy()
        if (connection := self._connection) is not None:
            counts.bytes_sent += connection.bytes_sent
            counts.bytes_received += connection.bytes_received
        return counts

    def _is_over(self) -> bool:
        """Return whether the connection sends nothing more, also in later periods."""
        quota = self._share.quota(self.number)
        if self._control.aborted or (quota is not None and self._sequence >= quota):
            return True
        if time.monotonic_ns() < self._share.end_ns.value:
            return False
        return not (self._share.plan.open_loop and self._control.schedule.is_overdue)

    def _keep_open(self, end: float, *, at_first: bool) -> None:
        """Open the connection, use it, and reopen it, until the end of a period.

        Args:
            end: end of the period in seconds since the first stage began.
            at_first: whether the connection is open from the beginning, so that it is opened before
                the gate.
        """
        if not at_first:
            self._until_ns = self._instant(end)
        while not self._control.aborted:
            connection = self._connect()
            self.settled = True
            if not self._control.started or at_first:
                self._control.wait_at_gate()
                self._until_ns = self._instant(end)
                at_first = False
            if connection is not None:
                self._use(connection)
            if self._is_over() or time.monotonic_ns() >= self._until_ns:
                return
            if self._share.gives_up(self._failures):
                return
            if self._failures > 1 or connection is None:
                pause = back_off_seconds(self._failures)
                self._control.sleep_until(time.monotonic_ns() + int(pause * 1e9))

    def _instant(self, end: float) -> int:
        """Return an instant of the timeline in nanoseconds of the monotonic clock."""
        if end >= NEVER or end == float("inf"):
            return NEVER
        return self._control.origin_ns + int(end * 1e9)

    def _connect(self) -> EchoConnection | None:
        """Open the connection; count the failure and return None if that fails."""
        share, control = self._share, self._control
        headers, client = control.headers, share.clients_before + self.number
        header = headers.header(client) if headers is not None else None
        control.wait_for_turn_to_connect()
        with control.connects:
            if control.aborted:
                return None
            try:
                connection = EchoConnection.connect(
                    share.addresses(self.number),
                    timeout=share.plan.reply_timeout,
                    connect_timeout=share.plan.connect_timeout,
                    tls=control.tls,
                    server_name=share.plan.tls.server_name,
                    source=share.source(self.number),
                    options=control.options,
                    header=header,
                )
            except ClientError as error:
                self.counts.errors[error.kind] += 1
                self.counts.failed += 1
                self._failures += 1
                control.recorder.evidence.add_failure(
                    self.number, error.kind, None, reason_of(error)
                )
                return None
        self.times.connect.append(connection.connect_ns)
        if connection.handshake_ns:
            self.times.handshake.append(connection.handshake_ns)
            self.counts.ciphers[connection.cipher] += 1
        self.counts.opened += 1
        return connection

    def _use(self, connection: EchoConnection) -> None:
        """Exchange messages until the connection has sent all, is lost, or is to be replaced."""
        self._stop_at = self._share.stop_at(self.number, self._sequence)
        # `abort` sees the connection from here on; an earlier call is seen in `aborted`.
        self._connection = connection
        try:
            with connection:
                if not self._control.aborted:
                    self._exchange(connection)
                if (information := connection.tcp_info()) is not None:
                    self.counts.retransmits += information.retransmits
                    self.times.kernel.append(information.round_trip_us * 1000)
        finally:
            self._connection = None
            self.counts.closed += 1
            self.counts.bytes_sent += connection.bytes_sent
            self.counts.bytes_received += connection.bytes_received

    def _exchange(self, connection: EchoConnection) -> None:
        """Exchange messages in an open or a closed loop, and count the failure that ends it."""
        if self._share.plan.open_loop:
            loop = self._in_open_loop
        elif self._share.plan.pipeline > 1 and self._share.payload.largest <= _MOST_BYTES_IN_FLIGHT:
            loop = self._in_window
        else:
            loop = self._in_closed_loop
        try:
            loop(connection)
        except ReplyTimeoutError as error:
            late = Failure.of(error) if error.received else self._timeout(connection)
            self._give_up(late, error.received)
        except ClosedError as error:
            kind = FailureKind.TRUNCATED if error.received else FailureKind.CLOSED
            self._give_up(Failure(kind, _CLOSED), error.received)
        except ClientError as error:
            self._give_up(Failure.of(error), error.received)

    def _in_closed_loop(self, connection: EchoConnection) -> None:
        """Send the next message when the last reply has arrived."""
        end = self._share.end_ns
        until_ns, stop_at = self._until_ns, self._stop_at
        payload, number = self._share.payload, self.number
        head, tails = payload.head(number), payload.tails
        clock = time.monotonic_ns
        note_service, note_reply = self.times.service.append, self.times.replies.append
        round_trip = connection.round_trip
        sequence = first = self._sequence
        now = clock()
        try:
            while now < end.value and now < until_ns and sequence < stop_at:
                # The message is sent when the last reply has arrived.
                begin = now
                message = (
                    payload.message(number, sequence) if tails is None else head + tails[sequence]
                )
                sequence += 1
                reply = round_trip(message)
                now = clock()
                wrong = None if reply == message else self._classified(sequence - 1, message, reply)
                if wrong is None or wrong.completed:
                    note_service(now - begin)
                    note_reply(now)
                    if sequence - first == 1:
                        self.times.first_byte.append(now - begin)
                if wrong is not None and not wrong.in_step:
                    self._give_up(None)
                    return
                self._failures = 0
        finally:
            self._sequence = sequence

    def _in_open_loop(self, connection: EchoConnection) -> None:
        """Send messages of the schedule, each when it is due and this connection is free."""
        take = self._control.schedule.take
        times, clock = self.times, time.monotonic_ns
        first = self._sequence
        while self._sequence < self._stop_at and not self._control.aborted:
            due = take()
            if due is None:
                self._idle_until_end(connection)
                return
            waited = clock() < due
            if waited and not self._is_open_until(due, connection):
                self._control.schedule.give_back(due)
                return
            sequence = self._sequence
            message = self._share.payload.message(self.number, sequence)
            self._sequence += 1
            begin = clock()
            if waited:
                times.lateness.append(begin - due)
            reply = connection.round_trip(message)
            now = clock()
            wrong = None if reply == message else self._classified(sequence, message, reply)
            if wrong is None or wrong.completed:
                if sequence == first:
                    times.first_byte.append(now - begin)
                times.service.append(now - begin)
                times.response.append(now - due)
                times.replies.append(now)
            if wrong is not None and not wrong.in_step:
                self._give_up(None)
                return
            self._failures = 0

    def _idle_until_end(self, connection: EchoConnection) -> None:
        """Keep the connection open until the end, unless the number of messages was limited."""
        through = self._control.schedule.through
        if through or self._is_open_until(self._share.end_ns.value, connection):
            self._until_ns = 0

    def _is_open_until(self, instant_ns: int, connection: EchoConnection) -> bool:
        """Wait without messages in flight; return False if the connection is lost, or aborted."""
        control = self._control
        while not control.aborted and (left := instant_ns - time.monotonic_ns()) > 0:
            seconds = left / 1e9 - LONGEST_SLEEP_SECONDS / 2
            if seconds < LONGEST_SLEEP_SECONDS / 2:
                # More precise than waiting for data.
                control.sleep_until(instant_ns)
                continue
            try:
                data = connection.idle(min(seconds, LONGEST_WAIT_SECONDS))
            except ClientError as error:
                self._give_up(Failure.of(error), waits=False)
                return False
            if data is not None:
                self._handle_unexpected(data)
                return False
        return not control.aborted

    def _handle_unexpected(self, data: bytes) -> None:
        """Handle bytes, or the end of the stream, received when no reply was expected."""
        if data:
            last = self._sequence - 1
            self._count_wrong(InFlight().check(self._share.payload, self.number, last, data))
        self._give_up(None if data else Failure(FailureKind.CLOSED, _CLOSED), waits=False)

    def _in_window(self, connection: EchoConnection) -> None:
        """Run a closed loop with several messages in flight."""
        payload, times = self._share.payload, self.times
        in_flight, fresh = InFlight(), True
        self._in_flight = in_flight
        while True:
            now = time.monotonic_ns()
            over = now >= self._share.end_ns.value or now >= self._until_ns
            count = 0 if over else self._capacity(in_flight)
            if count > 0:
                data, ends = payload.run(self.number, self._sequence, count)
                in_flight.add(Run(self._sequence, data, ends, now))
                self._sequence += count
                connection.send(data)
            if not in_flight.count:
                return
            data = connection.receive()
            now = time.monotonic_ns()
            if not data:
                kind = FailureKind.TRUNCATED if in_flight.partial else FailureKind.CLOSED
                self._give_up(Failure(kind, _CLOSED))
                return
            if fresh:
                fresh = False
                self._answered(now - in_flight.runs[0].sent_ns)
            checked = in_flight.check(payload, self.number, self._sequence - 1, data)
            for completed in checked.completed:
                times.service.append(now - completed.run.sent_ns)
                times.counts.append(completed.messages)
                times.replies.append(now)
            self._count_wrong(checked)
            if not checked.in_step:
                self._give_up(None)
                return

    def _capacity(self, in_flight: InFlight) -> int:
        """Return the number of messages that may be sent now, given those in flight."""
        fitting = (_MOST_BYTES_IN_FLIGHT - in_flight.bytes) // self._share.payload.largest
        allowed = self._share.plan.pipeline - in_flight.count
        return min(fitting, allowed, self._stop_at - self._sequence)

    def _answered(self, nanoseconds: int) -> None:
        """Record the time to the first reply of a connection."""
        self._failures = 0
        self.times.first_byte.append(nanoseconds)

    def _classified(self, sequence: int, message: bytes, reply: bytes) -> Checked:
        """Classify and count a wrong reply; the right one may be in it, followed by more bytes."""
        checked = check_one(self._share.payload, self.number, sequence, message, reply)
        self._count_wrong(checked)
        return checked

    def _count_wrong(self, checked: Checked) -> None:
        """Count wrong replies, and keep the first of them as evidence."""
        self.counts.errors.update(checked.wrong)
        self.counts.wrong += checked.completed_wrong
        for found in checked.differences:
            self._control.recorder.evidence.add_reply(self.number, found)

    def _timeout(self, connection: EchoConnection) -> Failure:
        """Return the failure of an overdue reply.

        Wait for it for a second timeout, to distinguish a late reply from a missing one.
        """
        seconds = self._share.plan.reply_timeout
        try:
            if connection.receive():
                reason = f"the reply took longer than {format_duration(seconds)}"
                return Failure(FailureKind.TIMEOUT, reason)
        except ReplyTimeoutError:
            reason = f"no reply came within {format_duration(2 * seconds)}"
            return Failure(FailureKind.NO_REPLY, reason)
        except ClientError as error:
            return Failure.of(error)
        return Failure(FailureKind.CLOSED, _CLOSED)

    def _give_up(
        self, failure: Failure | None, received: bytes = b"", *, waits: bool = True
    ) -> None:
        """Count the connection as lost.

        Args:
            failure: the failure; None if it has been counted already.
            received: the received part of the reply to the last message.
            waits: whether a reply is expected.
        """
        if self._control.aborted:
            if self._control.verdict is None:
                return
            failure = Failure(FailureKind(self._control.verdict), _UNTIL_END)
        if failure is not None:
            self._note(failure, received, waits=waits)
        self.counts.lost += 1
        self._failures += 1

    def _note(self, failure: Failure, received: bytes, *, waits: bool) -> None:
        """Count a failure, and keep its evidence if it is the first of its kind; see `_give_up`."""
        evidence = self._control.recorder.evidence
        in_flight = self._listed(received) if waits else InFlight()
        self.counts.errors[failure.kind] += in_flight.failed(failure.kind)
        if (begun := in_flight.begun(failure.kind)) is not None:
            evidence.add_reply(self.number, begun)
        evidence.add_failure(self.number, failure.kind, in_flight.oldest, failure.reason)

    def _listed(self, received: bytes) -> InFlight:
        """Return the messages in flight, with the received part of the reply to the only one."""
        if self._in_flight is not None:
            return self._in_flight
        payload, sequence = self._share.payload, self._sequence - 1
        run = Run.of_one(sequence, payload.message(self.number, sequence), 0)
        in_flight = InFlight([run])
        in_flight.check(payload, self.number, sequence, received)
        return in_flight
