"""Probes of one target: on connections that are kept open, and on new ones.

Each connection has a thread of its own, so that a probe that waits for its timeout delays no other.
All instants are in seconds of `time.monotonic`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from echo_client.connection import EchoConnection
from echo_client.errors import (
    ClientError,
    ClosedError,
    ConnectError,
    MismatchError,
    ReplyTimeoutError,
)
from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_load.engines.checking import check_one
from echo_load.engines.recorder import Recorder
from echo_load.limits.outages import NEW_CONNECTIONS, OutageLog
from echo_load.limits.pauses import Heartbeat
from echo_load.measure.counts import Counts
from echo_load.plan.payload import Payload

# Failures that show something about the target even if this process did not run meanwhile.
_CERTAIN = frozenset({FailureKind.REFUSED, FailureKind.UNREACHABLE, *MISMATCHES})
# The largest rate at which the kept connections of a target try to reconnect, per second.
_MOST_ATTEMPTS = 500.0


class WrongReplyError(MismatchError):
    """A reply differs from its message.

    Attributes:
        found: how it differs.
    """

    def __init__(self, found: FailureKind) -> None:
        super().__init__(f"the reply is {found}")
        self.found = found


@dataclass(slots=True)
class Findings:
    """The measurements of the probes of all targets, to be read and written under `lock` only.

    Attributes:
        recorder: recorder of round trips and of times to connect.
        lock: the lock that guards all fields.
        counts: connections, messages and errors.
        messages_lost: probes that were sent on an open connection and got no reply.
        disregarded: probes that failed while this process did not run.
        reconnects: seconds that it took to replace each lost connection.
        messages: number of replies by slot.
    """

    recorder: Recorder
    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counts = field(default_factory=Counts)
    messages_lost: int = 0
    disregarded: int = 0
    reconnects: list[float] = field(default_factory=list)
    messages: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Loss:
    """The loss of a kept connection.

    Attributes:
        at: instant at which it was lost.
        in_order: whether the server ended the stream, which counts as a failure only if the first
            attempt to reconnect fails.
    """

    at: float
    in_order: bool


class TargetProbes:
    """The probes of one target.

    Args:
        connect: opens a connection to the target.
        payload: messages to send.
        slots: numbers of the connections to keep.
        numbers: numbers of new connections, for the stamps of their messages.
        interval: seconds between two probes on kept connections, which take turns, and between two
            probes on new connections.
        memory_seconds: longest time in seconds from the beginning of a probe to its failure.
        findings: measurements, to which those of this target are added.
        heartbeat: tells when this process did not run.

    Attributes:
        log: the outages, to be read under the lock of the findings.
    """

    def __init__(
        self,
        connect: Callable[[], EchoConnection],
        payload: Payload,
        slots: Sequence[int],
        numbers: Iterator[int],
        *,
        interval: float,
        memory_seconds: float,
        findings: Findings,
        heartbeat: Heartbeat,
    ) -> None:
        self.log = OutageLog(memory_seconds)
        self._connect = connect
        self._payload = payload
        self._slots = slots
        self._numbers = numbers
        self._interval = interval
        self._cycle = interval * len(slots)
        self._pause = max(interval, len(slots) / _MOST_ATTEMPTS)
        self._findings = findings
        self._heartbeat = heartbeat
        self._stopping = threading.Event()
        # Notified of each correct reply, which lets lost connections reconnect early.
        self._replied = threading.Condition(findings.lock)
        self._in_flight = 0

    def check(self) -> None:
        """Probe the target once, before it is watched.

        Raises:
            ClientError: it cannot be reached, or does not echo.
        """
        message = self._payload.message(next(self._numbers), 0)
        with self._connect() as connection:
            if connection.round_trip(message) != message:
                raise MismatchError("the reply is not what was sent")

    def start(self, begin: float) -> None:
        """Start the probes, the first of which is due at an instant."""
        for number, slot in enumerate(self._slots):
            self._start_thread(self._keep, slot, begin + number * self._interval)
        self._start_thread(self._open_new_ones, begin)

    def stop(self) -> None:
        """Send no more probes."""
        self._stopping.set()
        with self._replied:
            self._replied.notify_all()

    @property
    def idle(self) -> bool:
        """True if no probe is in flight."""
        with self._findings.lock:
            return not self._in_flight

    def _start_thread(self, target: Callable[..., None], *args: float) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    def _open_new_ones(self, begin: float) -> None:
        # Halfway between the probes on kept connections.
        for number in itertools.count():
            due = begin + (number + 0.5) * self._interval
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return
            self._start_thread(self._probe_new_one)

    def _probe_new_one(self) -> None:
        begin = time.monotonic()
        try:
            with self._opened() as connection:
                self._round_trip(connection, next(self._numbers), 0, NEW_CONNECTIONS)
        except ClientError as error:
            self._failed(NEW_CONNECTIONS, begin, error)

    def _keep(self, slot: int, due: float) -> None:
        """Keep a connection open, probe it, and replace it when it is lost.

        Args:
            slot: number of the connection.
            due: instant at which to open it.
        """
        sequences = itertools.count()
        loss: _Loss | None = None
        self._stopping.wait(max(0.0, due - time.monotonic()))
        while not self._stopping.is_set():
            begin = time.monotonic()
            try:
                with self._opened() as connection:
                    sent = time.monotonic()
                    self._round_trip(connection, slot, next(sequences), slot)
                    if loss is not None:
                        self._reconnected(time.monotonic() - loss.at)
                    loss = self._probe_until_lost(connection, slot, sequences, sent)
            except ClientError as error:
                if self._failed(slot, begin, error):
                    if loss is not None and loss.in_order:
                        self._not_replaced(slot, loss.at)
                    loss = _Loss(begin if loss is None else loss.at, in_order=False)
                self._wait_to_reconnect()

    def _probe_until_lost(
        self, connection: EchoConnection, slot: int, sequences: Iterator[int], answered: float
    ) -> _Loss | None:
        """Probe a connection at its turns.

        Args:
            connection: an open connection.
            slot: number of the connection.
            sequences: sequence numbers of its messages.
            answered: instant at which its last answered probe was sent.

        Returns:
            Its loss; None if it was not lost.
        """
        begin = time.monotonic()
        due = begin + self._cycle
        sending = False
        while not self._stopping.is_set():
            try:
                sending = False
                _idle_until(connection, due)
                if self._stopping.is_set():
                    return None
                begin, sending = time.monotonic(), True
                due = max(due + self._cycle, begin)
                self._round_trip(connection, slot, next(sequences), slot)
                answered = begin
            except ClientError as error:
                at = begin if sending else time.monotonic()
                # It may have broken at any time since the server answered, which may be long
                # before the reply was read here.
                since = begin if isinstance(error, ReplyTimeoutError) else answered
                if isinstance(error, ClosedError) and not error.received:
                    self._closed_in_order(message_lost=sending)
                    return _Loss(at, in_order=True)
                self._failed(slot, at, error, since=since, was_kept=True, message_lost=sending)
                return _Loss(at, in_order=False)
        return None

    @contextmanager
    def _opened(self) -> Iterator[EchoConnection]:
        """Open a connection for the duration of the block, and count and record it."""
        with self._counted_in_flight():
            connection = self._connect()
        with self._findings.lock:
            self._findings.counts.opened += 1
            self._findings.recorder.times.connect.append(connection.connect_ns)
            if connection.handshake_ns:
                self._findings.recorder.times.handshake.append(connection.handshake_ns)
                self._findings.counts.ciphers[connection.cipher] += 1
        try:
            yield connection
        finally:
            with self._findings.lock:
                self._findings.counts.closed += 1
            connection.close()

    @contextmanager
    def _counted_in_flight(self) -> Iterator[None]:
        with self._findings.lock:
            self._in_flight += 1
        try:
            yield
        finally:
            with self._findings.lock:
                self._in_flight -= 1

    def _round_trip(
        self, connection: EchoConnection, number: int, sequence: int, slot: int
    ) -> None:
        """Send a message, check the reply, and count and record both.

        Args:
            connection: an open connection.
            number: number of the connection in the stamp of the message.
            sequence: sequence number of the message.
            slot: number of the kept connection, or `NEW_CONNECTIONS`.

        Raises:
            ClientError: there was no reply, or a wrong one.
        """
        message = self._payload.message(number, sequence)
        bytes_before = connection.bytes_sent, connection.bytes_received
        begin_ns = time.monotonic_ns()
        with self._counted_in_flight():
            try:
                reply = connection.round_trip(message)
                end_ns = time.monotonic_ns()
            finally:
                with self._findings.lock:
                    counts = self._findings.counts
                    counts.bytes_sent += connection.bytes_sent - bytes_before[0]
                    counts.bytes_received += connection.bytes_received - bytes_before[1]
            wrong = check_one(self._payload, number, sequence, message, reply).wrong
            with self._replied:
                self._findings.counts.messages += 1
                self._findings.messages[slot] += 1
                times = self._findings.recorder.times
                times.service.append(end_ns - begin_ns)
                times.replies.append(end_ns)
                if not wrong:
                    self.log.answered(slot, begin_ns / 1e9, end_ns / 1e9)
                    self._replied.notify_all()
        if wrong:
            raise WrongReplyError(wrong[0])

    def _failed(
        self,
        slot: int,
        at: float,
        error: ClientError,
        *,
        since: float | None = None,
        was_kept: bool = False,
        message_lost: bool = True,
    ) -> bool:
        """Record a probe that failed, or a connection that broke.

        Args:
            slot: number of the kept connection, or `NEW_CONNECTIONS`.
            at: instant at which the probe began, or the connection broke.
            error: the failure.
            since: instant after which the failure must have happened; None for `at`.
            was_kept: whether a kept connection was lost, after its first round trip.
            message_lost: whether a message was in flight.

        Returns:
            False if the failure was disregarded, because this process did not run meanwhile.
        """
        kind = error.found if isinstance(error, WrongReplyError) else error.kind
        certain = kind in _CERTAIN or not self._heartbeat.paused_since(
            at if since is None else since
        )
        with self._findings.lock:
            counts = self._findings.counts
            if not certain:
                self._findings.disregarded += 1
                counts.failed += isinstance(error, ConnectError) and not was_kept
                counts.lost += was_kept
                return False
            counts.errors[kind] += 1
            if isinstance(error, WrongReplyError):
                counts.wrong += 1
            elif isinstance(error, ConnectError) and not was_kept:
                counts.failed += 1
            else:
                self._findings.messages_lost += message_lost
            counts.lost += was_kept
            self.log.failed(slot, at, kind)
        return True

    def _closed_in_order(self, *, message_lost: bool) -> None:
        """Count a kept connection that the server closed with an end of the stream."""
        with self._findings.lock:
            self._findings.counts.lost += 1
            if message_lost:
                self._findings.messages_lost += 1

    def _not_replaced(self, slot: int, at: float) -> None:
        """Count the close of a connection as a failure, as it could not be replaced at once."""
        with self._findings.lock:
            self._findings.counts.errors[FailureKind.CLOSED] += 1
            self.log.failed(slot, at, FailureKind.CLOSED)

    def _reconnected(self, seconds: float) -> None:
        with self._findings.lock:
            self._findings.reconnects.append(seconds)

    def _wait_to_reconnect(self) -> None:
        """Wait until the target answers another probe, a probe would be due, or probing stops."""
        if not self._stopping.wait(self._pause):
            with self._replied:
                self._replied.wait(max(0.0, self._cycle - self._pause))


def _idle_until(connection: EchoConnection, due: float) -> None:
    """Wait on an idle connection until an instant.

    Raises:
        ClosedError: the server closed it.
        LostError: it broke.
        WrongReplyError: data arrived although no message was in flight.
    """
    seconds = due - time.monotonic()
    if seconds > 0 and (data := connection.idle(seconds)) is not None:
        if not data:
            raise ClosedError("the server closed the connection")
        raise WrongReplyError(FailureKind.DUPLICATED)
