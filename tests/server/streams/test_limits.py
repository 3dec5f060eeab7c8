"""Limits on connections, on idleness and on rates."""

from __future__ import annotations

import json
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from support.certificates import make_certificates
from support.processes import (
    DEADLINE,
    EchoServerProcess,
    StartServer,
    descriptor_limit,
    echoes,
    fill,
    one_error,
    receive_exactly,
    reset,
    sum_of_metric,
    until,
)

workers = pytest.mark.parametrize("workers", ["1", "3"])
ADMIN = ("--admin", "127.0.0.1:0")


@contextmanager
def held(server: EchoServerProcess, count: int) -> Iterator[list[socket.socket]]:
    """Connections that are open and have been let in."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(count)]
        for connection in connections:
            assert echoes(connection)
        yield connections


def is_turned_away(connection: socket.socket) -> bool:
    """Return whether the server has closed a connection without a byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@workers
def test_connections_beyond_the_limit_are_closed(start_server: StartServer, workers: str) -> None:
    server = start_server("--max-connections", "20", "--workers", workers, *ADMIN)
    with held(server, 20):
        for _ in range(5):
            with server.connect() as beyond:
                assert is_turned_away(beyond)
        server.wait_for_metric("connections_open", 20)
        rejected = server.metric("connections_rejected_total", reason="max_connections")
        assert rejected == 5
    until(lambda: server.metric("connections_open") == 0, "all to be gone")
    with held(server, 20):
        server.wait_for_metric("connections_accepted_total", 40)
    assert server.log().count("connection limit reached") <= int(workers)


@workers
def test_connections_beyond_the_limit_wait(start_server: StartServer, workers: str) -> None:
    server = start_server(
        "--max-connections", "10", "--when-full", "wait", "--workers", workers, *ADMIN
    )
    with held(server, 10) as served, ExitStack() as stack:
        waiting = [stack.enter_context(server.connect()) for _ in range(10)]
        for connection in waiting:
            connection.sendall(b"I can wait")
        server.wait_for_log("connection limit reached")
        server.wait_for_metric("connections_open", 10)
        server.wait_for_metric("connections_rejected_total", 0)
        for connection in served:
            connection.close()
        for connection in waiting:
            assert receive_exactly(connection, 10) == b"I can wait"


def test_churn_at_a_limit_with_waiting_connections(start_server: StartServer) -> None:
    """Each that leaves lets the next one in at once: nothing waits for a timer to look."""
    server = start_server("--max-connections", "1", "--when-full", "wait", *ADMIN)
    for _ in range(300):
        with server.connect() as connection:
            assert echoes(connection)
    server.wait_for_metric("connections_accepted_total", 300)


@pytest.mark.slow
def test_the_limit_is_never_exceeded(start_server: StartServer) -> None:
    """Workers that accept the last free connections at the same time, repeatedly."""
    server = start_server("--max-connections", "5", "--workers", "3", *ADMIN)
    for _ in range(20):
        with ExitStack() as stack:
            connections = [stack.enter_context(server.connect()) for _ in range(30)]
            let_in = [one for one in connections if not is_turned_away_or_echoes(one)]
            assert len(let_in) <= 5
        until(lambda: server.metric("connections_open") == 0, "all to be gone")
    accepted = server.metric("connections_accepted_total")
    rejected = server.metric("connections_rejected_total")
    assert accepted + rejected == 600


