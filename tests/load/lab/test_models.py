"""The servers that are compared are correct: order, half-close, and a client that does not read."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from echo_core.endpoint import Endpoint, NetworkEndpoint
from echo_load.lab.serving import MODULES, serving
from support.processes import receive_exactly, until

CORES = frozenset(os.sched_getaffinity(0))


@pytest.fixture(params=[model for model in MODULES if model != "hub"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    with serving(request.param, CORES) as (target, _pid):
        endpoint = Endpoint.parse(target)
        assert isinstance(endpoint, NetworkEndpoint)
        yield endpoint.host, endpoint.port


def test_what_is_sent_comes_back_also_after_a_half_close(address: tuple[str, int]) -> None:
    content = os.urandom(3_000_000)
    with socket.create_connection(address, timeout=20) as connection:
        sending = threading.Thread(target=send_all, args=(connection, content))
        sending.start()
        assert receive_exactly(connection, len(content)) == content
        sending.join()
        assert connection.recv(1) == b""


def send_all(connection: socket.socket, content: bytes) -> None:
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


def test_several_are_served_at_once(address: tuple[str, int]) -> None:
    connections = [socket.create_connection(address, timeout=20) for _ in range(20)]
    for number, connection in enumerate(connections):
        connection.sendall(b"%03d" % number)
    for number, connection in reversed(list(enumerate(connections))):
        assert receive_exactly(connection, 3) == b"%03d" % number
        connection.close()


def test_who_does_not_read_is_not_read_from(address: tuple[str, int]) -> None:
    with (
        socket.create_connection(address, timeout=20) as other,
        socket.create_connection(address, timeout=20) as greedy,
    ):
        greedy.settimeout(1)
        # No more is taken than what the kernel's buffers and the server's hold.
        with pytest.raises(TimeoutError):
            greedy.sendall(bytes(64 << 20))
        other.sendall(b"still served")
        assert receive_exactly(other, 12) == b"still served"


@pytest.mark.parametrize("model", ["fork", "prefork"])
def test_nothing_of_a_server_remains(model: str) -> None:
    with serving(model, CORES) as (target, pid):
        endpoint = Endpoint.parse(target)
        assert isinstance(endpoint, NetworkEndpoint)
        with socket.create_connection((endpoint.host, endpoint.port), timeout=20) as connection:
            connection.sendall(b"x")
            assert receive_exactly(connection, 1) == b"x"
            processes = psutil.Process(pid).children()
            assert processes
    until(lambda: not any(process.is_running() for process in processes), "their end")
