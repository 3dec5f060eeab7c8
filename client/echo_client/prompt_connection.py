"""The prompt's connection, which is opened again by itself, and the statistics of its messages."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable

from echo_client import differences, round_trips
from echo_client.connection import EchoConnection
from echo_client.errors import ClientError, ClosedError, MismatchError
from echo_client.terminal_output import show, show_error
from echo_core.endpoint import Endpoint
from echo_core.units import format_bytes, format_count, format_time

# The seconds to look for what has arrived since the last message; poll(2) counts in milliseconds.
_LOOK = 1e-3


class PromptConnection:
    """A connection that is opened again for the next message when it is lost.

    Args:
        endpoint: the endpoint of the service.
        connect: opens a connection to the service.
    """

    def __init__(self, endpoint: Endpoint, connect: Callable[[], EchoConnection]) -> None:
        self._endpoint = endpoint
        self._connect = connect
        self._connection: EchoConnection | None = None
        self._round_trips_ns = array("q")
        self._bytes = 0
        self._mismatches = 0
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """True while there is a connection."""
        return self._connection is not None

    @property
    def is_stream(self) -> bool:
        """True unless the transport is UDP."""
        return self._endpoint.scheme != "udp"

    def open(self) -> None:
        """Close the connection, open a new one, and print a line about it.

        Raises:
            ClientError: the service cannot be connected to.
        """
        self.close()
        self._connection = self._connect()
        if not self.is_stream:
            show(f"sending to {self._endpoint}")
            return
        seconds = (self._connection.connect_ns + self._connection.handshake_ns) / 1e9
        cipher = f", {self._connection.cipher}" if self._connection.cipher else ""
        show(f"connected to {self._endpoint}", f"  {format_time(seconds)}{cipher}")

    def make_ready(self) -> None:
        """Open the connection if it is not open or was lost, and print lines about it.

        Raises:
            ClientError: the service cannot be connected to.
        """
        if self._connection is not None:
            try:
                self._look(self._connection)
            except ClientError as error:
                show_error(f"{error}; connecting again")
                self.close()
        if self._connection is None:
            self.open()

    def round_trip(self, message: bytes) -> tuple[bytes, int]:
        """Send a message on the open connection; return the reply and the nanoseconds it took.

        Raises:
            ClientError: the reply did not arrive, or the connection broke.
            InvalidValueError: the message is larger than a datagram can be.
        """
        if self._connection is None:
            raise ClosedError("there is no connection")
        begin = time.perf_counter_ns()
        try:
            reply = self._connection.round_trip(message)
        except ClientError:
            self._failures += 1
            raise
        nanoseconds = time.perf_counter_ns() - begin
        self._round_trips_ns.append(nanoseconds)
        self._bytes += len(message)
        self._mismatches += reply != message
        return reply, nanoseconds

    def check_step(self, message: bytes, reply: bytes) -> None:
        """Check that the next reply on a stream will begin where this one ends.

        Raises:
            MismatchError: the reply is longer than the message.
        """
        if self.is_stream and len(reply) > len(message):
            raise MismatchError("the replies are out of step with the messages, connection closed")

    def show_statistics(self) -> None:
        """Print the statistics of all messages so far."""
        show(
            f"{format_count(len(self._round_trips_ns), 'message')}, "
            f"{format_bytes(self._bytes)} each way, {self._mismatches:,} mismatches, "
            f"{self._failures:,} without a reply"
        )
        if self._round_trips_ns:
            show("", round_trips.summary(self._round_trips_ns))

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look(self, connection: EchoConnection) -> None:
        """Report what has arrived since the last reply; raise an error if the stream is lost."""
        while (data := connection.idle(_LOOK)) is not None:
            if self.is_stream and not data:
                raise ClosedError("the server closed the connection")
            surplus = f"{format_count(len(data), 'byte')} arrived that were not waited for: "
            if self.is_stream:
                raise MismatchError(surplus + differences.excerpt(data))
            show_error(surplus + differences.excerpt(data))