def is_turned_away_or_echoes(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_the_limit_per_address(start_server: StartServer) -> None:
    server = start_server("--max-connections-per-ip", "3", *ADMIN)
    with held(server, 3) as connections:
        with server.connect() as beyond:
            assert is_turned_away(beyond)
        with socket.create_connection(
            ("127.0.0.1", server.port), DEADLINE, ("127.0.0.77", 0)
        ) as elsewhere:
            assert echoes(elsewhere)
        server.wait_for_metric("connections_rejected_total", 1, reason="max_connections_per_ip")
        reset(connections[0])
        until(lambda: server.metric("connections_open") == 2, "two to be gone")
        with server.connect() as again:
            assert echoes(again)
    server.wait_for_metric("connections_rejected_total", 1)


@pytest.mark.slow
def test_idle_connections_are_closed(start_server: StartServer) -> None:
    server = start_server("--idle-timeout", "3s", "--access-log", *ADMIN)
    with server.connect() as busy, held(server, 20) as idle, server.connect() as silent:
        started = time.monotonic()
        while any(not is_closed(connection) for connection in [*idle, silent]):
            assert echoes(busy)
            assert time.monotonic() - started < DEADLINE
        assert time.monotonic() - started >= 2.7
        assert echoes(busy)
        server.wait_for_metric("connections_closed_total", 21, reason="idle")
    server.wait_for_log('"reason": "idle"')


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_connection_that_is_not_read_is_idle(start_server: StartServer) -> None:
    server = start_server("--idle-timeout", "200ms", *ADMIN)
    with server.connect() as stalled:
        stalled.settimeout(0.2)
        with pytest.raises((TimeoutError, ConnectionError)):
            stalled.sendall(bytes(64 << 20))
        until(lambda: server.metric("connections_closed_total", reason="idle") == 1, "its end")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listen", "half_closed"),
    [("tcp://127.0.0.1:0", False), ("tcp://127.0.0.1:0", True), ("unix://{}/echo", False)],
)
def test_a_slow_reader_is_not_idle(
    start_server: StartServer, tmp_path: Path, listen: str, half_closed: bool
) -> None:
    """The client reads too little in a timeout for the kernel to take more from the server."""
    server = start_server("--listen", listen.format(tmp_path), "--idle-timeout", "3s")
    with connected(server) as slow:
        left = fill(slow)
        slow.settimeout(DEADLINE)
        if half_closed:
            slow.shutdown(socket.SHUT_WR)
        # A slow reader is what this is about: the pauses wait for nothing.
        pause = threading.Event()
        slow_until = time.monotonic() + 5
        while left:
            left -= len(receive_exactly(slow, min(left, 32768)))
            if time.monotonic() < slow_until:
                pause.wait(0.1)
        if half_closed:
            assert slow.recv(1) == b""
        else:
            assert echoes(slow)


def connected(server: EchoServerProcess) -> socket.socket:
    if not server.url.startswith("unix://"):
        return server.connect()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server.url.removeprefix("unix://"))
    return connection


@pytest.mark.slow
def test_the_rate_of_a_connection(start_server: StartServer) -> None:
    """Never faster than the limit; slower it may be on a busy machine."""
    server = start_server("--rate-limit", "200kB/s", "--idle-timeout", "3s", *ADMIN)
    with server.connect() as limited, server.connect() as other:
        sent = bytes(range(256)) * 700
        started = time.monotonic()
        limited.sendall(sent)
        assert echoes(other)
        assert receive_exactly(limited, len(sent)) == sent
        # Two buckets of a tenth of a second may come at once.
        assert time.monotonic() - started >= len(sent) / 200_000 - 0.2
        assert echoes(limited)
    until(
        lambda: server.metric("received_bytes_total") == server.metric("sent_bytes_total"),
        "all to be counted as sent",
    )


def test_a_tiny_rate_with_half_close(start_server: StartServer) -> None:
    server = start_server("--rate-limit", "100")
    with server.connect() as connection:
        connection.sendall(b"x" * 30)
        connection.shutdown(socket.SHUT_WR)
        assert receive_exactly(connection, 30) == b"x" * 30
        assert connection.recv(1) == b""


def test_a_disconnected_client_is_not_held(start_server: StartServer, tmp_path: Path) -> None:
    """Over TLS a whole record comes at once; what it holds is echoed at the limit all the same."""
    certificates = make_certificates(tmp_path / "certificates")
    server = start_server(
        *("--listen", "tls://127.0.0.1:0", *certificates.options, *ADMIN),
        *("--rate-limit", "100", "--idle-timeout", "3s"),
    )
    context = certificates.client_context()
    for _ in range(3):
        with context.wrap_socket(server.connect(), server_hostname="localhost") as connection:
            connection.sendall(bytes(16384))
            assert receive_exactly(connection, 1) == b"\0"
    # At this rate 16 KiB take nearly three minutes.
    server.wait_for_metric("connections_open", 0)
    assert server.metric("received_bytes_total") < 3 * 8192


