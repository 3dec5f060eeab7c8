"""Both kinds of echo set in this process, on a hub in a thread of its own.

What goes wrong on purpose here cannot be brought about from outside: an error inside a callback
of the hub, or inside accepting.
"""

from __future__ import annotations

import errno
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import gevent
import pytest
from gevent.hub import get_hub

from echo_core.endpoint import NetworkEndpoint
from echo_core.epoll_set import OtherDirectionError
from echo_server.config import ServerConfig
from echo_server.faults import FaultPlan
from echo_server.listeners import listen_tcp
from echo_server.metrics.counters import Counters, CounterTable
from echo_server.streams.acceptor import EchoServer
from echo_server.streams.admission import Admission
from echo_server.streams.connection import Connection
from echo_server.streams.descriptor_set import MakeDescriptorSet, WatcherSet, epoll_set
from echo_server.streams.echo_set import EchoSet
from echo_server.streams.faulty import FaultyEchoSet
from support.processes import DEADLINE, echoes, receive_exactly, receive_to_end, reset, until


class InProcessServer:
    """An EchoServer on a hub of its own, in a native thread."""

    def __init__(
        self,
        make_echo_set: Callable[..., EchoSet],
        make_server: Callable[
            [socket.socket, EchoSet, Admission, Counters, int], EchoServer
        ] = EchoServer,
    ) -> None:
        self._make_echo_set = make_echo_set
        self._make_server = make_server
        self._started: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._started.get(timeout=DEADLINE)

    def _run(self) -> None:
        hub = get_hub()
        over = hub.loop.async_()
        self._stop = over.send
        listener = listen_tcp(NetworkEndpoint("127.0.0.1", 0), backlog=128)
        self.port: int = listener.getsockname()[1]
        counters = CounterTable.create().row(0)
        admission = Admission(ServerConfig(listen=(NetworkEndpoint("127.0.0.1"),)), counters)
        self.echo_set = self._make_echo_set(counters, admission.release)
        self.server = self._make_server(listener, self.echo_set, admission, counters, 128)
        self.server.start()
        stopped = gevent.event.Event()
        over.start(stopped.set)
        self._started.put(None)
        stopped.wait()
        self.server.stop()
        self.drained = self.echo_set.join(0)
        self.echo_set.close()
        hub.destroy()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    def stop(self) -> None:
        self._stop()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


@contextmanager
def serving(*arguments: Any) -> Iterator[InProcessServer]:
    server = InProcessServer(*arguments)
    try:
        yield server
    finally:
        server.stop()


both_kinds = pytest.mark.parametrize("make_set", [epoll_set, WatcherSet])


