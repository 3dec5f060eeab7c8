"""The echo service as its clients see it, in a process of its own."""

from __future__ import annotations

import hashlib
import os
import re
import select
import signal
import socket
import threading

import pytest

from support.processes import (
    DEADLINE,
    EchoServerProcess,
    StartServer,
    descriptor_limit,
    echoes,
    ended_by_signals,
    fill,
    one_error,
    receive_exactly,
    receive_to_end,
    reset,
    until,
)


def test_the_listener_is_announced(echo_server: EchoServerProcess) -> None:
    assert re.fullmatch(r"listening tcp://127\.0\.0\.1:\d+", echo_server.line)
    with echo_server.connect() as connection:
        assert echoes(connection)


def test_a_listener_on_ipv6(start_server: StartServer) -> None:
    server = start_server("--host", "::1")
    assert server.url == f"tcp://[::1]:{server.port}"
    with server.connect("::1") as connection:
        assert echoes(connection)


def test_a_half_closed_connection_gets_everything_back_and_then_the_end(
    echo_server: EchoServerProcess,
) -> None:
    sent = os.urandom(300_000)
    with echo_server.connect() as connection:

        def send_and_end() -> None:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send_and_end)
        sender.start()
        assert receive_to_end(connection) == sent
        sender.join(DEADLINE)


def test_a_mebibyte_to_a_slow_reader(echo_server: EchoServerProcess) -> None:
    """The client reads nothing until it has sent all that the buffers of both ends hold."""
    sent = os.urandom(1 << 20)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(DEADLINE)
        connection.connect(("127.0.0.1", echo_server.port))
        sender = threading.Thread(target=connection.sendall, args=(sent,))
        sender.start()
        received = bytearray()
        while len(received) < len(sent):
            received += connection.recv(100)
            if len(received) < 2000:
                # Let the server see a full buffer again and again.
                select.select([], [], [], 0.001)
        assert received == sent
        sender.join(DEADLINE)
        assert echoes(connection)


@pytest.mark.slow
def test_a_client_that_stops_reading_is_not_read_from(echo_server: EchoServerProcess) -> None:
    with echo_server.connect() as witness:
        assert echoes(witness)
        before = echo_server.resident_bytes()
        stalled = [echo_server.connect() for _ in range(20)]
        sent = [fill(connection) for connection in stalled]
        assert echoes(witness)
        grown = echo_server.resident_bytes() - before
        assert grown < len(stalled) * 256 * 1024 + 4 * 1024 * 1024
        for connection, size in zip(stalled, sent, strict=True):
            connection.settimeout(DEADLINE)
            assert len(receive_exactly(connection, size)) == size
            assert echoes(connection)
            connection.close()


def test_a_thousand_connections_at_once(echo_server: EchoServerProcess) -> None:
    connections = [echo_server.connect() for _ in range(1000)]
    for number, connection in enumerate(connections):
        connection.sendall(b"hello %d" % number)
    for number, connection in enumerate(connections):
        message = b"hello %d" % number
        assert receive_exactly(connection, len(message)) == message
    for connection in connections:
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("behind", [b"", b"the rest of it"])
def test_a_reset_affects_one_connection_only(echo_server: EchoServerProcess, behind: bytes) -> None:
    with echo_server.connect() as witness:
        assert echoes(witness)
        for _ in range(50):
            broken = echo_server.connect()
            broken.sendall(b"half a mess" + behind)
            reset(broken)
        assert echoes(witness)
    log = echo_server.log()
    assert "Traceback" not in log
    assert "exception" not in log


@pytest.mark.slow
def test_a_reset_while_the_reply_waits_to_be_sent(echo_server: EchoServerProcess) -> None:
    with echo_server.connect() as witness:
        for _ in range(5):
            broken = echo_server.connect()
            fill(broken)
            reset(broken)
        assert echoes(witness)
        until(lambda: echo_server.log().count("connection closed") == 5, "five closed")
    assert "exception" not in echo_server.log()


def test_replies_are_not_delayed(echo_server: EchoServerProcess) -> None:
    """Many small messages written at once: Nagle's algorithm would hold the replies back."""
    message = hashlib.sha256(b"").digest()
    with echo_server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(1000):
            connection.sendall(message)
        assert receive_exactly(connection, 1000 * len(message)) == 1000 * message


