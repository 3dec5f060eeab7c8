"""Streaming of data to the service and back, in both directions concurrently."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from echo_client.connection import CHUNK, EchoConnection
from echo_client.errors import (
    ClientError,
    ClosedError,
    LostError,
    MismatchError,
    ReplyTimeoutError,
    StreamError,
)
from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError

Source = Callable[[int], bytes]
Sink = Callable[[bytes], object]


@dataclass(slots=True)
class _Direction:
    """One direction of a stream: the number of bytes so far and their digest."""

    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)


def read_source(source: Source, most: int) -> bytes:
    """Return up to `most` bytes of a source; no bytes at the end of its data.

    Raises:
        StreamError: the source cannot be read.
    """
    try:
        return source(most)
    except OSError as error:
        raise StreamError(f"cannot read the input: {error.strerror}") from error


def check_stream(endpoint: Endpoint) -> None:
    """Check that an endpoint's transport is a stream.

    Raises:
        InvalidValueError: the transport is UDP.
    """
    if endpoint.scheme == "udp":
        raise InvalidValueError(
            f"{endpoint}: datagrams may be lost or reordered, and this needs a stream; use "
            "tcp://, tls:// or unix://"
        )


def stream(connection: EchoConnection, source: Source, sink: Sink) -> int:
    """Send all data of a source, shut down sending, and pass every byte received to a sink.

    It returns when the server closes the connection, so that surplus bytes are noticed; or, if the
    server does not close it, when nothing has arrived for the connection's timeout.

    A separate thread sends. Otherwise there could be a deadlock: the server would wait until its
    replies are read, and the client until its data is read.

    Args:
        connection: the connection to the service; it is of no further use afterwards.
        source: returns up to the given number of bytes; no bytes at the end of the data.
        sink: called with the data received, as it arrives.

    Returns:
        The number of bytes that were sent and came back.

    Raises:
        ClosedError: the service closed the connection before all data had returned.
        MismatchError: the data received differs from the data sent.
        StreamError: the source cannot be read.
        ClientError: the connection broke or stalled.
    """
    sender = _Sender(connection, source)
    sender.start()
    received = _Direction()
    while data := _receive(connection, sender, received):
        received.add(data)
        sink(data)
    if sender.failure is not None:
        raise sender.failure
    if not sender.finished or received.size < sender.sent.size:
        raise ClosedError(
            f"the server closed the connection after {received.size} of {sender.sent.size} bytes"
        )
    if received.digest.digest() != sender.sent.digest.digest():
        raise MismatchError(
            f"{sender.sent.size} bytes were sent and {received.size} came back, but they differ"
        )
    return received.size


def _receive(connection: EchoConnection, sender: _Sender, received: _Direction) -> bytes:
    """Return the next data; none at the end of the stream, or when all data has come back."""
    while True:
        try:
            return connection.receive()
        except ReplyTimeoutError:
            # Only bytes that were sent and have not come back make the timeout an error.
            if received.size < sender.sent.size:
                raise
            if sender.finished:
                return b""
        except LostError:
            if sender.finished and received.size == sender.sent.size:
                return b""
            raise


class _Sender(threading.Thread):
    """A thread that sends all data of a source.

    Attributes:
        sent: the data passed to the connection so far.
        finished: True once the source has ended and all its data has been sent.
        failure: the error that stopped the thread; None if there was none.
    """

    def __init__(self, connection: EchoConnection, source: Source) -> None:
        super().__init__(name="pipe-sender", daemon=True)
        self.sent = _Direction()
        self.failure: ClientError | None = None
        self.finished = False
        self._connection = connection
        self._source = source

    def run(self) -> None:
        try:
            while data := read_source(self._source, CHUNK):
                self.sent.add(data)
                self._connection.send(data)
            # Set before the peer can see the end of the stream and close the connection.
            self.finished = True
            self._connection.end_of_sending()
        except ClientError as error:
            self.failure = error
            self._connection.abort()