@both_kinds
def test_echoes_stalls_resumes_and_ends(make_set: MakeDescriptorSet) -> None:
    with serving(of(make_set)) as server, server.connect() as witness, ExitStack() as stack:
        assert echoes(witness)
        for size in (1, 2048, 2049, 65536, 65537, 262144, 262145, 8 << 20):
            sent = bytes(range(256)) * (size // 256) + bytes(size % 256)
            connection = stack.enter_context(server.connect())
            sender = threading.Thread(target=connection.sendall, args=(sent,))
            sender.start()
            assert receive_exactly(connection, size) == sent
            sender.join(DEADLINE)
            connection.shutdown(socket.SHUT_WR)
            assert receive_to_end(connection) == b""
        assert echoes(witness)
        until(lambda: len(server.echo_set) == 1, "all but the witness to be gone")


@both_kinds
def test_stops_with_connections_open(make_set: MakeDescriptorSet) -> None:
    with serving(of(make_set)) as server:
        connection = server.connect()
        assert echoes(connection)
    assert connection.recv(1) == b""
    connection.close()
    assert not server.drained
    assert len(server.echo_set) == 0


class Patient(EchoSet):
    """An echo set that waits for its peers when it is closed."""

    def close(self, linger_seconds: float = DEADLINE) -> None:
        super().close(linger_seconds)


@both_kinds
def test_what_is_sent_after_the_end_causes_no_reset(make_set: MakeDescriptorSet) -> None:
    """The server waits until the peer has closed, too, and no longer."""
    done: list[str] = []

    def insist(connection: socket.socket) -> None:
        assert connection.recv(1) == b""
        for _ in range(100):
            connection.sendall(bytes(65536))
        done.append("sent")
        connection.close()

    with serving(of(make_set, Patient)) as server:
        connection = server.connect()
        assert echoes(connection)
        client = threading.Thread(target=insist, args=(connection,))
        client.start()
    client.join(DEADLINE)
    assert done == ["sent"]


@both_kinds
def test_accepted_connections_have_no_delay(make_set: MakeDescriptorSet) -> None:
    with serving(of(make_set)) as server, server.connect() as connection:
        assert echoes(connection)
        (accepted,) = server.echo_set.connections.values()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_backlog_is_passed_to_the_kernel() -> None:
    listener = listen_tcp(NetworkEndpoint("127.0.0.1", 0), backlog=77)
    # For a listener, tcpi_sacked of struct tcp_info is the length of its queue.
    information = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert int.from_bytes(information[28:32], "little") == 77
    listener.close()


class BrokenError(Exception):
    """Raised on purpose."""


def of(make_set: MakeDescriptorSet, kind: type[EchoSet] = EchoSet) -> Callable[..., EchoSet]:
    """A function that makes echo sets which learn of readiness in this way."""
    return partial(kind, make_set=make_set)


def failing(method: str, raised: BaseException) -> type[EchoSet]:
    """An echo set one of whose methods raises for the connections marked by `doomed`."""

    def fail(self: Any, connection: Connection, *arguments: Any) -> Any:
        if connection.getpeername()[1] in self.doomed:
            self.doomed.discard(connection.getpeername()[1])
            raise raised
        return getattr(EchoSet, method)(self, connection, *arguments)

    return type("Failing", (EchoSet,), {method: fail, "doomed": set()})


def stall(connection: socket.socket) -> None:
    """Send until the server cannot send back, so that it changes what it waits for."""
    connection.settimeout(0.2)
    with pytest.raises((TimeoutError, ConnectionError)):
        connection.sendall(bytes(64 << 20))


@both_kinds
@pytest.mark.parametrize("raised", [BrokenError("on purpose"), OSError(errno.EIO, "on purpose")])
def test_an_error_while_echoing_ends_that_connection(
    make_set: MakeDescriptorSet, raised: BaseException
) -> None:
    with (
        serving(of(make_set, failing("_watch_for", raised))) as server,
        server.connect() as witness,
    ):
        assert echoes(witness)
        connection = server.connect()
        server.echo_set.doomed.add(connection.getsockname()[1])  # type: ignore[attr-defined]
        stall(connection)
        until(lambda: len(server.echo_set) == 1, "the connection to be ended")
        connection.close()
        assert echoes(witness)
        with server.connect() as another:
            assert echoes(another)


@both_kinds
def test_an_error_while_ending_a_connection_leaves_the_others(make_set: MakeDescriptorSet) -> None:
    """The error escapes from the batch; the callback of the hub must still be called again."""
    with (
        serving(of(make_set, failing("end", BrokenError("on purpose")))) as server,
        server.connect() as witness,
    ):
        assert echoes(witness)
        connection = server.connect()
        assert echoes(connection)
        server.echo_set.doomed.add(connection.getsockname()[1])  # type: ignore[attr-defined]
        connection.shutdown(socket.SHUT_WR)
        assert receive_to_end(connection) == b""
        connection.close()
        assert echoes(witness)


class ReadsWhenWritable(Connection):
    """A connection whose first receive has to wait until it is writable, as TLS's may."""

    __slots__ = ("_was_writable",)

    def recv_into(self, buffer: Any, *arguments: Any) -> int:
        if not hasattr(self, "_was_writable"):
            self._was_writable = True
            raise OtherDirectionError
        return super().recv_into(buffer, *arguments)


class SendsWhenReadable(Connection):
    """A connection whose sends have to wait until it is readable, as TLS's may."""

    __slots__ = ("_was_readable",)

    def recv_into(self, buffer: Any, *arguments: Any) -> int:
        self._was_readable = bool(self.unsent)
        if self.unsent:
            raise OtherDirectionError
        return super().recv_into(buffer, *arguments)

    def send(self, data: Any, *arguments: Any) -> int:
        if not self._was_readable:
            raise OtherDirectionError
        self._was_readable = False
        return super().send(data, *arguments)


@both_kinds
def test_a_receive_that_waits_until_it_can_send(make_set: MakeDescriptorSet) -> None:
    with serving(of(make_set), of_connections(ReadsWhenWritable)) as server:
        for _ in range(3):
            with server.connect() as connection:
                assert echoes(connection)
                assert echoes(connection, bytes(100_000))


@both_kinds
def test_a_send_that_waits_until_it_can_receive(make_set: MakeDescriptorSet) -> None:
    with (
        serving(of(make_set), of_connections(SendsWhenReadable)) as server,
        server.connect() as client,
    ):
        messages = [b"message %d" % number for number in range(10)]
        client.sendall(messages[0])
        until(lambda: waits(server, messages[0]), "the first one to wait")
        for before, message in pairwise(messages):
            client.sendall(message)
            assert receive_exactly(client, len(before)) == before
            until(partial(waits, server, message), "the next one to wait")


def waits(server: InProcessServer, message: bytes) -> bool:
    return [bytes(one.unsent) for one in server.echo_set.connections.values()] == [message]


def of_connections(kind: type[Connection]) -> Callable[..., EchoServer]:
    """Make servers whose connections are of another kind."""

    def make_server(*arguments: Any) -> EchoServer:
        server = EchoServer(*arguments)
        server._connection_class = kind
        return server

    return make_server


@both_kinds
def test_an_error_while_admitting_closes_that_connection(make_set: MakeDescriptorSet) -> None:
    class Refusing(EchoSet):
        refused = False

        def add(self, connection: Connection) -> None:
            if not self.refused:
                self.refused = True
                raise BrokenError("on purpose")
            super().add(connection)

    with serving(of(make_set, Refusing)) as server:
        with server.connect() as connection:
            assert connection.recv(1) == b""
        for _ in range(3):
            with server.connect() as connection:
                assert echoes(connection)


class FailingAccept:
    """A listener whose first accepts raise, one error after the other."""

    def __init__(self, listener: socket.socket, errors: list[Exception]) -> None:
        self._listener = listener
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    def _accept(self) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        return self._listener._accept()  # type: ignore[attr-defined]


@both_kinds
def test_errors_while_accepting_do_not_stop_accepting(make_set: MakeDescriptorSet) -> None:
    errors: list[Exception] = [
        OSError(errno.ECONNABORTED, "gone before it was accepted"),
        OSError(errno.EMFILE, "out of descriptors"),
        OSError(errno.EIO, "something else"),
        BrokenError("on purpose"),
    ]

    def make_server(listener: socket.socket, *others: Any) -> EchoServer:
        return EchoServer(FailingAccept(listener, errors), *others)  # type: ignore[arg-type]

    with serving(of(make_set), make_server) as server:
        for _ in range(3):
            with server.connect() as connection:
                assert echoes(connection)
    assert not errors


@both_kinds
def test_resets_of_many_connections_at_once(make_set: MakeDescriptorSet) -> None:
    with serving(of(make_set)) as server, server.connect() as witness:
        connections = [server.connect() for _ in range(100)]
        for connection in connections:
            assert echoes(connection)
        for connection in connections:
            connection.sendall(b"never read")
            reset(connection)
        until(lambda: len(server.echo_set) == 1, "all but the witness to be gone")
        assert echoes(witness)


@both_kinds
def test_a_connection_that_cannot_be_added_leaves_nothing_behind(
    make_set: MakeDescriptorSet,
) -> None:
    counters = CounterTable.create().row(0)
    echo_set = FaultyEchoSet(counters, lambda *_: None, plan=FaultPlan((), 0), make_set=make_set)
    connection = Connection()
    connection.close()
    with pytest.raises(ValueError, match=r"negative|file descriptor"):
        echo_set.add(connection)
    assert not echo_set.connections
    assert not echo_set._reads
    echo_set.close()
