"""Reads that fill the buffer: how much is received at once, sent at once, and kept."""

from __future__ import annotations

import fcntl
import os
import socket
import termios
import threading
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from echo_core.epoll_set import READABLE, WRITABLE
from echo_server.metrics.counters import Counter, CounterTable
from echo_server.streams.connection import Connection
from echo_server.streams.echo_set import BUFFER_SIZE, LARGEST_READ, EchoSet
from support.processes import (
    DEADLINE,
    EchoServerProcess,
    echoes,
    receive_exactly,
    receive_to_end,
    until,
)


class Stepped:
    """An echo set that is told by hand what is ready, because the hub never runs."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.ended: list[Counter] = []
        self.taken = 0
        self.counters = CounterTable.create().row(0)
        self.echo_set = EchoSet(self.counters, lambda _, reason: self.ended.append(reason))
        stack.callback(self.echo_set.close)

    def connect(self, kind: type[Connection] = Connection) -> tuple[socket.socket, Connection]:
        """A client, and the connection that the echo set has of it."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            client = self._stack.enter_context(socket.create_connection(listener.getsockname()))
            accepted, _ = listener.accept()
        connection = kind(fileno=accepted.detach())
        connection.setblocking(False)
        connection.sockaddr = ""
        self.echo_set.add(connection)
        client.settimeout(DEADLINE)
        return client, connection

    def step(self, connection: Connection, events: int = READABLE) -> None:
        """Serve a connection once."""
        self.echo_set.echo([(connection.fileno(), events)])

    def count(self, counter: Counter) -> int:
        return self.counters.cells[counter]


def send_whole(client: socket.socket, connection: Connection, data: bytes) -> None:
    """Send, and wait until all of it can be received at once."""
    client.sendall(data)

    def there() -> int:
        waiting = array("i", [0])
        fcntl.ioctl(connection.fileno(), termios.FIONREAD, waiting)
        return waiting[0]

    until(lambda: there() == len(data), "the bytes to arrive")


@pytest.fixture
def stepped() -> Iterator[Stepped]:
    with ExitStack() as stack:
        yield Stepped(stack)


def receive_back(stepped: Stepped, client: socket.socket, connection: Connection) -> bytes:
    """Receive all that is being sent back, however much the sockets' buffers take at once."""
    received = bytearray()
    missing = connection.received - stepped.taken
    while len(received) < missing:
        received += client.recv(LARGEST_READ)
        if connection.unsent:
            stepped.step(connection, WRITABLE)
    stepped.taken += missing
    return bytes(received)


@pytest.mark.parametrize(
    ("sizes", "reads"),
    [
        ([BUFFER_SIZE - 1, 100_000], [BUFFER_SIZE - 1, BUFFER_SIZE]),
        ([BUFFER_SIZE, 100_000], [BUFFER_SIZE, 100_000]),
        ([BUFFER_SIZE + 100_000], [BUFFER_SIZE, 100_000]),
        # Small ones between them change nothing; one that is neither small nor large does.
        ([BUFFER_SIZE, 10, 100_000], [BUFFER_SIZE, 10, 100_000]),
        ([BUFFER_SIZE, 5000, 100_000], [BUFFER_SIZE, 5000, BUFFER_SIZE]),
        ([BUFFER_SIZE, 100_000, 5000, 70_000], [BUFFER_SIZE, 100_000, 5000, BUFFER_SIZE]),
    ],
)
def test_a_full_read_is_followed_by_larger_ones(
    stepped: Stepped, sizes: list[int], reads: list[int]
) -> None:
    client, connection = stepped.connect()
    sent = [os.urandom(size) for size in sizes]
    back = bytearray()
    for number, read in enumerate(reads):
        if number < len(sent):
            send_whole(client, connection, sent[number])
        before = connection.received
        stepped.step(connection)
        assert connection.received - before == read
        back += receive_back(stepped, client, connection)
    assert b"".join(sent).startswith(back)
    assert len(back) == sum(reads)


class Endless(Connection):
    """A connection that always has more to receive than the buffer can hold."""

    __slots__ = ()

    def recv_into(self, buffer: Any, *_: Any) -> int:
        return len(buffer)


def test_one_connection_gets_a_bounded_share_of_a_turn(stepped: Stepped) -> None:
    _, endless = stepped.connect(Endless)
    client, connection = stepped.connect()
    for number, most in enumerate([BUFFER_SIZE, BUFFER_SIZE + LARGEST_READ]):
        message = b"small %d" % number
        send_whole(client, connection, message)
        stepped.echo_set.echo([(endless.fileno(), READABLE), (connection.fileno(), READABLE)])
        assert endless.received == most
        assert len(endless.unsent) <= LARGEST_READ
        assert receive_exactly(client, len(message)) == message


def test_an_end_behind_a_full_buffer(stepped: Stepped) -> None:
    client, connection = stepped.connect()
    sent = os.urandom(BUFFER_SIZE)
    send_whole(client, connection, sent)
    client.shutdown(socket.SHUT_WR)
    stepped.step(connection)
    assert not stepped.ended
    assert receive_back(stepped, client, connection) == sent
    stepped.step(connection)
    assert stepped.ended == [Counter.CLOSED_END_OF_STREAM]
    assert receive_to_end(client) == b""


def test_a_rate_limit_bounds_the_read() -> None:
    counters = CounterTable.create().row(0)
    for burst in (1000, BUFFER_SIZE - 1, BUFFER_SIZE, 100_000, 1 << 30):
        echo_set = EchoSet(counters, lambda *_: None, rate_limit=burst * 10)
        assert len(echo_set._large_buffer) == min(LARGEST_READ, burst + 1)
        assert len(echo_set._buffer) == min(BUFFER_SIZE, burst + 1)
        echo_set.close()


def test_large_messages_beside_small_ones(echo_server: EchoServerProcess) -> None:
    """Some are read slowly; every byte comes back to whom it belongs to."""
    messages, failures = 6, []

    def exchange(connection: socket.socket, piece: int) -> None:
        sent = os.urandom(messages << 20)
        sender = threading.Thread(target=connection.sendall, args=(sent,))
        sender.start()
        received = bytearray()
        while len(received) < len(sent) and (data := connection.recv(piece)):
            received += data
        sender.join(DEADLINE)
        if received != sent:
            failures.append(piece)

    with ExitStack() as stack:
        witness = stack.enter_context(echo_server.connect())
        exchanges = [
            threading.Thread(
                target=exchange, args=(stack.enter_context(echo_server.connect()), piece)
            )
            for piece in (1000, 65536, 65536, 1 << 20)
        ]
        for one in exchanges:
            one.start()
        number = 0
        while any(one.is_alive() for one in exchanges):
            assert echoes(witness, b"small message %d" % number)
            number += 1
        assert not failures
