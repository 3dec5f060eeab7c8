"""The hub engine's exchange on a connection of its own, step by step."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from gevent.hub import get_hub

from echo_client.addresses import resolve
from echo_core.endpoint import Endpoint
from echo_core.epoll_set import READABLE, EpollSet
from echo_load.engines.evidence import Failure
from echo_load.engines.hub.connection import ConnectionSlot, HubConnection
from echo_load.engines.hub.exchange import Exchange
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import Share
from echo_load.measure.counts import Counts
from echo_load.plan.plan import Plan
from support.processes import DEADLINE, loaded, receive_exactly, reset


class Opened:
    """A connection of the hub engine, its peer, and what serves it.

    Args:
        listener: where it is connected to.
        pipeline: number of messages in flight.
    """

    def __init__(self, listener: socket.socket, pipeline: int) -> None:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        [address] = resolve(Endpoint.parse(target))
        share = Share.alone(Plan(targets=(target,), pipeline=pipeline), [[address]])
        self.counts = Counts()
        self.failures: list[Failure | None] = []
        self._ready = select.epoll()
        self._set = EpollSet(get_hub().loop, self._ready, lambda _ready: None)
        self.exchange = Exchange(
            share,
            Recorder(share.timeline),
            self.counts,
            self._set,
            on_answered=lambda _connection: None,
            on_writable=lambda _connection: None,
            on_lost=lambda _connection, failure: self.failures.append(failure),
            on_other=lambda _descriptor, _events: None,
            after_step=lambda: None,
        )
        self.connection = HubConnection.of(ConnectionSlot(1), address, None)
        self.connection.connect_ex(address.sockaddr)
        self.peer, _ = listener.accept()
        self.connection.head = share.payload.head(1)
        self.exchange.connections[self.connection.fileno()] = self.connection
        self._set.watch(self.connection.fileno(), READABLE)

    def send(self) -> None:
        self.exchange.send(self.connection, 1, 0)

    def echo(self) -> None:
        self.peer.sendall(receive_exactly(self.peer, 64))

    def serve(self) -> None:
        self.exchange.serve([(self.connection.fileno(), self._ready.poll(DEADLINE)[0][1])])

    def close(self) -> None:
        self.peer.close()
        self.connection.close()
        self._set.close()


@pytest.fixture
def opened() -> Iterator[Callable[[int], Opened]]:
    """A function that opens a connection with a number of messages in flight."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield lambda pipeline: stack.enter_context(closing(Opened(listener, pipeline)))


@pytest.mark.parametrize(("resets", "kind"), [(True, "reset"), (False, "closed")])
def test_replies_that_came_before_a_send_failed_count(
    opened: Callable[[int], Opened], resets: bool, kind: str
) -> None:
    one = opened(4)
    one.send()
    one.echo()
    if resets:
        reset(one.peer)
    else:
        one.peer.close()
        # It is answered by a reset.
        one.send()
    poll = select.poll()
    poll.register(one.connection, 0)
    assert poll.poll(DEADLINE * 1000)
    one.send()
    for _ in range(2):
        one.serve()
    assert one.counts.messages == 1
    assert one.counts.bytes_received == 64
    assert [failure.kind for failure in one.failures if failure] == [kind]


def test_an_idle_connection_keeps_no_list_of_messages(opened: Callable[[int], Opened]) -> None:
    """A list takes more memory than the rest of a connection, of which there may be a million."""
    one = opened(1)
    for count in (1, 2):
        one.send()
        one.echo()
        one.serve()
        assert (one.counts.messages, one.connection.in_flight) == (count, None)


def test_a_unix_peer_that_receives_no_more(tmp_path: Path) -> None:
    """Sending fails at once, and the connection has no end that could be received."""
    path = f"{tmp_path}/echo"
    over = threading.Event()

    def serve() -> None:
        accepted, _ = listener.accept()
        with accepted:
            message = receive_exactly(accepted, 64)
            accepted.shutdown(socket.SHUT_RD)
            accepted.sendall(message)
            over.wait(DEADLINE)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        _, result = loaded("run", f"unix://{path}", "-c", "1", "-n", "2", "--no-reconnect")
        over.set()
        thread.join(DEADLINE)
    assert (result.totals.messages, result.totals.errors) == (1, {"reset": 1})
