"""The hub engine's exchange on a connection of its own, step by step."""

from __future__ import annotations

import select
import socket
import threading
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


@pytest.mark.parametrize(("resets", "kind"), [(True, "reset"), (False, "closed")])
def test_replies_that_came_before_a_send_failed_count(resets: bool, kind: str) -> None:
    failures: list[Failure | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        [address] = resolve(Endpoint.parse(target))
        share = Share.alone(Plan(targets=(target,), pipeline=4), [[address]])
        counts, recorder = Counts(), Recorder(share.timeline)
        ready = select.epoll()
        epoll_set = EpollSet(get_hub().loop, ready, lambda _ready: None)
        exchange = Exchange(
            share,
            recorder,
            counts,
            epoll_set,
            on_answered=lambda _connection: None,
            on_writable=lambda _connection: None,
            on_lost=lambda _connection, failure: failures.append(failure),
            on_other=lambda _descriptor, _events: None,
            after_step=lambda: None,
        )
        connection = HubConnection.of(ConnectionSlot(1), address, None)
        connection.connect_ex(address.sockaddr)
        accepted, _ = listener.accept()
        connection.head = share.payload.head(1)
        exchange.connections[connection.fileno()] = connection
        epoll_set.watch(connection.fileno(), READABLE)
        exchange.send(connection, 1, 0)
        accepted.sendall(receive_exactly(accepted, 64))
        if resets:
            reset(accepted)
        else:
            accepted.close()
            # It is answered by a reset.
            exchange.send(connection, 1, 0)
        poll = select.poll()
        poll.register(connection, 0)
        assert poll.poll(DEADLINE * 1000)
        exchange.send(connection, 1, 0)
        for _ in range(2):
            exchange.serve([(connection.fileno(), ready.poll(DEADLINE)[0][1])])
        connection.close()
        epoll_set.close()
    assert counts.messages == 1
    assert counts.bytes_received == 64
    assert [failure.kind for failure in failures if failure] == [kind]


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
