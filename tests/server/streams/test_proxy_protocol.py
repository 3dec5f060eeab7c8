"""PROXY headers that connections begin with: believed in logs and limits, or a reason to close."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from echo_core.proxy_protocol import make_header
from echo_server.streams.connection import peer_name
from support.certificates import make_certificates
from support.ports import free_port
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    accepts,
    echoes,
    program,
    receive_exactly,
    receive_to_end,
    run,
    until,
)

LISTEN = ("--proxy-protocol", "--admin", "127.0.0.1:0", "--log-level", "debug", "--access-log")
HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 7\r\n"
REST = b"what follows belongs to the client"


def test_mapped_addresses_are_logged_as_ipv4() -> None:
    assert peer_name(("::ffff:192.0.2.1", 5)) == "192.0.2.1:5"


def test_the_client_behind_the_proxy_is_logged(start_server: StartServer) -> None:
    server = start_server(*LISTEN)
    client = ("2001:db8::7", 4660)
    for header, name in (
        (HEADER, '"192.0.2.7:4711"'),
        (make_header("v2", client, client), '"[2001:db8::7]:4660"'),
        (make_header("v2", None, None), '"127.0.0.1:'),
    ):
        with server.connect() as connection:
            connection.sendall(header)
            assert echoes(connection)
        server.wait_for_log(f'"event": "connection", "peer": {name}')


def test_a_header_in_pieces(start_server: StartServer) -> None:
    server = start_server(*LISTEN)
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEADER + REST:
            connection.send(bytes([byte]))
        assert receive_exactly(connection, len(REST)) == REST
        server.wait_for_metric("received_bytes_total", len(REST))


def test_limits_apply_to_the_client_behind_the_proxy(start_server: StartServer) -> None:
    server = start_server(*LISTEN, "--max-connections-per-ip", "2")
    with ExitStack() as stack:

        def visit(client: str) -> bytes:
            connection = stack.enter_context(server.connect())
            connection.sendall(make_header("v1", (client, 4711), ("198.51.100.1", 7)) + b"x")
            try:
                return connection.recv(1)
            except ConnectionResetError:
                return b""

        assert [visit("192.0.2.7") for _ in range(3)] == [b"x", b"x", b""]
        assert visit("192.0.2.8") == b"x"
        server.wait_for_metric("connections_open", 3)
        rejected = server.metric("connections_rejected_total", reason="max_connections_per_ip")
        assert rejected == 1


@pytest.mark.parametrize("nonsense", [b"hello, is this an echo?", os.urandom(200), b"\r\n\r\n"])
def test_a_connection_with_an_invalid_header_is_closed_and_counted(
    start_server: StartServer, nonsense: bytes
) -> None:
    server = start_server(*LISTEN)
    with server.connect() as witness:
        witness.sendall(HEADER)
        assert echoes(witness)
        with server.connect() as connection:
            connection.sendall(nonsense)
            # The server may have closed it before all was sent.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
                assert receive_to_end(connection) == b""
        invalid = "proxy_header_invalid"
        until(
            lambda: server.metric("connections_closed_total", reason=invalid) == 1,
            "it to be counted",
        )
        assert echoes(witness)
    assert "Traceback" not in server.log()


def test_a_header_that_arrives_too_late(start_server: StartServer) -> None:
    server = start_server(*LISTEN, "--handshake-timeout", "200ms")
    with server.connect() as connection:
        connection.sendall(HEADER[:20])
        assert connection.recv(1) == b""
    late = server.metric("connections_closed_total", reason="handshake_timed_out")
    assert late == 1


def test_a_header_before_tls(start_server: StartServer, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    server = start_server(*LISTEN, "--listen", "tls://127.0.0.1:0", *certificates.options)
    with server.connect() as plain:
        plain.sendall(HEADER)
        context = certificates.client_context()
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            assert echoes(connection)
    server.wait_for_log('"peer": "192.0.2.7:4711"')


CONFIGURATION = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 10s
    timeout server 10s
listen v1
    bind 127.0.0.1:{ports[0]}
    server echo 127.0.0.1:{server.port} send-proxy
listen v2
    bind 127.0.0.1:{ports[1]}
    server echo 127.0.0.1:{server.port} send-proxy-v2
"""


def test_behind_haproxy(start_server: StartServer, tmp_path: Path) -> None:
    haproxy = program("haproxy")
    server = start_server(*LISTEN)
    ports = [free_port(), free_port()]
    file = tmp_path / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(ports=ports, server=server))
    process = subprocess.Popen([haproxy, "-db", "-f", str(file)])
    try:
        until(lambda: all(map(accepts, ports)), "haproxy")
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
                sent = os.urandom(100_000)
                connection.sendall(sent)
                assert receive_exactly(connection, len(sent)) == sent
                peer = "{}:{}".format(*connection.getsockname())
            server.wait_for_log(f'"event": "connection", "peer": "{peer}"')
    finally:
        process.terminate()
        process.wait(DEADLINE)


def test_no_header_is_expected_without_the_option(echo_server: EchoServerProcess) -> None:
    with echo_server.connect() as connection:
        assert echoes(connection, HEADER)
    assert run([*SERVER, "--proxy-protocol=yes"]).returncode == 2
