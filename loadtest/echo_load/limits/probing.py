"""Probes of one target: on connections that are kept open, and on new ones.

Each connection has a thread of its own, so that a probe that waits for its timeout delays no other.
All instants are in seconds of `time.monotonic`.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from echo_client.connection import EchoConnection
from echo_client.errors import (
    ClientError,
    ClosedError,
    ConnectError,
    MismatchError,
    ReplyTimeoutError,
)
from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_load.limits.findings import (
    Findings,
    Sender,
    WrongReplyError,
    in_words,
    is_datagram,
    surplus,
    wrong_reply,
)
from echo_load.limits.losses import DatagramLosses
from echo_load.limits.outages import NEW_CONNECTIONS, OutageLog
from echo_load.limits.pauses import Heartbeat
from echo_load.limits.silences import Silences
from echo_load.plan.payload import Payload

# Failures that show something about the target even if this process did not run meanwhile.
_CERTAIN = frozenset({FailureKind.REFUSED, FailureKind.UNREACHABLE, *MISMATCHES})
_SILENCE = frozenset({FailureKind.TIMEOUT, FailureKind.CONNECT_TIMEOUT, FailureKind.LOST})
# A loss is noticed within this time, unless this process does not run.
_NOTICED_SECONDS = 1.0
# The largest rate at which the kept connections of a target try to reconnect, per second.
_MOST_ATTEMPTS = 500.0


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
        slots: numbers of the connections to keep, from 1.
        numbers: numbers of new connections.
        interval: seconds between two probes on kept connections, which take turns, and between two
            probes on new connections.
        timeout: shortest silence in seconds that is an outage.
        memory_seconds: longest time in seconds from the beginning of a probe to its failure.
        loses_after: seconds after which a datagram without a reply is lost; None without datagrams.
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
        timeout: float,
        memory_seconds: float,
        loses_after: float | None,
        findings: Findings,
        heartbeat: Heartbeat,
    ) -> None:
        self._cycle = interval * len(slots)
        if loses_after is not None:
            # A kept connection sends its next datagram within a cycle after a loss.
            memory_seconds += self._cycle + loses_after
        self.log = OutageLog(memory_seconds)
        self._losses = (
            None if loses_after is None else DatagramLosses(self.log, loses_after, memory_seconds)
        )
        self._connect = connect
        self._payload = payload
        self._slots = slots
        self._numbers = numbers
        self._interval = interval
        self._pause = max(interval, len(slots) / _MOST_ATTEMPTS)
        self._findings = findings
        self._heartbeat = heartbeat
        self._silences = Silences(timeout, heartbeat)
        self._stopping = threading.Event()
        self._stopped_at = math.inf
        # Notified of each correct reply, which lets lost connections reconnect early.
        self._replied = threading.Condition(findings.lock)
        self._in_flight = 0

    def check(self) -> None:
        """Probe the target once, before it is watched.

        Raises:
            ClientError: it cannot be reached, or does not echo.
        """
        number = next(self._numbers)
        message = self._payload.message(number, 0)
        with self._connect() as connection:
            reply = connection.round_trip(message)
        if reply != message:
            found = wrong_reply(self._payload, number, 0, message, reply)
            said = in_words(self._payload, number, found)
            raise MismatchError(f"the reply is not what was sent: {said}")

    def start(self, begin: float) -> None:
        """Start the probes, the first of which is due at an instant."""
        for number, slot in enumerate(self._slots):
            self._start_thread(self._keep, slot, begin + number * self._interval)
        self._start_thread(self._open_new_ones, begin)

    def stop(self) -> None:
        """Send no more probes."""
        self._stopped_at = time.monotonic()
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
        sender = Sender(next(self._numbers))
        try:
            with self._opened() as connection:
                self._round_trip(connection, sender, NEW_CONNECTIONS)
        except ClientError as error:
            self._failed(sender, NEW_CONNECTIONS, begin, error)

    def _keep(self, slot: int, due: float) -> None:
        """Keep a connection open, probe it, and replace it when it is lost.

        Args:
            slot: number of the connection.
            due: instant at which to open it.
        """
        sender = Sender(slot)
        loss: _Loss | None = None
        self._stopping.wait(max(0.0, due - time.monotonic()))
        while not self._stopping.is_set():
            begin, sender.in_flight = time.monotonic(), None
            try:
                with self._opened() as connection:
                    sent = time.monotonic()
                    self._round_trip(connection, sender, slot)
                    if loss is not None:
                        self._reconnected(time.monotonic() - loss.at)
                    loss = self._probe_until_lost(connection, sender, slot, sent)
            except ClientError as error:
                if self._failed(sender, slot, begin, error):
                    if loss is not None and loss.in_order:
                        self._not_replaced(slot, loss.at)
                    loss = _Loss(begin if loss is None else loss.at, in_order=False)
                self._wait_to_reconnect()

    def _probe_until_lost(
        self, connection: EchoConnection, sender: Sender, slot: int, answered: float
    ) -> _Loss | None:
        """Probe a connection at its turns.

        Args:
            connection: an open connection.
            sender: its place in the messages.
            slot: number of the connection.
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
                self._idle_until(connection, sender, due)
                if self._stopping.is_set():
                    return None
                begin, sending = time.monotonic(), True
                due = max(due + self._cycle, begin)
                self._round_trip(connection, sender, slot)
                answered = begin
            except ClientError as error:
                at = begin if sending else time.monotonic()
                # After a pause, what came meanwhile is read in its order: a reply, then the loss.
                since = max(answered, at - _NOTICED_SECONDS)
                if isinstance(error, ReplyTimeoutError):
                    since = begin
                if isinstance(error, ClosedError) and not error.received:
                    self._closed_in_order(message_lost=sending)
                    return _Loss(at, in_order=True)
                self._failed(
                    sender, slot, at, error, since=since, was_kept=True, message_lost=sending
                )
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

    def _round_trip(self, connection: EchoConnection, sender: Sender, slot: int) -> None:
        """Send a message, check the reply, and count and record both.

        Args:
            connection: an open connection.
            sender: its place in the messages.
            slot: number of the kept connection, or `NEW_CONNECTIONS`.

        Raises:
            ClientError: there was no reply, or a wrong one.
        """
        sequence = sender.in_flight = sender.sequence
        sender.sequence += 1
        message = self._payload.message(sender.number, sequence)
        bytes_before = connection.bytes_sent, connection.bytes_received
        datagrams = is_datagram(connection)
        begin_ns = time.monotonic_ns()
        with self._counted_in_flight():
            try:
                reply = connection.round_trip(message)
                end_ns = time.monotonic_ns()
            finally:
                sent = connection.bytes_sent - bytes_before[0]
                with self._findings.lock:
                    counts = self._findings.counts
                    counts.bytes_sent += sent
                    counts.bytes_received += connection.bytes_received - bytes_before[1]
                    counts.datagrams_sent += datagrams and sent > 0
            sender.in_flight = None
            is_right = reply == message
            with self._replied:
                counts.messages += 1
                counts.datagrams_received += datagrams
                self._findings.messages[slot] += 1
                self._silences.answered(slot)
                times = self._findings.recorder.times
                times.service.append(end_ns - begin_ns)
                times.replies.append(end_ns)
                if datagrams and slot != NEW_CONNECTIONS:
                    self._findings.note_datagram(slot, end_ns - begin_ns)
                if is_right:
                    log = self._losses or self.log
                    log.answered(slot, begin_ns / 1e9, end_ns / 1e9)
                    self._replied.notify_all()
        if not is_right:
            found = wrong_reply(self._payload, sender.number, sequence, message, reply)
            raise WrongReplyError(found)

    def _failed(
        self,
        sender: Sender,
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
            sender: place of the connection in the messages.
            slot: number of the kept connection, or `NEW_CONNECTIONS`.
            at: instant at which the probe began, or the connection broke.
            error: the failure.
            since: instant after which the failure must have happened; None for `at`.
            was_kept: whether a kept connection was lost, after its first round trip.
            message_lost: whether a message was in flight.

        Returns:
            False if the failure was disregarded, because this process did not run meanwhile.
        """
        kind = error.difference.kind if isinstance(error, WrongReplyError) else error.kind
        if self._losses is not None and kind == FailureKind.TIMEOUT:
            kind = FailureKind.LOST
        certain = kind in _CERTAIN or not self._heartbeat.paused_since(
            at if since is None else since
        )
        with self._findings.lock:
            counts = self._findings.counts
            if not certain and not (kind in _SILENCE and self._silences.is_certain(slot, at)):
                self._findings.disregarded += 1
                counts.failed += isinstance(error, ConnectError) and not was_kept
                counts.lost += was_kept
                return False
            counts.errors[kind] += 1
            self._findings.note_evidence(sender, kind, error, self._payload)
            if isinstance(error, WrongReplyError):
                # If no reply was due, this is no round trip.
                counts.wrong += bool(error.difference.due)
            elif isinstance(error, ConnectError) and not was_kept:
                counts.failed += 1
            else:
                self._findings.messages_lost += message_lost
            counts.lost += was_kept
            if self._losses is not None and kind == FailureKind.LOST:
                self._findings.note_loss(None if slot == NEW_CONNECTIONS else slot)
                # Without probes after the end, there are no replies either.
                self._losses.lost(slot, at, min(time.monotonic(), self._stopped_at))
            else:
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
            self._findings.recorder.evidence.add_failure(
                slot,
                FailureKind.CLOSED,
                None,
                "the server closed the connection, which could not be replaced at once",
            )
            self.log.failed(slot, at, FailureKind.CLOSED)

    def _reconnected(self, seconds: float) -> None:
        with self._findings.lock:
            self._findings.reconnects.append(seconds)

    def _wait_to_reconnect(self) -> None:
        """Wait until the target answers another probe, a probe would be due, or probing stops."""
        if not self._stopping.wait(self._pause):
            with self._replied:
                self._replied.wait(max(0.0, self._cycle - self._pause))

    def _idle_until(self, connection: EchoConnection, sender: Sender, due: float) -> None:
        """Wait on an idle connection until an instant.

        Raises:
            ClosedError: the server closed it.
            LostError: it broke.
            WrongReplyError: data arrived although no message was in flight.
        """
        seconds = due - time.monotonic()
        if seconds <= 0 or (data := connection.idle(seconds)) is None:
            return
        if not data and not is_datagram(connection):
            raise ClosedError("the server closed the connection")
        with self._findings.lock:
            self._findings.counts.bytes_received += len(data)
            self._findings.counts.datagrams_received += is_datagram(connection)
        raise WrongReplyError(surplus(self._payload, sender.number, sender.sequence - 1, data))
