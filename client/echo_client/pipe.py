"""From a source to the service and from the service to a sink, both ways at once."""

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
class _Half:
    """One direction of a stream: how many bytes went through it, and which."""

    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)


def check_stream(endpoint: Endpoint) -> None:
    """Refuse what a stream cannot go through.

    Raises:
        InvalidValueError: it is UDP.
    """
    if endpoint.scheme == "udp":
        raise InvalidValueError(
            f"{endpoint}: datagrams may be lost or reordered, and this needs a stream; use "
            "tcp://, tls:// or unix://"
        )


def stream(connection: EchoConnection, source: Source, sink: Sink) -> int:
    """Send all of a source, then its end, and hand every byte that comes back to a sink.

    It ends when the other end does, so that what came behind the last byte is noticed; where that
    does not, when it has been quiet for the connection's timeout.

    A thread of its own sends, so that a server that waits for its reply to be read never makes
    both ends wait for each other.

    Args:
        connection: where to; it is at its end afterwards.
        source: called with a size for at most so many bytes more; nothing at its end.
        sink: takes what came back, as it comes.

    Returns:
        The number of bytes that made the round trip.

    Raises:
        ClosedError: the service closed the connection before everything had come back.
        MismatchError: what came back is not what was sent.
        StreamError: the source cannot be read.
        ClientError: the connection broke or stalled.
    """
    sender = _Sender(connection, source)
    sender.start()
    received = _Half()
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


def _receive(connection: EchoConnection, sender: _Sender, received: _Half) -> bytes:
    """Receive what comes next; nothing at the end, or where nothing more is to come."""
    while True:
        try:
            return connection.receive()
        except ReplyTimeoutError:
            # Waiting for more input is no fault; waiting for bytes that were sent is one.
            if received.size < sender.sent.size:
                raise
            if sender.finished:
                return b""
        except LostError:
            if sender.finished and received.size == sender.sent.size:
                return b""
            raise


class _Sender(threading.Thread):
    """Sends a source to its end; what stopped it before that is its `failure`.

    Attributes:
        sent: what was handed to the connection.
        finished: the source has ended, and all of it is `sent`.
        failure: why it could not go on.
    """

    def __init__(self, connection: EchoConnection, source: Source) -> None:
        super().__init__(name="pipe-sender", daemon=True)
        self.sent = _Half()
        self.failure: ClientError | None = None
        self.finished = False
        self._connection = connection
        self._source = source

    def run(self) -> None:
        try:
            while data := self._read():
                self.sent.add(data)
                self._connection.send(data)
            # Before the other end can see the end, and answer with its own.
            self.finished = True
            self._connection.end_of_sending()
        except ClientError as error:
            self.failure = error
            self._connection.abort()

    def _read(self) -> bytes:
        try:
            return self._source(CHUNK)
        except OSError as error:
            raise StreamError(f"cannot read the input: {error.strerror}") from error
