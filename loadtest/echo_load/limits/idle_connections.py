"""Connections that are left idle and then probed once, on top of checked connections."""

from __future__ import annotations

import time
from typing import NoReturn

from echo_client.connection import EchoConnection
from echo_client.errors import (
    ClientError,
    MismatchError,
    RefusedError,
    ReplyTimeoutError,
    ResetError,
    UnreachableError,
)
from echo_load.engines.recorder import Recorder
from echo_load.limits.findings import in_words, is_datagram, surplus, wrong_reply
from echo_load.measure.counts import Counts
from echo_load.plan.payload import Payload
from echo_load.results.idle import How, Outcome

# Time to wait for the rest of a TLS record on a readable socket.
_RECORD_SECONDS = 0.01


class CheckedConnection:
    """A connection on which one checked message at a time is in flight.

    Args:
        connection: an open connection; `close` closes it.
        number: its number in the payload, from 1.
        payload: the messages.
        counts: the counts to which messages, bytes and errors are added.
        recorder: the recorder of round trips.

    Attributes:
        sent_at: instant at which the message in flight was sent, in seconds of the monotonic clock;
            None if none is in flight.
        answered_at: instant at which the last reply arrived.
        proven_at: instant at which the last answered message was sent.
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
            counts.ciphers[connection.cipher] += 1

    @property
    def is_datagram(self) -> bool:
        """True if this is UDP."""
        return is_datagram(self._connection)

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
        """Receive the data that has arrived; return True at the end of the stream.

        Raises:
            MismatchError: the data is not the reply to the message in flight.
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
        # A datagram is a whole reply.
        is_right = (
            self._received == self._due
            if self.is_datagram
            else self._due.startswith(self._received)
        )
        if self.sent_at is None or not is_right:
            self._note_wrong()
        if self._received == self._due:
            now_ns = time.monotonic_ns()
            self._recorder.times.service.append(now_ns - self._sent_ns)
            self._recorder.times.replies.append(now_ns)
            self._counts.messages += 1
            self.sent_at, self.answered_at = None, now_ns / 1e9
            self.proven_at = self._sent_ns / 1e9
            self._due = self._received = b""

    def _note_wrong(self) -> NoReturn:
        """Count and keep a wrong reply.

        Raises:
            MismatchError: always.
        """
        got, payload, number, last = self._received, self._payload, self._number, self._sequence - 1
        found = (
            surplus(payload, number, last, got)
            if self.sent_at is None
            else wrong_reply(payload, number, last, self._due, got)
        )
        self._counts.errors[found.kind] += 1
        self._recorder.evidence.add_reply(number, found)
        said = in_words(payload, number, found)
        raise MismatchError(f"a reply is not what was sent: {said}")

    def _is_earlier(self, data: bytes) -> bool:
        """Return whether a datagram is the late or duplicated reply to an earlier message."""
        return any(
            data == self._payload.message(self._number, sequence)
            for sequence in range(max(0, self._sequence - 100), self._sequence)
        )

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
        connection: the connection.
        pause: the pause in seconds.
        outcome: the outcome of the probe, or of the pause if the connection ended in it; `unknown`
            until then.
        idle_seconds: seconds of idleness until the probe was sent or the peer closed the
            connection.
        closed_seconds: the same if the peer closed the connection; None if it did not.
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
        """True if its outcome is known."""
        return self.outcome != "unknown"

    @property
    def due(self) -> float:
        """The instant to send the probe, or to give up its reply, on the monotonic clock."""
        if self.connection.sent_at is None:
            return self._idle_since + self.pause
        return self.connection.sent_at + self._timeout

    def act(self, now: float) -> None:
        """Send the probe, or give up its reply, if that is due."""
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
        """Receive the data that has arrived: the reply, or the end of the connection.

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
    # ETIMEDOUT: the kernel's keep-alives or retransmissions were not acknowledged.
    if isinstance(error, ReplyTimeoutError) or isinstance(cause, TimeoutError):
        return "silence"
    return "broken"
