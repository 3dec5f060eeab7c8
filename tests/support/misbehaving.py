"""Services that are not what an echo client hopes for, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from support.processes import DEADLINE, reset

Behaviour = Callable[[socket.socket, threading.Event], object]


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Read everything and say nothing."""
    while connection.recv(65536) and not over.is_set():
        pass


def silent_after(messages: int) -> Behaviour:
    """Echo so many messages of 64 bytes, then say nothing any more."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        for _ in range(messages):
            connection.sendall(connection.recv(64))
        silent(connection, over)

    return behave


def wrong(connection: socket.socket, _over: threading.Event) -> None:
    """Answer with as many bytes, all of them wrong."""
    while data := connection.recv(65536):
        connection.sendall(bytes(byte ^ 1 for byte in data))


def doubled(connection: socket.socket, _over: threading.Event) -> None:
    """Answer everything twice."""
    while data := connection.recv(65536):
        connection.sendall(data + data)


def drops_midway(connection: socket.socket, over: threading.Event) -> None:
    """Echo a few messages, then half of one, then close."""
    for _ in range(3):
        connection.sendall(connection.recv(65536))
    halves(connection, over)


def resets_midway(connection: socket.socket, over: threading.Event) -> None:
    """Echo a few messages, then reset."""
    for _ in range(3):
        connection.sendall(connection.recv(65536))
    resets(connection, over)


def halves(connection: socket.socket, _over: threading.Event) -> None:
    """Answer with half of what came, then close."""
    data = connection.recv(65536)
    connection.sendall(data[: len(data) // 2])


def resets(connection: socket.socket, _over: threading.Event) -> None:
    """Read, then reset."""
    connection.recv(65536)
    reset(connection)


def slow(connection: socket.socket, over: threading.Event) -> None:
    """Answer with one byte, then with nothing more."""
    while data := connection.recv(65536):
        connection.sendall(data[:1])
        over.wait(DEADLINE)


def late(seconds: float) -> Behaviour:
    """Answer in full, but later than the client waits."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        while data := connection.recv(65536):
            over.wait(seconds)
            connection.sendall(data)

    return behave


def in_pieces(connection: socket.socket, _over: threading.Event) -> None:
    """Echo, one byte a segment."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(65536):
        for byte in data:
            connection.sendall(bytes([byte]))


def closes(connection: socket.socket, _over: threading.Event) -> None:
    """Read, then close in peace."""
    connection.recv(65536)


def closes_at_once(_connection: socket.socket, _over: threading.Event) -> None:
    """Close without a word."""


def answers_http(connection: socket.socket, _over: threading.Event) -> None:
    """Be a web server that did not understand."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b"<p>What?" * 99)


def greets(connection: socket.socket, over: threading.Event) -> None:
    """Speak first, as mail servers do, then listen."""
    connection.sendall(b"220 mail.example.org ESMTP ready when you are; say HELO first\r\n" * 2)
    silent(connection, over)


def swapped(size: int) -> Behaviour:
    """Answer two messages of a size in the wrong order, each time."""

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        with connection.makefile("rb") as stream:
            while len(pair := stream.read(2 * size)) == 2 * size:
                connection.sendall(pair[size:] + pair[:size])

    return behave


class AnswersOfAnother:
    """Answer each connection with what the first one sent first; a behaviour."""

    def __init__(self) -> None:
        self._first = b""
        self._lock = threading.Lock()

    def __call__(self, connection: socket.socket, _over: threading.Event) -> None:
        while data := connection.recv(65536):
            with self._lock:
                self._first = self._first or data
            connection.sendall(self._first)


class Floods:
    """Answer endlessly, whatever comes, and read none of it; a behaviour.

    Attributes:
        bytes_sent: taken by the kernels.
    """

    def __init__(self) -> None:
        self.bytes_sent = 0

    def __call__(self, connection: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            self.bytes_sent += connection.send(b"x" * 65536)


class Service:
    """Serves every connection with a behaviour in a thread of its own; a context manager."""

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
