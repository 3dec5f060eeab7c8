"""Blocking sockets: a thread per connection, as in the tutorial, or a greenlet.

Which of the two a `threading.Thread` is depends on whether the process is monkey-patched: the
threads engine runs in one that is not, the greenlets engine in one that is.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from echo_client.connection import EchoConnection
from echo_client.errors import ClientError, ClosedError, ReplyTimeoutError
from echo_client.failure_kinds import FailureKind
from echo_core.units import format_duration
from echo_load.engines.checking import Checked, InFlight, Run, check_one
from echo_load.engines.evidence import Failure, reason_of
from echo_load.engines.recorder import Recorder, Times
from echo_load.engines.share import NEVER, Share, back_off_seconds
from echo_load.engines.tickets import Tickets
from echo_load.engines.timers import sleep_exactly
from echo_load.measure.counts import Counts

# A thread needs little of the default stack of 8 MiB, which adds up with thousands.
STACK_SIZE = 256 * 1024
# A thread that waits for the GIL wakes up once per interval to request it. These threads release it
# at every receive anyway, and 5000 of them waking every 5 ms, the default, kept a core busy with
# that alone: 200 messages per second instead of 20,000.
SWITCH_SECONDS = 0.5
# With more bytes than this in flight, each end could wait for the other to read.
_MOST_UNDER_WAY = 64 * 1024
_LONGEST_WAIT_SECONDS = 3600.0
_CLOSED = "the server closed the connection"
_UNTIL_END = "no reply came until the end of the test"
# Sleeps up to this long are not cut short by `abort`.
_LONGEST_SLEEP_SECONDS = 0.1


class ThreadsEngine:
    """Runs a share of the connections as threads named `conn-00001` and so on.

    Args:
        share: what it has to do.
        recorder: where times are recorded.
    """

    def __init__(self, share: Share, recorder: Recorder) -> None:
        self.share = share
        self.recorder = recorder
        self.connects = threading.BoundedSemaphore(share.plan.connects_in_flight)
        self.tls = share.tls_context()
        self.tickets = Tickets(share)
        self.aborted = False
        self.verdict: str | None = None
        self.origin_ns = 0
        self._gate = threading.Event()
        self._pace_lock = threading.Lock()
        self._next_connect = 0.0
        self._broken_off = threading.Event()
        self._error: Exception | None = None
        self._ends_when_idle = share.ends_when_idle
        self._clients = [_Client(self, number) for number in share.numbers]

    def open(self) -> None:
        """Start the threads; each connects as soon as the semaphore lets it."""
        threading.stack_size(STACK_SIZE)
        sys.setswitchinterval(SWITCH_SECONDS)
        sleep_exactly()
        # Starting a thread blocks until it runs: thousands are started from a separate thread.
        starter = threading.Thread(
            target=self.guarded, args=[self._start_clients], name="starter", daemon=True
        )
        starter.start()

    @property
    def settled(self) -> bool:
        """Whether every initial connection is established or has failed."""
        self._raise()
        return all(client.settled for client in self._clients)

    @property
    def started(self) -> bool:
        """Whether the gate is open."""
        return self._gate.is_set()

    def start(self, gate_ns: int) -> None:
        """Open the gate; threads that pass it wait for the instant."""
        self.origin_ns = gate_ns
        self.tickets.start(self.origin_ns)
        self._gate.set()

    def wait_at_gate(self) -> None:
        """Wait, in a thread of this engine, until the gate is open and the instant has come.

        It needs both: an Event releases its threads one after the other, and the first would send
        and delay the last for seconds.
        """
        self._gate.wait()
        self.sleep_until(self.origin_ns)

    def sleep_until(self, instant_ns: int) -> None:
        """Wait, in a thread of this engine, for an instant or for `abort`."""
        while not self.aborted and (left := instant_ns - time.monotonic_ns()) > 0:
            seconds = min(left / 1e9, _LONGEST_WAIT_SECONDS)
            if seconds < _LONGEST_SLEEP_SECONDS:
                # As exact as the system allows: waiting for an event takes longer.
                time.sleep(seconds)
            else:
                self._broken_off.wait(seconds - _LONGEST_SLEEP_SECONDS / 2)

    def wait_for_turn_to_connect(self) -> None:
        """Wait, in a thread of this engine, until the rate of connecting allows one more."""
        gap = self.share.connect_gap
        if not gap:
            return
        with self._pace_lock:
            turn = max(self._next_connect, time.monotonic())
            self._next_connect = turn + gap
        self.sleep_until(int(turn * 1e9))

    def abort(self, verdict: str | None = None) -> None:
        """Stop at once: wake every thread, even from a blocking receive."""
        self.verdict = verdict
        self.aborted = True
        self._broken_off.set()
        self._gate.set()
        for client in self._clients:
            client.abort()

    @property
    def ended(self) -> bool:
        """Whether every thread has ended and nothing more is to be sent."""
        self._raise()
        over = self.aborted or self._ends_when_idle
        over = over or time.monotonic_ns() >= self.share.end_ns.value
        return over and all(client.ended for client in self._clients)

    def join(self, timeout: float) -> bool:
        """Join all threads within `timeout` seconds; return False if some still run."""
        deadline = time.monotonic() + timeout
        for client in self._clients:
            if client.is_alive():
                client.join(max(0.0, deadline - time.monotonic()))
        return not any(client.is_alive() for client in self._clients)

    def counts(self) -> Counts:
        """Add up what the threads have counted, and collect their times."""
        counts = Counts()
        for client in self._clients:
            client.counts.messages += client.times.move_to(self.recorder.times)
            counts.add(client.counted())
        if self.ended and (unsent := self.tickets.rest()):
            counts.errors[FailureKind.UNSENT] += unsent
        return counts

    def messages_by_connection(self) -> list[int]:
        """Return the number of round trips of each connection."""
        return [client.counts.messages for client in self._clients]

    def guarded(self, action: Callable[[], None]) -> None:
        """Keep an exception for the generator: if it left the thread, it would end only that."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  # `_raise` raises it
            self._error = self._error or error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _start_clients(self) -> None:
        refused: Failure | None = None
        for client in self._clients:
            if refused is not None or self.aborted:
                client.cancel(refused)
                continue
            try:
                client.start()
            except RuntimeError as error:
                # The system allows no more threads (pthread_create(3), EAGAIN).
                refused = Failure(FailureKind.NO_THREAD, str(error))
                client.cancel(refused)


