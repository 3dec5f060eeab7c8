"""The options of the client's sockets: what they are set to, and what the kernel gives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from echo_client.connection import EchoConnection
from echo_client.socket_options import BufferSizes, SocketOptions, format_dscp, parse_dscp
from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError
from support.certificates import make_certificates
from support.processes import CLIENT, DEADLINE, EchoServerProcess, StartServer, run

ALL = SocketOptions(nodelay=False, keepalive=7.0, dscp=34, buffer_size=10_000)


def same_socket(connection: EchoConnection) -> socket.socket:
    """Return another descriptor of the socket of a connection."""
    return socket.socket(fileno=os.dup(connection.fileno()))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_options_of_a_tcp_connection(echo_server: EchoServerProcess, host: str) -> None:
    endpoint = Endpoint.parse(f"{host}:{echo_server.port}")
    with (
        EchoConnection.open(endpoint, timeout=DEADLINE, options=ALL) as connection,
        same_socket(connection) as opened,
    ):
        assert connection.round_trip(b"hello") == b"hello"
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 7
        assert opened.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 34 << 2
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 20_000
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 20_000


def test_the_defaults_of_a_tcp_connection(echo_server: EchoServerProcess) -> None:
    with (
        EchoConnection.open(Endpoint.parse(echo_server.url), timeout=DEADLINE) as connection,
        same_socket(connection) as opened,
        socket.create_connection(("127.0.0.1", echo_server.port)) as untouched,
    ):
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        for level, option in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_IP, socket.IP_TOS),
            (socket.SOL_SOCKET, socket.SO_RCVBUF),
        ):
            assert opened.getsockopt(level, option) == untouched.getsockopt(level, option)


def test_options_over_ipv6_and_to_a_mapped_address(start_server: StartServer) -> None:
    server = start_server("--listen", "tcp://[::1]:0", "--listen", "tcp://127.0.0.1:0")
    mapped = f"[::ffff:127.0.0.1]:{server.read_line().rpartition(':')[2]}"
    for target, level, option in (
        (server.url, socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
        (mapped, socket.IPPROTO_IP, socket.IP_TOS),
    ):
        with (
            EchoConnection.open(Endpoint.parse(target), timeout=DEADLINE, options=ALL) as one,
            same_socket(one) as opened,
        ):
            assert opened.family == socket.AF_INET6
            assert opened.getsockopt(level, option) == 34 << 2


@pytest.mark.parametrize("scheme", ["udp", "unix"])
def test_options_of_other_transports(
    start_server: StartServer, tmp_path: Path, scheme: str
) -> None:
    listen = f"unix://{tmp_path}/echo" if scheme == "unix" else "udp://127.0.0.1:0"
    server = start_server("--listen", listen)
    with (
        EchoConnection.open(Endpoint.parse(server.url), timeout=DEADLINE, options=ALL) as one,
        same_socket(one) as opened,
    ):
        assert one.round_trip(b"hello") == b"hello"
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 20_000
        if scheme == "udp":
            assert opened.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 34 << 2


@pytest.mark.parametrize(
    ("text", "dscp", "written"),
    [
        ("46", 46, "46 (EF)"),
        ("ef", 46, "46 (EF)"),
        ("AF11", 10, "10 (AF11)"),
        ("AF43", 38, "38 (AF43)"),
        ("CS0", 0, "0 (CS0)"),
        (" cs7 ", 56, "56 (CS7)"),
        ("63", 63, "63"),
        ("1", 1, "1"),
    ],
)
def test_code_points(text: str, dscp: int, written: str) -> None:
    assert parse_dscp(text) == dscp
    assert format_dscp(dscp) == written


@pytest.mark.parametrize(
    "text", ["", "64", "-1", "1.5", "AF51", "AF14", "CS8", "EF1", "\u0664", "046"]
)
def test_what_is_no_code_point(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a DSCP; write a number from 0 to 63"):
        parse_dscp(text)


def test_buffers_are_limited_by_the_kernel() -> None:
    limits = [
        int(Path(f"/proc/sys/net/core/{name}").read_text()) for name in ("wmem_max", "rmem_max")
    ]
    enough = BufferSizes.granted(10_000)
    assert enough == BufferSizes(10_000, 10_000, 10_000)
    assert enough is not None
    assert not enough.shortfall
    most = max(limits) + 1
    less = BufferSizes.granted(most)
    assert less == BufferSizes(most, *limits)
    assert less is not None
    assert "for sending (limit: net.core.wmem_max)" in less.shortfall
    assert BufferSizes.granted(None) is None


def test_the_client_reports_smaller_buffers(echo_server: EchoServerProcess) -> None:
    for size, lines in (("1GiB", 1), ("10k", 0)):
        process = run([*CLIENT, echo_server.url, "--buffer-size", size], stdin=b"hi")
        assert (process.returncode, process.stdout) == (0, b"hi")
        assert len(process.stderr.splitlines()) == lines
        assert b"of the 1.0 GiB requested" in process.stderr or not lines


def test_the_client_shows_the_version_and_cipher_of_tls(
    start_server: StartServer, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    server = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    process = run([*CLIENT, "-n", "1", server.url, "--tls-ca", str(certificates.authority)])
    assert process.returncode == 0
    assert b", TLSv1.3 TLS_" in process.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["unix:///a", "--dscp", "EF"], "--dscp applies only to IP targets, not to unix:///a"),
        (["udp://a:7", "--keepalive", "1s"], "--keepalive needs TCP, which udp://a:7 is not"),
        (["unix:///a", "--no-nodelay"], "--nodelay needs TCP, which unix:///a is not"),
        (["a:7", "--keepalive", "0s"], "--keepalive: '0s' is not in whole seconds, from 1s"),
        (["a:7", "--keepalive", "10h"], "--keepalive: '10h' is not in whole seconds"),
        (["a:7", "--dscp", "64"], "--dscp: '64' is not a DSCP"),
        (["a:7", "--buffer-size", "0"], "--buffer-size: '0' is not a size from 1 B to 1.0 GiB"),
    ],
)
def test_bad_input(arguments: list[str], expected: str) -> None:
    process = run([*CLIENT, *arguments])
    (line,) = process.stderr.decode().splitlines()
    assert process.returncode == 2
    assert expected in line
