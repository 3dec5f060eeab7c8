"""Input that the network may send: the server continues, logs nothing and does not grow."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack

import pytest

from support.processes import (
    EchoServerProcess,
    StartServer,
    echoes,
    receive_exactly,
    receive_to_end,
    reset,
    until,
)

ROUND = 10_000
ADMIN = ("--admin", "127.0.0.1:0")


def visits(server: EchoServerProcess, count: int) -> None:
    """Connect and reset, some with data on the way, some at once."""
    for number in range(count):
        connection = server.connect()
        if number % 3:
            connection.sendall(os.urandom(number % 200 + 1))
        if number % 3 == 2:
            connection.recv(1)
        reset(connection)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ten_thousand_resets_twice(start_server: StartServer, workers: str) -> None:
    server = start_server(
        *("--workers", workers, "--max-connections", "5000", "--max-connections-per-ip", "5000"),
        *("--idle-timeout", "1h", "--rate-limit", "1GB", *ADMIN),
    )

    def taken() -> float:
        return server.metric("connections_accepted_total") + server.metric("accept_errors_total")

    def resident(count: int) -> float:
        until(lambda: taken() == count + 1, "all to be accepted")
        until(lambda: server.metric("connections_open") == 1, "all but the witness to be gone")
        return server.metric("worker_resident_memory_bytes")

    with server.connect() as witness:
        assert echoes(witness)
        visits(server, ROUND)
        after_first = resident(ROUND)
        visits(server, ROUND)
        assert resident(2 * ROUND) - after_first < 2 * 1024 * 1024
        assert echoes(witness)
        accepted = server.metric("connections_accepted_total")
        server.wait_for_metric("connections_closed_total", accepted - 1)
    assert "exception" not in server.log()
    assert "Traceback" not in server.log()


def test_random_bytes_are_echoed(start_server: StartServer) -> None:
    server = start_server()
    pick = random.Random(7)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(20)]
        for _ in range(20):
            sent = [os.urandom(pick.randrange(1, 30_000)) for _ in connections]
            for connection, message in zip(connections, sent, strict=True):
                connection.sendall(message)
            for connection, message in zip(connections, sent, strict=True):
                assert receive_exactly(connection, len(message)) == message
    assert "exception" not in server.log()


@pytest.mark.slow
@pytest.mark.usefixtures("many_descriptors")
def test_connections_that_never_send(start_server: StartServer) -> None:
    server = start_server("--drain-timeout", "0", *ADMIN)
    with ExitStack() as stack:
        for _ in range(2000):
            stack.enter_context(server.connect())
        until(lambda: server.metric("connections_open") == 2000, "all to be accepted")
        with server.connect() as busy:
            assert echoes(busy)
    assert "exception" not in server.log()


@pytest.mark.slow
def test_urgent_data_and_half_closes(start_server: StartServer) -> None:
    server = start_server(*ADMIN)
    with server.connect() as witness:
        for _ in range(100):
            with server.connect() as odd:
                odd.sendall(b"before")
                odd.send(b"!", socket.MSG_OOB)
                odd.sendall(b"after")
                odd.shutdown(socket.SHUT_WR)
                assert receive_to_end(odd) == b"before!after"
        assert echoes(witness)
        server.wait_for_metric("received_bytes_total", 100 * 12 + 12)
    assert "exception" not in server.log()