def test_out_of_descriptors(start_server: StartServer) -> None:
    server = start_server("--log-level", "debug", preexec=descriptor_limit(64))
    connections = [server.connect() for _ in range(100)]
    served = connections[:20]
    server.wait_for_log("accepting paused")
    for connection in served:
        assert echoes(connection)
    # Those in the queue are accepted as soon as descriptors are given back.
    waiting = connections[-10:]
    for connection in waiting:
        connection.sendall(b"I can wait")
    for connection in connections[:-10]:
        connection.close()
    for connection in waiting:
        assert receive_exactly(connection, 10) == b"I can wait"
        connection.close()
    server.wait_for_log("accepting resumed")
    log = server.log()
    assert log.count("accepting paused") == 1
    assert "Too many open files" in log
    assert "Traceback" not in log


def test_logs_contain_connections_but_never_payloads(echo_server: EchoServerProcess) -> None:
    with echo_server.connect() as connection:
        assert echoes(connection, b"a very secret payload")
        peer_port = connection.getsockname()[1]
    echo_server.wait_for_log("connection closed")
    log = echo_server.log()
    assert log.count(f"127.0.0.1:{peer_port}") == 2
    assert "secret" not in log


def test_connections_are_logged_at_debug_level_only(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as connection:
        assert echoes(connection)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "connection" not in server.log()
    assert "stopped" in server.log()


@pytest.mark.slow
def test_a_stalled_reader_of_the_log_never_stops_the_echo(start_server: StartServer) -> None:
    reading, writing = os.pipe()
    server = start_server("--log-level", "debug", stderr=writing)
    os.close(writing)
    with server.connect() as witness:
        # Two lines each: far more than the pipe holds, and nobody reads it.
        for _ in range(2000):
            with server.connect() as connection:
                assert echoes(connection, b"x")
        assert echoes(witness)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    os.close(reading)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(echo_server: EchoServerProcess, number: signal.Signals) -> None:
    with echo_server.connect() as connection:
        assert echoes(connection)
        echo_server.signal(number)
        echo_server.wait_for_log("draining")
        assert echoes(connection)
        until(echo_server.refuses, "connections to be refused")
    assert echo_server.wait() == 0
    assert "closing connections" not in echo_server.log()


def test_the_backlog_is_served_when_the_drain_begins(
    start_server: StartServer,
) -> None:
    server = start_server()
    server.signal(signal.SIGSTOP)
    connections = [server.connect() for _ in range(200)]
    for connection in connections:
        connection.sendall(b"was in time")
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGCONT)
    for connection in connections:
        assert receive_exactly(connection, 11) == b"was in time"
        connection.close()
    assert server.wait() == 0


def test_connections_that_do_not_finish_are_closed(start_server: StartServer) -> None:
    server = start_server("--drain-timeout", "100ms")
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGTERM)
        assert connection.recv(1) == b""
    assert server.wait() == 0
    assert "closing connections that did not finish" in server.log()


@pytest.mark.slow
def test_a_second_signal_ends_at_once(echo_server: EchoServerProcess) -> None:
    with echo_server.connect() as connection:
        assert echoes(connection)
        assert ended_by_signals(echo_server, signal.SIGINT) == 130


def test_repetitions_of_a_signal_are_ignored(echo_server: EchoServerProcess) -> None:
    """A program such as timeout(1) signals both its child and the child's group."""
    with echo_server.connect() as connection:
        assert echoes(connection)
        # It finds both when it goes on, without a time between them.
        with echo_server.paused():
            for number in (signal.SIGTERM, signal.SIGINT):
                echo_server.signal(number)
        echo_server.wait_for_log("draining")
        assert echoes(connection)
    assert echo_server.wait() == 0
    assert "closing connections" not in echo_server.log()


def test_a_taken_port(echo_server: EchoServerProcess) -> None:
    code, line = one_error("--port", str(echo_server.port))
    assert code == 3
    assert line == (
        f"echo-server: error: cannot listen on {echo_server.url}: Address already in use"
    )


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "192.0.2.1"])
def test_a_host_that_is_not_local(host: str) -> None:
    code, line = one_error("--host", host)
    assert code == 3
    assert f"cannot listen on tcp://{host}:50007" in line


def test_patching_comes_before_everything_that_must_be_patched(
    start_server: StartServer,
) -> None:
    """gevent warns when it comes too late; warnings are errors here."""
    server = start_server(PYTHONWARNINGS="error")
    with server.connect() as connection:
        assert echoes(connection)
    assert "Warning" not in server.log()


def test_descriptors_are_released(echo_server: EchoServerProcess) -> None:
    before = echo_server.open_descriptors()
    for _ in range(100):
        with echo_server.connect() as connection:
            assert echoes(connection)
    until(lambda: echo_server.open_descriptors() == before, "descriptors to be given back")
