"""A ping: messages at an interval, each checked, with its round trip and a summary at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from echo_client.connection import EchoConnection
from echo_client.errors import (
    ClientError,
    ClosedError,
    NoSourceError,
    ReplyTimeoutError,
    UnresolvedError,
)
from echo_client.outstanding import DatagramReplies, Message, Outcome, Payload, StreamReplies
from echo_client.ping_report import PingReport
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode
from echo_core.interrupts import quit_on_interrupt
from echo_core.units import format_duration

# The most bytes in flight, beyond one message. More could fill the buffers of both ends, each of
# which would then wait for the other to read.
_MOST_IN_FLIGHT = 64 * 1024
# On a stream, this many wrong replies in a row mean that it is out of step.
_OUT_OF_STEP = 2


class Ping:
    """Messages at an interval over one connection, which is opened again when it is lost.

    The next message does not wait for the reply to the previous one, as long as no more than
    64 KiB are in flight.

    Args:
        endpoint: the endpoint of the service.
        connect: opens a connection to the service.
        messages: the number of messages.
        interval: the interval in seconds.
        timeout: the seconds after which a message without a reply is lost.
        payload_size: the size of a message in bytes.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        connect: Callable[[], EchoConnection],
        *,
        messages: int,
        interval: float,
        timeout: float,
        payload_size: int,
    ) -> None:
        self._connect = connect
        self._messages = messages
        self._interval = interval
        self._timeout = timeout
        self._payload = Payload(payload_size)
        self._most_in_flight = max(1, _MOST_IN_FLIGHT // payload_size)
        self._datagrams = endpoint.scheme == "udp"
        self._replies = DatagramReplies(self._payload) if self._datagrams else StreamReplies()
        self._report = PingReport(endpoint)
        self._connection: EchoConnection | None = None
        self._wrong_in_a_row = 0

    def run(self) -> ExitCode:
        """Send all messages, or until Ctrl-C, and print the summary.

        Returns:
            `OK` if every message came back unchanged, `INTERRUPTED` after Ctrl-C, else `FAILED`.

        Raises:
            ConnectError: the name is unknown at the start, or the source address is not usable.
        """
        interrupted = False
        try:
            self._send_all()
        except KeyboardInterrupt:
            # A second Ctrl-C ends the process at once.
            quit_on_interrupt()
            interrupted = True
            if sys.stdout.isatty():
                # The terminal shows ^C at the beginning of this line.
                print()
        finally:
            self._disconnect()
        self._report.summary()
        if interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.OK if self._report.counts.flawless else ExitCode.FAILED

    def _send_all(self) -> None:
        due = time.monotonic()
        for number in range(1, self._messages + 1):
            self._receive_until(due)
            while len(self._replies.in_flight) >= self._most_in_flight:
                self._receive_until(time.monotonic())
            self._send(number)
            # Messages that are behind the schedule do not catch up in a burst.
            due = max(due + self._interval, time.monotonic())
        while self._replies.in_flight:
            self._receive_until(time.monotonic())

    def _send(self, number: int) -> None:
        if self._connection is None:
            try:
                self._connection = self._connect()
            except (UnresolvedError, NoSourceError) as error:
                if number == 1:
                    raise
                return self._not_sent(number, error)
            except ClientError as error:
                return self._not_sent(number, error)
            self._report.connected(self._connection)
        message = Message(number, self._payload.of(number), time.monotonic_ns())
        self._report.counts.messages += 1
        self._replies.in_flight[number] = message
        try:
            self._connection.send(message.data)
        except ClientError as error:
            self._broke(error)
        return None

    def _not_sent(self, number: int, error: ClientError) -> None:
        self._report.counts.messages += 1
        self._report.lost(number, str(error))

    def _receive_until(self, deadline: float) -> None:
        """Receive until an instant; at least once, so that nothing waits in the kernel for long."""
        while True:
            self._receive(deadline)
            if time.monotonic() >= deadline:
                return

    def _receive(self, deadline: float) -> None:
        """Wait for data, a message that is overdue, or an instant."""
        oldest = self._oldest()
        if oldest is not None:
            deadline = min(deadline, oldest.sent_ns / 1e9 + self._timeout)
        seconds = deadline - time.monotonic()
        if self._connection is None:
            time.sleep(max(0.0, seconds))
            return
        try:
            # poll(2) counts in milliseconds.
            data = self._connection.idle(max(seconds, 1e-3))
            arrived_ns = time.monotonic_ns()
            if data == b"" and not self._datagrams:
                self._broke(self._closed())
                return
        except ClientError as error:
            self._broke(error)
            return
        if data is not None:
            self._arrived(data, arrived_ns)
        self._expire(time.monotonic_ns())

    def _oldest(self) -> Message | None:
        return next(iter(self._replies.in_flight.values()), None)

    def _closed(self) -> ClosedError:
        oldest = self._oldest()
        begun = self._replies.bytes_begun
        after = f" after {begun} of {len(oldest.data)} bytes" if oldest and begun else ""
        return ClosedError(f"the server closed the connection{after}")

    def _arrived(self, data: bytes, arrived_ns: int) -> None:
        for arrival in self._replies.arrived(data):
            self._report.arrived(arrival, arrived_ns)
            right = arrival.outcome is Outcome.REPLY
            self._wrong_in_a_row = 0 if right else self._wrong_in_a_row + 1
            surplus = arrival.outcome is Outcome.SURPLUS
            if not self._datagrams and (surplus or self._wrong_in_a_row >= _OUT_OF_STEP):
                self._broke(ClosedError("the replies are out of step with the messages"))
                return

    def _expire(self, now_ns: int) -> None:
        before_ns = now_ns - round(self._timeout * 1e9)
        while (oldest := self._oldest()) is not None and oldest.sent_ns <= before_ns:
            begun = self._replies.bytes_begun
            came = f"only {begun} of {len(oldest.data)} bytes" if begun else "no reply"
            # On a stream, no other reply can arrive before the one that is overdue.
            self._broke(
                ReplyTimeoutError(f"{came} within {format_duration(self._timeout)}"),
                f"given up, since no reply can overtake that to message {oldest.number}",
            )

    def _broke(self, error: ClientError, behind: str | None = None) -> None:
        """Report what an error has lost: all messages on a stream, the oldest datagram over UDP.

        Args:
            error: the error.
            behind: why messages after the oldest are lost; None for the same error.
        """
        for index, message in enumerate(self._replies.give_up()):
            self._report.lost(message.number, behind if index and behind else str(error))
        if not self._datagrams:
            self._report.disconnected(str(error))
            self._disconnect()

    def _disconnect(self) -> None:
        self._wrong_in_a_row = 0
        if self._connection is not None:
            self._connection.close()
            self._connection = None