@pytest.mark.slow
def test_a_stall_does_not_lift_the_rate_limit(start_server: StartServer) -> None:
    server = start_server("--fault", "stall=1ms", "--rate-limit", "20kB", *ADMIN)
    with server.connect() as connection:
        started = time.monotonic()
        connection.sendall(bytes(20_000))
        receive_exactly(connection, 20_000)
        assert time.monotonic() - started >= 1 - 0.2
        assert server.metric("faults_injected_total", kind="stall") > 1


@pytest.mark.slow
def test_no_instant_shows_more_connections_than_the_limit(start_server: StartServer) -> None:
    server = start_server("--max-connections", "3", "--workers", "3", *ADMIN)
    over = threading.Event()

    def visit() -> None:
        while not over.is_set():
            with suppress(OSError), server.connect() as connection:
                connection.sendall(b"x")
                connection.recv(1)

    visitors = [threading.Thread(target=visit) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    try:
        pages = accepted = 0.0
        while pages < 200 or accepted <= 100:
            page = server.get("/metrics")[1]
            pages += 1
            opened = sum_of_metric(page, "echo_server_connections_open", {})
            accepted = sum_of_metric(page, "echo_server_connections_accepted_total", {})
            closed = sum_of_metric(page, "echo_server_connections_closed_total", {})
            assert opened <= 3
            assert opened == accepted - closed
    finally:
        over.set()
        for visitor in visitors:
            visitor.join(DEADLINE)


def test_resets_of_connections_that_are_held(start_server: StartServer) -> None:
    server = start_server("--rate-limit", "10kB", *ADMIN)
    with server.connect() as witness:
        assert echoes(witness)
        for _ in range(20):
            broken = server.connect()
            broken.sendall(bytes(50_000))
            reset(broken)
        until(lambda: server.metric("connections_open") == 1, "all but the witness to be gone")
        assert echoes(witness)
    assert "exception" not in server.log()


def test_a_drain_ends_with_limits_of_every_kind(start_server: StartServer) -> None:
    server = start_server(
        *("--max-connections", "5", "--when-full", "wait", "--idle-timeout", "10s"),
        *("--rate-limit", "1k", "--max-connections-per-ip", "9", "--drain-timeout", "100ms"),
    )
    with held(server, 5), server.connect() as held_back:
        held_back.sendall(bytes(5000))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "exception" not in server.log()


WAITS = ("--max-connections", "2", "--when-full", "wait")


@contextmanager
def waiting(server: EchoServerProcess, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have sent something and wait to be accepted."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(count)]
        for connection in connections:
            connection.sendall(b"I can wait")
        yield connections


def assert_served_two_at_a_time(connections: Iterable[socket.socket]) -> None:
    left = set(connections)
    while left:
        served = select.select(list(left), [], [], DEADLINE)[0]
        assert 1 <= len(served) <= 2
        for connection in served:
            assert receive_exactly(connection, 10) == b"I can wait"
            connection.close()
            left.remove(connection)


@workers
def test_connections_waiting_at_the_limit_are_served_in_a_drain(
    start_server: StartServer, workers: str
) -> None:
    server = start_server(*WAITS, "--workers", workers, "--drain-timeout", "1h")
    with held(server, 2) as served, waiting(server, 20) as connections:
        server.wait_for_log("connection limit reached")
        server.signal(signal.SIGTERM)
        server.wait_for_log('"seconds": 3600.0')
        assert all(map(echoes, served))
        for connection in served:
            connection.close()
        assert_served_two_at_a_time(connections)
    assert server.wait() == 0
    assert "closing connections" not in server.log()


@workers
def test_connections_still_waiting_after_a_drain_are_closed(
    start_server: StartServer, workers: str
) -> None:
    server = start_server(*WAITS, "--workers", workers, "--drain-timeout", "100ms")
    with held(server, 2), waiting(server, 20) as connections:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        # A worker that ends releases reservations, which another one may still use.
        turned_away = sum(map(is_turned_away, connections))
    lines = [line for line in server.log().splitlines() if "that waited to be accepted" in line]
    assert sum(json.loads(line)["waiting"] for line in lines) == turned_away > 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ADMIN], ids=["alone", "supervised"])
