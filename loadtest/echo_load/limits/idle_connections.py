"""Connections that are left idle and then probed, and one that is never idle."""

from __future__ import annotations

import os
import socket
import time

from echo_client.connection import DatagramConnection, EchoConnection
from echo_client.errors import (
    ClientError,
    MismatchError,
    RefusedError,
    ReplyTimeoutError,
    ResetError,
    UnreachableError,
)
from echo_client.failure_kinds import FailureKind
from echo_load.engines.recorder import Recorder
from echo_load.measure.counts import Counts
from echo_load.plan.payload import Payload
from echo_load.results.idle import How, Outcome

# Enough for what is left of a TLS record on its way; a complete one is there at once.
_RECORD_SECONDS = 0.01


class CheckedConnection:
    """A connection on which one checked message at a time is in flight.

    Args:
        connection: an open connection; `close` closes it.
        number: its number in the payload, from 0.
        payload: the messages.
        counts: where messages, bytes and errors are counted.
        recorder: where round trips are recorded.

    Attributes:
        sent_at: when the message in flight was sent, on the monotonic clock; None if none is.
        answered_at: when the last reply arrived.
        proven_at: when the last message was sent that was answered.
    """

    def __init__(
        self,
        connection: EchoConnection,
        number: int,
        payload: Payload,
        counts: Counts,
        recorder: Recorder,
    ) -> None:
        self._connection = connection
        self._number = number
        self._payload = payload
        self._counts = counts
        self._recorder = recorder
        self._sequence = 0
        self._due = b""
        self._received = b""
        self.sent_at: float | None = None
        self.answered_at = self.proven_at = time.monotonic()
        self._sent_ns = 0
        counts.opened += 1
        recorder.times.connect.append(connection.connect_ns)
        if connection.handshake_ns:
            recorder.times.handshake.append(connection.handshake_ns)

    @property
    def is_datagram(self) -> bool:
        """Whether this is UDP."""
        return isinstance(self._connection, DatagramConnection)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._connection.fileno()

    def begin(self) -> None:
        """Exchange the first message.

        Raises:
            ClientError: it got no reply, or a wrong one.
        """
        self.send()
        while self.sent_at is not None:
            self._take(self._connection.receive())

    def send(self) -> None:
        """Send the next message.

        Raises:
            ClientError: it could not be sent.
        """
        self._due = self._payload.message(self._number, self._sequence)
        self._sequence += 1
        self._received = b""
        self._sent_ns = time.monotonic_ns()
        self._connection.send(self._due)
        self._counts.bytes_sent += len(self._due)
        self._counts.datagrams_sent += self.is_datagram
        self.sent_at = self._sent_ns / 1e9

    def receive(self) -> bool:
        """Receive what has arrived; return True if it is the end of the stream.

        Raises:
            MismatchError: it is not the reply to the message in flight.
            ClientError: the connection broke.
        """
        data = self._connection.idle(_RECORD_SECONDS)
        if data is None:
            return False
        if not data and not self.is_datagram:
            return True
        self._take(data)
        return False

    def _take(self, data: bytes) -> None:
        if not data and not self.is_datagram:
            raise ClientError("the server closed the connection")
        self._counts.bytes_received += len(data)
        self._counts.datagrams_received += self.is_datagram
        if self.is_datagram and data != self._due and self._is_earlier(data):
            return
        self._received = data if self.is_datagram else self._received + data
        if self.sent_at is None or not self._due.startswith(self._received):
            self._counts.errors[FailureKind.CORRUPT] += 1
            raise MismatchError("a reply was not what was sent")
        if self._received == self._due:
            now_ns = time.monotonic_ns()
            self._recorder.times.service.append(now_ns - self._sent_ns)
            self._recorder.times.replies.append(now_ns)
            self._counts.messages += 1
            self.sent_at, self.answered_at = None, now_ns / 1e9
            self.proven_at = self._sent_ns / 1e9
            self._due = self._received = b""

    def _is_earlier(self, data: bytes) -> bool:
        """Return whether a datagram is the late or duplicated reply to an earlier message."""
        return any(
            data == self._payload.message(self._number, sequence)
            for sequence in range(max(0, self._sequence - 100), self._sequence)
        )

    def send_keepalives(self, seconds: float) -> None:
        """Let the kernel send TCP keep-alives at an interval (tcp(7))."""
        interval = round(seconds)
        # Options belong to the open socket, which both descriptors share.
        with socket.socket(fileno=os.dup(self._connection.fileno())) as same:
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval)
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
            same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def close(self) -> None:
        """Close the connection."""
        if self._connection.fileno() >= 0:
            self._counts.closed += 1
            self._connection.close()


class IdleConnection:
    """A connection that is left idle for a pause, and then probed once.

    Args:
        connection: a connection on which the first message was answered.
        pause: the pause in seconds.
        timeout: seconds to wait for the reply to the probe.

    Attributes:
        connection: the same.
        pause: the same.
        outcome: what became of it; `unknown` so far.
        idle_seconds: how long it was idle, until the probe was sent or the peer closed it.
        closed_seconds: how long it had been idle when the peer closed it; None if it did not.
    """

    def __init__(self, connection: CheckedConnection, pause: float, timeout: float) -> None:
        self.connection = connection
        self.pause = pause
        self.outcome: Outcome = "unknown"
        self.idle_seconds = 0.0
        self.closed_seconds: float | None = None
        self._timeout = timeout
        self._idle_since = connection.answered_at

    @property
    def is_over(self) -> bool:
        """Whether its outcome is known."""
        return self.outcome != "unknown"

    @property
    def due(self) -> float:
        """When to act next, on the monotonic clock: to probe, or to give up."""
        if self.connection.sent_at is None:
            return self._idle_since + self.pause
        return self.connection.sent_at + self._timeout

    def act(self, now: float) -> None:
        """Send the probe, or give up waiting for the reply, if it is time.

        Raises:
            MismatchError: a reply was wrong.
        """
        if self.is_over or now < self.due:
            return
        if self.connection.sent_at is not None:
            self._end("silence")
            return
        self.idle_seconds = now - self._idle_since
        try:
            self.connection.send()
        except ClientError as error:
            self._end(_how(error))

    def receive(self) -> None:
        """Take what has arrived: the reply, or the end of the connection.

        Raises:
            MismatchError: a reply was wrong.
        """
        now = time.monotonic()
        probed = self.connection.sent_at is not None
        try:
            ended = self.connection.receive()
        except MismatchError:
            raise
        except ClientError as error:
            self._end_at(now, probed, _how(error))
            return
        if ended:
            self._end_at(now, probed, "end_of_stream")
        elif probed and self.connection.sent_at is None:
            self._end("kept")

    def _end_at(self, now: float, probed: bool, how: How) -> None:
        if not probed:
            self.closed_seconds = self.idle_seconds = now - self._idle_since
        self._end(how)

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.connection.close()


def _how(error: ClientError) -> How:
    """Return how a connection was dropped, by its error."""
    if isinstance(error, ResetError):
        return "reset"
    if isinstance(error, RefusedError | UnreachableError):
        return "unreachable"
    cause = error.__cause__
    # The kernel has given up: keep-alives or retransmissions were not acknowledged.
    if isinstance(error, ReplyTimeoutError) or isinstance(cause, TimeoutError):
        return "silence"
    return "broken"
