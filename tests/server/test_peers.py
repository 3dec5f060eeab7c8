"""Programs that others wrote, as clients and as launchers of the server."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from pathlib import Path

import pytest

from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    run,
    until,
)


def program(name: str) -> str:
    """A peer's path; without it the test is skipped, but not in continuous integration."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def test_socat_over_tcp_and_unix(start_server: StartServer, tmp_path: Path) -> None:
    socat = program("socat")
    path = tmp_path / "echo.sock"
    server = start_server("--listen", "tcp://127.0.0.1:0", "--listen", f"unix://{path}")
    sent = os.urandom(1_000_000)
    for address in (f"TCP:127.0.0.1:{server.port}", f"UNIX-CONNECT:{path}"):
        result = run([socat, "-t", "10", "-", address], stdin=sent)
        assert result.returncode == 0
        assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(sent).digest()


def test_ncat_over_both_families(start_server: StartServer) -> None:
    ncat = program("ncat")
    server = start_server("--host", "*", "--workers", "2")
    sent = os.urandom(300_000)
    for host in ("127.0.0.1", "::1"):
        result = run([ncat, host, str(server.port)], stdin=sent)
        assert (result.returncode, result.stdout == sent) == (0, True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_socket_activation(start_server: StartServer, tmp_path: Path, workers: str) -> None:
    """The listeners are systemd's: the server starts with the first connection."""
    activate = program("systemd-socket-activate")
    path = tmp_path / "echo.sock"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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


def test_activation_gives_way_to_what_is_asked_for(tmp_path: Path) -> None:
    activate = program("systemd-socket-activate")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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
