"""Programs that others wrote, as clients and as launchers of the server."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from support.certificates import Certificates, make_certificates
from support.ports import free_port
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    program,
    run,
    until,
)


def test_socat_over_tcp_and_unix(start_server: StartServer, tmp_path: Path) -> None:
    socat = program("socat")
    path = tmp_path / "echo.sock"
    server = start_server("--listen", "tcp://127.0.0.1:0", "--listen", f"unix://{path}")
    sent = os.urandom(1_000_000)
    for address in (f"TCP:127.0.0.1:{server.port}", f"UNIX-CONNECT:{path}"):
        result = run([socat, "-t", "10", "-", address], stdin=sent)
        assert result.returncode == 0
        assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(sent).digest()


@pytest.mark.slow
def test_ncat_over_both_families(start_server: StartServer) -> None:
    ncat = program("ncat")
    server = start_server("--host", "*", "--workers", "2")
    sent = os.urandom(300_000)
    for host in ("127.0.0.1", "::1"):
        result = run([ncat, host, str(server.port)], stdin=sent)
        assert (result.returncode, result.stdout == sent) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_socket_activation(start_server: StartServer, tmp_path: Path, workers: str) -> None:
    """The listeners are systemd's: the server starts with the first connection."""
    activate = program("systemd-socket-activate")
    path = tmp_path / "echo.sock"
    port = free_port()
    server = start_server(
        *("--listen", f"127.0.0.1:{port}", "--listen", str(path)),
        *("--setenv=PYTHONPATH", *SERVER, "--workers", workers),
        command=[activate],
        wait=False,
    )
    with connected(port) as connection:
        assert echoes(connection)
        server.wait_for_start()
        assert server.url == f"tcp://127.0.0.1:{port}"
        assert server.read_line() == f"listening unix://{path}"
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(path))
            local.settimeout(DEADLINE)
            assert echoes(local)
    server.process.terminate()
    assert server.wait() == 0
    # It is systemd's to remove.
    assert path.exists()


def test_activation_of_datagrams_with_workers_and_faults(start_server: StartServer) -> None:
    activate = program("systemd-socket-activate")
    port = free_port()
    server = start_server(
        *("--datagram", "--listen", f"127.0.0.1:{port}", *SERVER, "--workers", "2"),
        *("--fault", "duplicate"),
        command=[activate],
        wait=False,
    )
    with socket.socket(type=socket.SOCK_DGRAM) as sending:
        sending.settimeout(DEADLINE)
        sending.connect(("127.0.0.1", port))

        server.wait_for_log("Listening on")
        sending.send(b"wake up")
        server.wait_for_start()
        assert server.url == f"udp://127.0.0.1:{port}"
        assert (sending.recv(100), sending.recv(100)) == (b"wake up", b"wake up")


def connected(port: int) -> socket.socket:
    connections: list[socket.socket] = []

    def connect() -> bool:
        try:
            connections.append(socket.create_connection(("127.0.0.1", port), DEADLINE))
        except ConnectionRefusedError:
            return False
        return True

    until(connect, "systemd's listener")
    return connections[0]


def test_listeners_meant_for_another_process(start_server: StartServer) -> None:
    """LISTEN_PID names somebody else: the variables were inherited by accident."""
    server = start_server(LISTEN_FDS="1", LISTEN_PID="1")
    with server.connect() as connection:
        assert echoes(connection)


def test_explicit_listeners_override_activation(tmp_path: Path) -> None:
    activate = program("systemd-socket-activate")
    port = free_port()
    log = tmp_path / "log"
    server = EchoServerProcess(
        *("--listen", f"127.0.0.1:{port}", *SERVER, "--listen", "tcp://127.0.0.1:0"),
        command=[activate],
        log=log,
        wait=False,
    )
    try:
        connected(port).close()
        server.wait_for_start()
        assert server.port != port
        with server.connect() as connection:
            assert echoes(connection)
    finally:
        server.close()


@pytest.fixture
def tls_server(start_server: StartServer, tmp_path: Path) -> tuple[EchoServerProcess, Certificates]:
    certificates = make_certificates(tmp_path / "certificates")
    return start_server("--listen", "tls://127.0.0.1:0", *certificates.options), certificates


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client(tls_server: tuple[EchoServerProcess, Certificates], version: str) -> None:
    openssl = program("openssl")
    server, certificates = tls_server
    with subprocess.Popen(
        [
            *(openssl, "s_client", "-quiet", "-verify_return_error", version),
            *("-connect", f"127.0.0.1:{server.port}", "-CAfile", str(certificates.authority)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for number in range(10):
            line = b"line %d\n" % number
            client.stdin.write(line)
            client.stdin.flush()
            assert client.stdout.readline() == line
        client.terminate()


def test_socat_over_tls(tls_server: tuple[EchoServerProcess, Certificates]) -> None:
    socat = program("socat")
    server, certificates = tls_server
    address = f"OPENSSL:127.0.0.1:{server.port},cafile={certificates.authority}"
    sent = os.urandom(500_000)
    with subprocess.Popen(
        [socat, "-", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        sender = threading.Thread(target=client.stdin.write, args=(sent,))
        sender.start()
        assert client.stdout.read(len(sent)) == sent
        sender.join(DEADLINE)
        client.terminate()


def test_ncat_over_udp(start_server: StartServer) -> None:
    ncat = program("ncat")
    server = start_server("--listen", "udp://127.0.0.1:0")
    with subprocess.Popen(
        [ncat, "-u", "127.0.0.1", str(server.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for number in range(10):
            line = b"datagram %d\n" % number
            client.stdin.write(line)
            client.stdin.flush()
            assert client.stdout.readline() == line
        client.terminate()