class _Client(threading.Thread):
    """One connection: connects, waits at the gate, then sends and checks.

    It writes its counts and times; the engine takes the times away, and counts their messages.
    """

    def __init__(self, engine: ThreadsEngine, number: int) -> None:
        super().__init__(name=f"conn-{number:05d}", daemon=True)
        self.number = number
        self.settled = False
        self.ended = False
        self.counts = Counts()
        self.times = Times()
        self._engine = engine
        self._share = engine.share
        self._connection: EchoConnection | None = None
        # Several messages in flight; None if there is one at most.
        self._in_flight: InFlight | None = None
        self._sequence = 0
        self._failures = 0
        self._stop_at = NEVER
        self._until_ns = NEVER

    def run(self) -> None:
        try:
            self._engine.guarded(self._run)
        finally:
            self.settled = self.ended = True

    def _run(self) -> None:
        lifetimes = self._share.lifetimes
        if lifetimes is None:
            self._live(NEVER, at_once=True)
            return
        for begin, end in lifetimes.lifetimes(self.number):
            at_once = begin == -float("inf")
            if not at_once:
                self.settled = True
                self._engine.wait_at_gate()
                self._engine.sleep_until(self._engine.origin_ns + int(begin * 1e9))
            self._live(end, at_once=at_once)
            if self._is_over():
                return

    def cancel(self, failure: Failure | None) -> None:
        """End without having run; `failure` is why, or None if the test was stopped."""
        if failure is not None:
            self.counts.errors[failure.kind] += 1
            self.counts.failed += 1
            self._note(failure, b"", waits=False)
        self.settled = self.ended = True

    def abort(self) -> None:
        """Wake the thread if it waits for a reply; the engine's `aborted` is set by now."""
        connection = self._connection
        if connection is not None and not self.ended:
            connection.abort()

    def counted(self) -> Counts:
        """Return the counts, including the bytes of the open connection so far."""
        counts = self.counts.copy()
        if (connection := self._connection) is not None:
            counts.bytes_sent += connection.bytes_sent
            counts.bytes_received += connection.bytes_received
        return counts

    def _is_over(self) -> bool:
        quota = self._share.quota(self.number)
        return (
            self._engine.aborted
            or time.monotonic_ns() >= self._share.end_ns.value
            or (quota is not None and self._sequence >= quota)
        )

    def _live(self, end: float, *, at_once: bool) -> None:
        """Keep a connection open, and reopen it, until an end in seconds of the timeline."""
        if not at_once:
            self._until_ns = self._instant(end)
        while not self._engine.aborted:
            connection = self._connect()
            self.settled = True
            if not self._engine.started or at_once:
                self._engine.wait_at_gate()
                self._until_ns = self._instant(end)
                at_once = False
            if connection is not None:
                self._use(connection)
            if self._is_over() or time.monotonic_ns() >= self._until_ns:
                return
            if self._share.gives_up(self._failures):
                return
            if self._failures > 1 or connection is None:
                pause = back_off_seconds(self._failures)
                self._engine.sleep_until(time.monotonic_ns() + int(pause * 1e9))

    def _instant(self, end: float) -> int:
        if end >= NEVER or end == float("inf"):
            return NEVER
        return self._engine.origin_ns + int(end * 1e9)

    def _connect(self) -> EchoConnection | None:
        share, engine = self._share, self._engine
        engine.wait_for_turn_to_connect()
        with engine.connects:
            if engine.aborted:
                return None
            try:
                connection = EchoConnection.connect(
                    share.addresses(self.number),
                    timeout=share.plan.reply_timeout,
                    connect_timeout=share.plan.connect_timeout,
                    tls=engine.tls,
                    server_name=share.plan.tls.server_name,
                    source=share.source(self.number),
                )
            except ClientError as error:
                self.counts.errors[error.kind] += 1
                self.counts.failed += 1
                self._failures += 1
                engine.recorder.evidence.add_failure(
                    self.number, error.kind, None, reason_of(error)
                )
                return None
        self.times.connect.append(connection.connect_ns)
        if connection.handshake_ns:
            self.times.handshake.append(connection.handshake_ns)
        self.counts.opened += 1
        return connection

    def _use(self, connection: EchoConnection) -> None:
        """Send and check on a connection until it is done, lost or due to be replaced."""
        self._stop_at = self._share.stop_at(self.number, self._sequence)
        # First make it known to `abort`, then check `aborted`: no abort is missed.
        self._connection = connection
        try:
            with connection:
                if not self._engine.aborted:
                    self._converse(connection)
                if (information := connection.tcp_info()) is not None:
                    self.counts.retransmits += information.retransmits
                    self.times.kernel.append(information.round_trip_us * 1000)
        finally:
            self._connection = None
            self.counts.closed += 1
            self.counts.bytes_sent += connection.bytes_sent
            self.counts.bytes_received += connection.bytes_received

    def _converse(self, connection: EchoConnection) -> None:
        if self._share.plan.open_loop:
            converse = self._in_open_loop
        elif self._share.plan.pipeline > 1 and self._share.payload.largest <= _MOST_UNDER_WAY:
            converse = self._in_window
        else:
            converse = self._in_closed_loop
        try:
            converse(connection)
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
                # The message leaves when the last reply has arrived.
                begin = now
                message = (
                    payload.message(number, sequence) if tails is None else head + tails[sequence]
                )
                sequence += 1
                reply = round_trip(message)
                now = clock()
                if reply != message and not self._count_wrong_reply(sequence - 1, message, reply):
                    return
                note_service(now - begin)
                note_reply(now)
                if sequence - first == 1:
                    self._answered(now - begin)
        finally:
            self._sequence = sequence

    def _in_open_loop(self, connection: EchoConnection) -> None:
        """Send messages when they are due, whenever this connection is the next free one."""
        take = self._engine.tickets.take
        times, clock = self.times, time.monotonic_ns
        first = self._sequence
        while self._sequence < self._stop_at and not self._engine.aborted:
            due = take()
            if due is None:
                self._rest(connection)
                return
            waited = clock() < due
            if waited and not self._is_kept_until(due, connection):
                self._engine.tickets.give_back(due)
                return
            message = self._share.payload.message(self.number, self._sequence)
            self._sequence += 1
            begin = clock()
            if waited:
                times.lateness.append(begin - due)
            reply = connection.round_trip(message)
            now = clock()
            if reply != message and not self._count_wrong_reply(self._sequence - 1, message, reply):
                return
            if self._sequence - first == 1:
                self._answered(now - begin)
            times.service.append(now - begin)
            times.response.append(now - due)
            times.replies.append(now)

    def _rest(self, connection: EchoConnection) -> None:
        """Keep the connection until the end, with nothing more due."""
        through = self._engine.tickets.through
        if through or self._is_kept_until(self._share.end_ns.value, connection):
            self._until_ns = 0

    def _is_kept_until(self, instant_ns: int, connection: EchoConnection) -> bool:
        """Wait with nothing in flight; return False if the connection is lost, or on `abort`."""
        engine = self._engine
        while not engine.aborted and (left := instant_ns - time.monotonic_ns()) > 0:
            seconds = left / 1e9 - _LONGEST_SLEEP_SECONDS / 2
            if seconds < _LONGEST_SLEEP_SECONDS / 2:
                # As exact as the system allows.
                engine.sleep_until(instant_ns)
                continue
            try:
                came = connection.idle(min(seconds, _LONGEST_WAIT_SECONDS))
            except ClientError as error:
                self._give_up(Failure.of(error), waits=False)
                return False
            if came is not None:
                self._take_unasked(came)
                return False
        return not engine.aborted

    def _take_unasked(self, came: bytes) -> None:
        """Handle bytes, or the end of the stream, that came when nothing was due."""
        if came:
            last = self._sequence - 1
            self._count_wrong(InFlight().check(self._share.payload, self.number, last, came))
        self._give_up(None if came else Failure(FailureKind.CLOSED, _CLOSED), waits=False)

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
        """Return how many messages may join those in flight: more could fill both buffers."""
        fitting = (_MOST_UNDER_WAY - in_flight.bytes) // self._share.payload.largest
        allowed = self._share.plan.pipeline - in_flight.count
        return min(fitting, allowed, self._stop_at - self._sequence)

    def _answered(self, nanoseconds: int) -> None:
        """Note the first reply of a connection."""
        self._failures = 0
        self.times.first_byte.append(nanoseconds)

    def _count_wrong_reply(self, sequence: int, message: bytes, reply: bytes) -> bool:
        """Count the errors of a wrong reply; return whether the connection can be used further."""
        checked = check_one(self._share.payload, self.number, sequence, message, reply)
        self._count_wrong(checked)
        if not checked.in_step:
            self._give_up(None)
        return checked.in_step

    def _count_wrong(self, checked: Checked) -> None:
        """Count the wrong replies, and keep the first of them."""
        self.counts.errors.update(checked.wrong)
        self.counts.wrong += checked.completed_wrong
        for found in checked.differences:
            self._engine.recorder.evidence.add_reply(self.number, found)

    def _timeout(self, connection: EchoConnection) -> Failure:
        """Return the failure of a late reply: wait as long again to tell slow from silent."""
        seconds = self._share.plan.reply_timeout
        try:
            if connection.receive():
                said = f"the reply took longer than {format_duration(seconds)}"
                return Failure(FailureKind.TIMEOUT, said)
        except ReplyTimeoutError:
            said = f"no reply came within {format_duration(2 * seconds)}"
            return Failure(FailureKind.NO_REPLY, said)
        except ClientError as error:
            return Failure.of(error)
        return Failure(FailureKind.CLOSED, _CLOSED)

    def _give_up(
        self, failure: Failure | None, received: bytes = b"", *, waits: bool = True
    ) -> None:
        """Count the connection as lost.

        Args:
            failure: why; None if that has been counted already.
            received: the part of the last message's reply that has come.
            waits: whether a reply is still to come.
        """
        if self._engine.aborted:
            if self._engine.verdict is None:
                return
            failure = Failure(FailureKind(self._engine.verdict), _UNTIL_END)
        if failure is not None:
            self.counts.errors[failure.kind] += 1
            self._note(failure, received, waits=waits)
        self.counts.lost += 1
        self._failures += 1

    def _note(self, failure: Failure, received: bytes, *, waits: bool) -> None:
        """Keep the evidence of a failure if it is the first of its kind; see `_give_up`."""
        evidence, in_flight = self._engine.recorder.evidence, self._in_flight
        if waits and in_flight is None:
            payload, sequence = self._share.payload, self._sequence - 1
            run = Run.of_one(sequence, payload.message(self.number, sequence), 0)
            in_flight = InFlight([run])
            in_flight.check(payload, self.number, sequence, received)
        begun = None if in_flight is None else in_flight.begun(failure.kind)
        if begun is not None:
            evidence.add_reply(self.number, begun)
        oldest = None if in_flight is None else in_flight.oldest
        evidence.add_failure(self.number, failure.kind, oldest, failure.reason)