def test_new_connections_do_not_prolong_a_drain(
    start_server: StartServer, options: tuple[str, ...]
) -> None:
    """Clients that open the next connection before they end one keep the backlog full."""
    server = start_server(*WAITS, *options, "--drain-timeout", "1h")

    def come_back(connection: socket.socket) -> None:
        while True:
            with connection, socket.socket() as following:
                following.setblocking(False)
                following.connect_ex(("127.0.0.1", server.port))
                connection.settimeout(DEADLINE)
                try:
                    assert echoes(connection)
                except ConnectionError:
                    return
                connection = following.dup()
            select.select([], [connection], [], DEADLINE)

    with held(server, 2) as served, ExitStack() as stack:
        for _ in range(12):
            thread = threading.Thread(target=come_back, args=(server.connect(),))
            thread.start()
            stack.callback(thread.join, DEADLINE)
        server.wait_for_log("connection limit reached")
        server.signal(signal.SIGTERM)
        server.wait_for_log('"seconds": 3600.0')
        for connection in served:
            connection.close()
        assert server.wait() == 0
    assert "closing connections" not in server.log()


@pytest.mark.slow
def test_connections_waiting_at_the_limit_survive_a_restart(start_server: StartServer) -> None:
    server = start_server(*WAITS, "--workers", "2", "--drain-timeout", "1h")
    with held(server, 2) as served, waiting(server, 20) as connections:
        server.signal(signal.SIGHUP)
        server.wait_for_log("workers restarted")
        assert all(map(echoes, served))
        for connection in served:
            connection.close()
        assert_served_two_at_a_time(connections)


def test_connections_waiting_for_a_descriptor_are_served_in_a_drain(
    start_server: StartServer,
) -> None:
    server = start_server("--drain-timeout", "1h", preexec=descriptor_limit(64))
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(100)]
        server.wait_for_log("accepting paused")
        for connection in connections:
            connection.sendall(b"I can wait")
        server.signal(signal.SIGTERM)
        server.wait_for_log("draining")
        for connection in connections:
            assert receive_exactly(connection, 10) == b"I can wait"
            connection.close()
    assert server.wait() == 0


def test_the_descriptor_limit_is_raised(start_server: StartServer) -> None:
    server = start_server("--max-connections", "150", preexec=descriptor_limit(100, 256))
    with held(server, 150):
        pass


def test_a_limit_above_the_descriptor_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for count in ("1", "2"):
        code, line = one_error("--max-connections", "500M", "--workers", count)
        assert code == 2
        assert "--max-connections 500000000 is too high: " in line
        assert f"{hard} descriptors each (ulimit -Hn) can hold {(hard - 64) * int(count)}" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-connections", "0"], "--max-connections: '0' is not a whole number from 1"),
        (["--max-connections-per-ip", "x"], "--max-connections-per-ip: 'x' is not a whole"),
        (["--when-full", "panic"], "--when-full: 'panic' is not one of 'close', 'wait'"),
        (["--idle-timeout", "0"], "--idle-timeout: '0' is not a duration above 0"),
        (["--idle-timeout", "soon"], "--idle-timeout: 'soon' is not a duration"),
        (["--rate-limit", "0"], "--rate-limit: '0' is not a rate above 0"),
        (["--rate-limit", "fast"], "--rate-limit: 'fast' is not a size; write it as in 512"),
        (["--access-log-sample", "2"], "--access-log-sample: '2' is not a percentage"),
        (["--access-log-sample", "101%"], "--access-log-sample: '101%' is not a percentage"),
        (["--access-log", "--log-level", "error"], "--access-log logs at level info"),
        (["--admin", "x:y"], "--admin: 'x:y' is not HOST:PORT"),
        (["--admin", "unix:///x"], "--admin: 'unix:///x' is not HOST:PORT"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    code, line = one_error(*arguments)
    assert code == 2
    assert said in line
