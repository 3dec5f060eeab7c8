"""PROXY headers: read to the byte, refused where they are none, believed in logs and limits."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echo_server.errors import HandshakeError
from echo_server.metrics.counters import Counter
from echo_server.streams.connection import peer_name
from echo_server.streams.proxy_protocol import SIGNATURE, SockAddr, read_header
from support.certificates import make_certificates
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    program,
    receive_exactly,
    receive_to_end,
    run,
    until,
)

ports = st.integers(0, 65535)
REST = b"what follows belongs to the client"


class Stream:
    """Bytes to receive from; their end is an error, as in the server."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def receive(self, size: int) -> bytes:
        if size > len(self.data):
            raise HandshakeError(Counter.CLOSED_PROXY_HEADER_INVALID, "the end")
        taken, self.data = self.data[:size], self.data[size:]
        return taken


def parsed(data: bytes) -> tuple[SockAddr | None, bytes]:
    stream = Stream(data)
    return read_header(stream.receive), stream.data


def v1(family: str, source: str, destination: str, ports: tuple[object, object]) -> bytes:
    return f"PROXY {family} {source} {destination} {ports[0]} {ports[1]}\r\n".encode()


def v2(command: int, family: int, body: bytes, version: int = 2) -> bytes:
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, len(body)) + body


@given(st.ip_addresses(), st.data(), ports, ports)
def test_version_1(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    data: st.DataObject,
    source_port: int,
    port: int,
) -> None:
    destination = data.draw(st.ip_addresses(v=source.version))
    header = v1(f"TCP{source.version}", str(source), str(destination), (source_port, port))
    found, rest = parsed(header + REST)
    assert found is not None
    assert ipaddress.ip_address(found[0]) == source
    assert (found[1], rest) == (source_port, REST)


@given(st.ip_addresses(), st.data(), ports, ports, st.binary(max_size=200))
def test_version_2(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    data: st.DataObject,
    source_port: int,
    port: int,
    more: bytes,
) -> None:
    destination = data.draw(st.ip_addresses(v=source.version))
    body = source.packed + destination.packed + struct.pack("!HH", source_port, port) + more
    family = 0x11 if source.version == 4 else 0x21
    found, rest = parsed(v2(1, family, body) + REST)
    assert found is not None
    assert ipaddress.ip_address(found[0]) == source
    assert (found[1], rest) == (source_port, REST)


def test_mapped_addresses_are_written_as_the_kernel_writes_them() -> None:
    header = v1("TCP6", "::ffff:192.0.2.1", "::ffff:192.0.2.2", (5, 6))
    assert parsed(header) == (("::ffff:192.0.2.1", 5), b"")
    assert peer_name(("::ffff:192.0.2.1", 5)) == "192.0.2.1:5"


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        v2(0, 0x00, b""),
        v2(0, 0x11, b"x" * 12),
        v2(1, 0x00, b""),
        v2(1, 0x12, b"x" * 12),
        v2(1, 0x31, b"x" * 216),
    ],
)
def test_the_peer_is_used_if_the_header_names_no_client(header: bytes) -> None:
    assert parsed(header + REST) == (None, REST)


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PROXY\r\n" + b"x" * 200,
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2 3\r\n",
        b"PROXY TCP4 127.0.0.1  127.0.0.1 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 127.0.0.1 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 127.0.0.256 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 65536 2\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 01 2\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 -1 2\r\n",
        "PROXY TCP4 127.0.0.1 127.0.0.1 \u0661 2\r\n".encode(),
        b"proxy TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        b"PROXY UNKNOWN" + b"x" * 200,
        b"PROXY UDP4 127.0.0.1 127.0.0.1 1 2\r\n",
        v2(1, 0x11, b"x" * 11),
        v2(1, 0x21, b"x" * 35),
        v2(2, 0x11, b"x" * 12),
        v2(1, 0x41, b"x" * 12),
        v2(1, 0x13, b"x" * 12),
        v2(1, 0x11, b"x" * 12, version=1),
        v2(1, 0x11, b"x" * 5000),
    ],
)
def test_invalid_headers(header: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        parsed(header)
    assert caught.value.counter is Counter.CLOSED_PROXY_HEADER_INVALID


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE]))
@example(b"", SIGNATURE[:-1])
def test_any_bytes_are_a_header_or_a_clear_error(data: bytes, beginning: bytes) -> None:
    stream = Stream(beginning + data)
    with suppress(HandshakeError):
        found = read_header(stream.receive)
        assert (beginning + data).endswith(stream.data)
        assert found is None or ipaddress.ip_address(found[0]).version in {4, 6}


LISTEN = ("--proxy-protocol", "--admin", "127.0.0.1:0", "--log-level", "debug", "--access-log")
HEADER = v1("TCP4", "192.0.2.7", "198.51.100.1", (4711, 7))


def test_the_client_behind_the_proxy_is_logged(start_server: StartServer) -> None:
    server = start_server(*LISTEN)
    client = ipaddress.ip_address("2001:db8::7").packed
    for header, name in (
        (HEADER, '"192.0.2.7:4711"'),
        (v2(1, 0x21, client + client + b"\x12\x34\x00\x07"), '"[2001:db8::7]:4660"'),
        (v2(0, 0x00, b""), '"127.0.0.1:'),
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
            connection.sendall(v1("TCP4", client, "198.51.100.1", (4711, 7)) + b"x")
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
    with ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [one.getsockname()[1] for one in free]
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


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_no_header_is_expected_without_the_option(echo_server: EchoServerProcess) -> None:
    with echo_server.connect() as connection:
        assert echoes(connection, HEADER)
    assert run([*SERVER, "--proxy-protocol=yes"]).returncode == 2
