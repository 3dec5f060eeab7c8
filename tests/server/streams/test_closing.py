"""How the server ends connections: with the end of the stream, also if bytes have just arrived.

The hub never runs here, so that nothing that has arrived is read before the connection is closed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import termios
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from echo_core.epoll_set import READABLE
from echo_server.faults import Fault, FaultPlan
from echo_server.metrics.counters import Counter, CounterTable
from echo_server.streams.connection import Connection
from echo_server.streams.echo_set import EchoSet
from echo_server.streams.faulty import FaultyEchoSet
from echo_server.streams.idle import SWEEPS_PER_TIMEOUT, IdleSweep
from support.processes import DEADLINE, receive_exactly, receive_to_end, until


def faulty(*faults: str) -> Callable[..., EchoSet]:
    return partial(FaultyEchoSet, plan=FaultPlan([Fault.parse(fault) for fault in faults], 0))


both_kinds = pytest.mark.parametrize("kind", [EchoSet, faulty()], ids=["plain", "faulty"])


class Unattended:
    """An echo set that only does what it is told to."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.ended: list[Counter] = []

    def make(self, kind: Callable[..., EchoSet], **named: int) -> EchoSet:
        counters = CounterTable.create().row(0)
        return kind(counters, lambda _, reason: self.ended.append(reason), **named)

    def connect(self, echo_set: EchoSet) -> tuple[socket.socket, Connection]:
        """A client, and the connection that the echo set has of it."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            client = self._stack.enter_context(socket.create_connection(listener.getsockname()))
            client.settimeout(DEADLINE)
            accepted, _ = listener.accept()
        return client, self._add(accepted, echo_set)

    def connect_unix(self, echo_set: EchoSet) -> tuple[socket.socket, Connection]:
        """A client with a unix socket, and the connection that the echo set has of it."""
        client, accepted = socket.socketpair()
        self._stack.enter_context(client)
        client.settimeout(DEADLINE)
        return client, self._add(accepted, echo_set)

    def _add(self, accepted: socket.socket, echo_set: EchoSet) -> Connection:
        connection = Connection(fileno=accepted.detach())
        connection.setblocking(False)
        connection.sockaddr = ""
        echo_set.add(connection)
        return connection


@pytest.fixture
def unattended() -> Iterator[Unattended]:
    with ExitStack() as stack:
        yield Unattended(stack)


def waiting(connection: Connection, request: int) -> int:
    """How many bytes the kernel holds, to be received or acknowledged."""
    count = array("i", [0])
    fcntl.ioctl(connection.fileno(), request, count)
    return count[0]


def send(client: socket.socket, connection: Connection, data: bytes) -> None:
    """Send, and wait until all of it has arrived."""
    client.sendall(data)
    until(lambda: waiting(connection, termios.FIONREAD) == len(data), "the bytes to arrive")


@both_kinds
def test_what_has_arrived_when_the_server_stops_is_echoed(
    unattended: Unattended, kind: Callable[..., EchoSet]
) -> None:
    echo_set = unattended.make(kind)
    client, connection = unattended.connect(echo_set)
    send(client, connection, b"just in time")
    echo_set.close(0)
    assert receive_to_end(client) == b"just in time"
    assert unattended.ended == [Counter.CLOSED_SERVER_STOPPED]


@both_kinds
def test_a_connection_that_ends_just_before_the_server_stops(
    unattended: Unattended, kind: Callable[..., EchoSet]
) -> None:
    echo_set = unattended.make(kind)
    client, _ = unattended.connect(echo_set)
    client.shutdown(socket.SHUT_WR)
    echo_set.close(0)
    assert receive_to_end(client) == b""
    assert unattended.ended == [Counter.CLOSED_END_OF_STREAM]


def test_what_the_rate_limit_holds_back_causes_no_reset(unattended: Unattended) -> None:
    echo_set = unattended.make(EchoSet, rate_limit=1000)
    client, connection = unattended.connect(echo_set)
    sent = os.urandom(10_000)
    send(client, connection, sent)
    # One read is not enough on a machine that is so busy that the limit allows another.
    while not echo_set.is_suspended(connection):
        echo_set.echo(((connection.fileno(), READABLE),))
    echo_set.close(0)
    received = receive_to_end(client)
    assert 0 < len(received) < len(sent)
    assert sent.startswith(received)


@pytest.mark.parametrize("connect", [Unattended.connect, Unattended.connect_unix])
@pytest.mark.parametrize("fault", ["close", "truncate"])
def test_a_fault_that_closes_sends_no_reset(
    unattended: Unattended,
    fault: str,
    connect: Callable[[Unattended, EchoSet], tuple[socket.socket, Connection]],
) -> None:
    echo_set = unattended.make(faulty(fault))
    client, connection = connect(unattended, echo_set)
    sent = os.urandom(100_000)
    send(client, connection, sent)
    echo_set.echo(((connection.fileno(), READABLE),))
    received = receive_to_end(client)
    assert len(received) < len(sent)
    assert sent.startswith(received)
    assert unattended.ended == [Counter.CLOSED_FAULT_INJECTED]
    echo_set.close(0)


@both_kinds
def test_a_connection_is_not_idle_if_its_bytes_have_arrived(
    unattended: Unattended, kind: Callable[..., EchoSet]
) -> None:
    """A server that did not run for a while blames nobody for it."""
    echo_set = unattended.make(kind)
    client, connection = unattended.connect(echo_set)
    sweep = IdleSweep(echo_set, timeout=3600.0)
    for number in range(3):
        # The first one finds progress: the connection is new, or a message was echoed.
        for _ in range(SWEEPS_PER_TIMEOUT):
            sweep._on_tick()
        message = b"not idle %d" % number
        send(client, connection, message)
        sweep._on_tick()
        assert receive_exactly(client, len(message)) == message
        # An acknowledgement that comes later would be progress, too.
        until(lambda: not waiting(connection, termios.TIOCOUTQ), "the acknowledgement")
    for _ in range(SWEEPS_PER_TIMEOUT + 1):
        assert not unattended.ended
        sweep._on_tick()
    assert unattended.ended == [Counter.CLOSED_IDLE]
    assert receive_to_end(client) == b""
    sweep.close()
    echo_set.close(0)
