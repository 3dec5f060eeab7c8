"""Services that do not echo as they should, on real sockets.

A behaviour is called with each connection, in a thread of its own, and with an event that is set
when the service stops. The connection is closed when it returns.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from support.processes import DEADLINE, receive_exactly, reset

Behaviour = Callable[[socket.socket, threading.Event], object]

# 64 bytes, as many as a message has.
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nServer: proxy\r\nContent-Length: 0\r\n\r\n\r\n"


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Receive everything and send nothing."""
    while connection.recv(65536) and not over.is_set():
        pass


def silent_after(messages: int) -> Behaviour:
    """Return a behaviour: echo this many messages of 64 bytes, then send nothing."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        for _ in range(messages):
            connection.sendall(connection.recv(64))
        silent(connection, over)

    return behave


def ends_after(messages: int, in_flight: int, *, by_reset: bool) -> Behaviour:
    """Return a behaviour: echo messages of 64 bytes, receive more of them, then end the connection.

    Args:
        messages: number of messages that are sent back.
        in_flight: number of those received after them.
        by_reset: whether to reset the connection or to close it.
    """

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        for _ in range(messages):
            connection.sendall(receive_exactly(connection, 64))
        receive_exactly(connection, 64 * in_flight)
        if by_reset:
            reset(connection)

    return behave


def wrong(connection: socket.socket, _over: threading.Event) -> None:
    """Send as many bytes as were received, all of them wrong."""
    while data := connection.recv(65536):
        connection.sendall(bytes(byte ^ 1 for byte in data))


def doubled(connection: socket.socket, _over: threading.Event) -> None:
    """Send everything back twice."""
    while data := connection.recv(65536):
        connection.sendall(data + data)


def drops_midway(connection: socket.socket, over: threading.Event) -> None:
    """Echo three messages and half of the next one, then close."""
    for _ in range(3):
        connection.sendall(connection.recv(65536))
    halves(connection, over)


def resets_midway(connection: socket.socket, over: threading.Event) -> None:
    """Echo three messages, receive the next one, then reset the connection."""
    for _ in range(3):
        connection.sendall(connection.recv(65536))
    resets(connection, over)


def halves(connection: socket.socket, _over: threading.Event) -> None:
    """Send back half of the first message, then close."""
    data = connection.recv(65536)
    connection.sendall(data[: len(data) // 2])


def resets(connection: socket.socket, _over: threading.Event) -> None:
    """Receive a message, then reset the connection."""
    connection.recv(65536)
    reset(connection)


def slow(connection: socket.socket, over: threading.Event) -> None:
    """Send back one byte, then nothing until the service stops or a minute has passed."""
    while data := connection.recv(65536):
        connection.sendall(data[:1])
        over.wait(DEADLINE)


def late(seconds: float) -> Behaviour:
    """Return a behaviour: echo after this many seconds."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        while data := connection.recv(65536):
            over.wait(seconds)
            connection.sendall(data)

    return behave


def in_pieces(connection: socket.socket, _over: threading.Event) -> None:
    """Echo with one byte per segment."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(65536):
        for byte in data:
            connection.sendall(bytes([byte]))


def closes(connection: socket.socket, _over: threading.Event) -> None:
    """Receive a message, then close."""
    connection.recv(65536)


def closes_at_once(_connection: socket.socket, _over: threading.Event) -> None:
    """Close at once, without receiving or sending."""


def answers_http(connection: socket.socket, _over: threading.Event) -> None:
    """Answer as a web server does to a request that is not HTTP, then close."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b"<p>What?" * 99)


def answers_bad_request(connection: socket.socket, _over: threading.Event) -> None:
    """Answer each message of 64 bytes as a proxy for HTTP does."""
    while data := connection.recv(len(BAD_REQUEST), socket.MSG_WAITALL):
        connection.sendall(BAD_REQUEST[: len(data)])


def greets(connection: socket.socket, over: threading.Event) -> None:
    """Send a greeting, as mail servers do, then receive everything and send nothing."""
    connection.sendall(b"220 mail.example.org ESMTP ready when you are; say HELO first\r\n" * 2)
    silent(connection, over)


def swapped(size: int) -> Behaviour:
    """Return a behaviour: echo each two messages of this size in the wrong order."""

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        with connection.makefile("rb") as stream:
            while len(pair := stream.read(2 * size)) == 2 * size:
                connection.sendall(pair[size:] + pair[:size])

    return behave


class ForeignReplies:
    """A behaviour: answer all messages on all connections with the very first one."""

    def __init__(self) -> None:
        self._first = b""
        self._lock = threading.Lock()

    def __call__(self, connection: socket.socket, _over: threading.Event) -> None:
        while data := connection.recv(65536):
            with self._lock:
                self._first = self._first or data
            connection.sendall(self._first)


class Floods:
    """A behaviour: send endlessly, and receive nothing.

    Attributes:
        bytes_sent: bytes that the kernel has accepted.
    """

    def __init__(self) -> None:
        self.bytes_sent = 0

    def __call__(self, connection: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            self.bytes_sent += connection.send(b"x" * 65536)


class Service:
    """A service with a behaviour, on a free port; a context manager.

    Attributes:
        port: its port.
        target: `HOST:PORT` of the service.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.target = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(DEADLINE)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._behaviour(connection, self._over)
