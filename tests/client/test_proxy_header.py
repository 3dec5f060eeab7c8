"""The PROXY headers of the client: which clients they name, and that the server believes them."""

from __future__ import annotations

import ipaddress
import json
import socket
from contextlib import closing
from pathlib import Path

import pytest

from echo_client.addresses import Address
from echo_client.connecting import send_header
from echo_client.connection import EchoConnection
from echo_client.errors import ConnectError
from echo_client.proxy_header import ClientAddresses, ProxyHeader, ProxyHeaders
from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError
from echo_core.proxy_protocol import Version, make_header
from support.certificates import make_certificates
from support.processes import CLIENT, DEADLINE, EchoServerProcess, StartServer, run, until

VERSIONS: tuple[Version, ...] = ("v1", "v2")
LISTEN = ("--proxy-protocol", "--access-log")


@pytest.mark.parametrize(
    ("text", "addresses", "port"),
    [
        ("192.0.2.1", ["192.0.2.1", "192.0.2.1"], None),
        ("192.0.2.1:40000", ["192.0.2.1", "192.0.2.1"], 40_000),
        ("2001:db8::1", ["2001:db8::1", "2001:db8::1"], None),
        ("[2001:db8::1]:1", ["2001:db8::1", "2001:db8::1"], 1),
        ("10.0.0.0/8", ["10.0.0.1", "10.0.0.2", "10.0.0.3"], None),
        ("192.0.2.0/30", ["192.0.2.1", "192.0.2.2", "192.0.2.1"], None),
        ("192.0.2.0/31", ["192.0.2.0", "192.0.2.1", "192.0.2.0"], None),
        ("192.0.2.9/32", ["192.0.2.9", "192.0.2.9"], None),
        ("2001:db8::/126", [f"2001:db8::{last}" for last in (1, 2, 3, 1)], None),
        ("2001:db8::/32", ["2001:db8::1", "2001:db8::2"], None),
    ],
)
def test_clients_have_addresses_in_turn(text: str, addresses: list[str], port: int | None) -> None:
    clients = ClientAddresses.parse(text)
    assert [clients.address(number) for number in range(1, len(addresses) + 1)] == addresses
    assert clients.port == port


@pytest.mark.parametrize("text", ["10.0.0.0/29", "2001:db8::/125", "10.0.0.0/30", "::/127"])
def test_a_network_has_the_hosts_of_the_standard_library(text: str) -> None:
    hosts = list(map(str, ipaddress.ip_network(text).hosts()))
    clients = ClientAddresses.parse(text)
    assert [clients.address(number + 1) for number in range(clients.count)] == hosts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' does not appear to be an IPv4 or IPv6 address"),
        ("localhost", "'localhost' does not appear to be"),
        ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("10.0.0.0/33", "33"),
        ("10.0.0.1:0", "'0' is not a port between 1 and 65535"),
        ("10.0.0.1:65536", "'65536' is not a port"),
        ("10.0.0.1:", "'' is not a port"),
        ("[::1]", "no port follows the brackets"),
        ("[::1]:x", "'x' is not a port"),
        ("fe80::1%eth0", "a zone means nothing"),
        ("[fe80::1%1]:7", "a zone means nothing"),
    ],
)
def test_what_is_no_address(text: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match="neither an address nor a network") as caught:
        ClientAddresses.parse(text)
    assert said in str(caught.value)


def peers(server: EchoServerProcess) -> list[str]:
    logged = [line for line in server.log().splitlines() if '"event": "connection"' in line]
    return [json.loads(line)["peer"] for line in logged]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_the_server_believes_the_client(
    start_server: StartServer, tmp_path: Path, version: str, scheme: str
) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    tls = certificates.options if scheme == "tls" else ()
    trust = ("--tls-ca", str(certificates.authority)) if scheme == "tls" else ()
    server = start_server(*LISTEN, "--listen", f"{scheme}://127.0.0.1:0", *tls)
    source = ("--send-proxy-source", "192.0.2.7:4711")
    process = run(
        [*CLIENT, server.url, "--send-proxy", version, *source, *trust], stdin=b"hi" * 100_000
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout == b"hi" * 100_000
    until(lambda: peers(server), "the connection to end")
    assert peers(server) == ["192.0.2.7:4711"]


def test_each_connection_of_a_ping_has_the_next_address(start_server: StartServer) -> None:
    server = start_server(*LISTEN, "--fault", "close")
    process = run(
        [
            *(*CLIENT, "-n", "3", "-i", "10ms", server.url),
            *("--send-proxy", "v2", "--send-proxy-source", "10.0.0.0/8"),
        ]
    )
    assert process.returncode == 1
    hosts = [f"10.0.0.{number}" for number in (1, 2, 3)]
    until(lambda: [one.partition(":")[0] for one in peers(server)] == hosts, "three connections")


def test_the_bytes_of_the_header_are_not_counted(start_server: StartServer) -> None:
    server = start_server(*LISTEN)
    headers = ProxyHeaders("v1")
    with EchoConnection.open(
        Endpoint.parse(server.url), timeout=DEADLINE, header=headers.header(1)
    ) as connection:
        assert connection.round_trip(b"hello") == b"hello"
        assert (connection.bytes_sent, connection.bytes_received) == (5, 5)


def test_a_zone_is_not_in_the_header() -> None:
    class LinkLocal:
        def getsockname(self) -> tuple[str, int, int, int]:
            return "fe80::2%eth0", 4711, 0, 1

    address = Address(socket.AF_INET6, ("fe80::1%eth0", 7, 0, 1))
    header = ProxyHeader("v1").encode(LinkLocal(), address)
    assert header == b"PROXY TCP6 fe80::2 fe80::1 4711 7\r\n"
    pretended = ProxyHeader("v1", "10.0.0.1", 5).encode(LinkLocal(), address)
    assert pretended == b"PROXY TCP6 ::ffff:10.0.0.1 fe80::1 5 7\r\n"


def test_a_connection_that_breaks_before_the_header() -> None:
    own, other = socket.socketpair()
    other.close()
    with (
        closing(own),
        pytest.raises(ConnectError, match="cannot connect to unix:///x: Broken pipe"),
    ):
        send_header(own, Address(socket.AF_UNIX, "/x", "unix"), ProxyHeader("v2"))
    assert own.fileno() == -1


def test_a_unix_socket_names_no_client() -> None:
    address = Address(socket.AF_UNIX, "/x", "unix")
    with socket.socket(socket.AF_UNIX) as own:
        for version in VERSIONS:
            header = ProxyHeader(version, "10.0.0.1", 5).encode(own, address)
            assert header == make_header(version, None, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["udp://a:7", "--send-proxy", "v1"], "--send-proxy needs a stream, and udp://a:7 is none"),
        (["a:7", "--send-proxy-source", "::1"], "no effect without --send-proxy v1|v2"),
        (
            ["unix:///a", "--send-proxy", "v1", "--send-proxy-source", "::1"],
            "--send-proxy-source applies only to IP targets, not to unix:///a",
        ),
        (["a:7", "--send-proxy", "3"], "'3' is not one of 'v1', 'v2'"),
        (
            ["a:7", "--send-proxy", "v1", "--send-proxy-source", "x"],
            "--send-proxy-source: 'x' is neither an address nor a network",
        ),
    ],
)
def test_bad_input(arguments: list[str], expected: str) -> None:
    process = run([*CLIENT, *arguments])
    (line,) = process.stderr.decode().splitlines()
    assert process.returncode == 2
    assert expected in line
