"""Rare circumstances that must not harm a server."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from echo_core.endpoint import NetworkEndpoint
from echo_server.config import ServerConfig
from echo_server.metrics.counters import Counter, CounterTable
from echo_server.streams.admission import Admission
from echo_server.streams.connection import Connection
from support.certificates import make_certificates
from support.processes import (
    DEADLINE,
    SERVER,
    StartServer,
    echoes,
    one_error,
    receive_exactly,
    receive_to_end,
    run,
    stop,
    until,
)

ADMIN = ("--admin", "127.0.0.1:0")


def test_a_tls_listener_never_falls_back_to_plain_text(
    start_server: StartServer, tmp_path: Path
) -> None:
    """The listeners stay as they were, whatever the configuration names later."""
    certificates = make_certificates(tmp_path / "certificates")
    settings = tmp_path / "settings.toml"
    cert, key = certificates.cert, certificates.key
    settings.write_text(f'listen = ["tls://127.0.0.1:0"]\ntls-cert = "{cert}"\ntls-key = "{key}"\n')
    server = start_server("--workers", "2", "--config", str(settings))
    settings.write_text('listen = ["tcp://127.0.0.1:0"]\n')
    context = certificates.client_context()

    def speaks_tls() -> bool:
        with context.wrap_socket(server.connect(), server_hostname="localhost") as connection:
            return echoes(connection)

    server.signal(signal.SIGHUP)
    server.wait_for_log("restart given up")
    server.wait_for_log("the configuration no longer has its certificate")
    assert all(speaks_tls() for _ in range(10))
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_for_log("another worker serves")
    for _ in range(10):
        with server.connect() as plain:
            plain.sendall(b"a secret in the clear")
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                receive_exactly(plain, 21)
        assert speaks_tls()


def test_a_worker_killed_by_a_real_time_signal(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    os.kill(server.workers()[0], signal.SIGRTMIN + 1)
    server.wait_for_metric("worker_restarts_total", 1)
    server.wait_for_log(f'"signal {signal.SIGRTMIN + 1}"')
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_urgent_data_on_unix_sockets(start_server: StartServer, tmp_path: Path) -> None:
    path = str(tmp_path / "echo")
    start_server("--listen", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(path)
        connection.sendall(b"before")
        try:
            connection.send(b"!", socket.MSG_OOB)
        except OSError:
            pytest.skip("this system has none")
        connection.sendall(b"after")
        connection.shutdown(socket.SHUT_WR)
        assert receive_to_end(connection) == b"before!after"


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_manager_that_does_not_read(
    start_server: StartServer, tmp_path: Path, workers: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = str(tmp_path / "notify")
        manager.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
            filling.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    filling.sendto(b"x", path)
        server = start_server("--workers", workers, *ADMIN, NOTIFY_SOCKET=path)
        server.wait_for_log("service manager not notified")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_drain_serves_the_backlog_of_a_dead_worker(
    start_server: StartServer, workers: str
) -> None:
    server = start_server("--workers", workers, "--drain-timeout", "30s", *ADMIN)
    with ExitStack() as stack:
        stop(*server.workers())
        waiting = [stack.enter_context(server.connect()) for _ in range(20)]
        for connection in waiting:
            connection.sendall(b"I can wait")
        doomed, *others = server.workers()
        stop(server.pid)
        os.kill(doomed, signal.SIGKILL)
        until(lambda: is_dead(doomed), "its end")
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGCONT)
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        for connection in waiting:
            assert receive_exactly(connection, 10) == b"I can wait"
    assert server.wait() == 0


def is_dead(pid: int) -> bool:
    """Return whether a process has ended, with all its threads, and only has to be reaped."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def test_a_mode_in_toml_is_written_in_quotes(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("unix-mode = 0o660\n")
    listen = ("--listen", f"unix://{tmp_path}/echo", "--config", str(settings))
    code, line = one_error(*listen)
    assert (code, "settings.toml: unix-mode: 432 is a number; write it in quotes" in line) == (
        2,
        True,
    ), line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "is not valid TOML: maximum recursion depth"),
        ("port = " + "1" * 5000, "is not valid TOML: Exceeds the limit"),
        ("port = 0x" + "1" * 5000, "settings.toml: port: the number has too many digits"),
        (
            'listen = ["tls://127.0.0.1:0"]\ntls-cert = "a\\u0000b"\ntls-key = "c"\n',
            r"tls-cert = 'a\x00b' is not a valid value of --tls-cert",
        ),
    ],
    ids=["nested", "decimal", "hexadecimal", "null"],
)
def test_odd_toml(tmp_path: Path, content: str, said: str) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(content)
    ended = run([*SERVER, "--config", str(settings)])
    (line,) = ended.stderr.decode().splitlines()
    assert (ended.returncode, said in line) == (2, True), line


def test_a_connection_is_always_counted_under_the_same_address() -> None:
    """The name of the interface in a link-local address may be another when it ends."""
    counters = CounterTable.create().row(0)
    config = ServerConfig(listen=(NetworkEndpoint("::1"),), max_connections_per_ip=1)
    admission = Admission(config, counters)
    with closing(Connection()) as first, closing(Connection()) as second:
        first.sockaddr = second.sockaddr = ("192.0.2.7", 4711)
        assert admission.admit(first)
        assert not admission.admit(second)
        first.sockaddr = ("192.0.2.8", 4711)
        admission.release(first, Counter.CLOSED_END_OF_STREAM)
        assert admission.admit(second)


def test_a_listener_on_descriptor_zero(start_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = start_server(
            *("--listen", "fd://0", "--workers", "2"),
            preexec=lambda: os.dup2(listener.fileno(), 0),
        )
        assert server.url == f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    with server.connect() as connection:
        assert echoes(connection)


@pytest.mark.slow
def test_datagrams_held_when_a_worker_is_replaced_are_counted(
    start_server: StartServer,
) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0", "--fault", "delay=1h", *ADMIN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(10):
            client.sendto(b"held", ("127.0.0.1", server.port))
        server.wait_for_metric("faults_injected_total", 10, kind="delay")
    server.signal(signal.SIGHUP)
    server.wait_for_metric("datagrams_dropped_total", 10, reason="server_stopped")


def test_workers_may_log_to_a_terminal_that_stops_background_output(
    start_server: StartServer,
) -> None:
    server = start_server("--workers", "2")

    def ignores(pid: int) -> bool:
        (mask,) = [
            int(line.split()[1], 16)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("SigIgn:")
        ]
        return bool(mask >> (signal.SIGTTOU - 1) & 1)

    until(lambda: all(map(ignores, server.workers())), "workers that go on")
