"""PROXY headers: written as specified, read to the byte, and refused where they are none."""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echo_core.proxy_protocol import (
    SIGNATURE,
    InvalidHeaderError,
    SockAddr,
    Version,
    begins_header,
    make_header,
    read_header,
)

ports = st.integers(0, 65535)
REST = b"what follows belongs to the client"


class Stream:
    """Bytes to receive from; their end is an error, as in the server."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def receive(self, size: int) -> bytes:
        if size > len(self.data):
            raise InvalidHeaderError("the end")
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
    with pytest.raises(InvalidHeaderError):
        parsed(header)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE]))
@example(b"", SIGNATURE[:-1])
def test_any_bytes_are_a_header_or_a_clear_error(data: bytes, beginning: bytes) -> None:
    stream = Stream(beginning + data)
    with suppress(InvalidHeaderError):
        found = read_header(stream.receive)
        assert (beginning + data).endswith(stream.data)
        assert found is None or ipaddress.ip_address(found[0]).version in {4, 6}


V4, V6 = ("192.0.2.7", 4711), ("2001:db8::7", 4711)
TO_V4, TO_V6 = ("198.51.100.1", 7), ("2001:db8::1", 7)
# Section 2.2 of the specification: the signature, version 2 and command PROXY, family, length.
V2_IPV4 = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c"
V2_IPV6 = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x21\x00\x24"
PORTS = b"\x12\x67\x00\x07"


def packed(*hosts: str) -> bytes:
    return b"".join(socket.inet_pton(socket.AF_INET6, host) for host in hosts)


@pytest.mark.parametrize(
    ("version", "client", "server", "header"),
    [
        ("v1", V4, TO_V4, b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 7\r\n"),
        ("v1", V6, TO_V6, b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 7\r\n"),
        ("v1", V4, TO_V6, b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 4711 7\r\n"),
        ("v1", V6, TO_V4, b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 4711 7\r\n"),
        ("v1", ("fe80::1%lo", 1), TO_V6, b"PROXY TCP6 fe80::1 2001:db8::1 1 7\r\n"),
        ("v1", None, TO_V4, b"PROXY UNKNOWN\r\n"),
        ("v2", V4, TO_V4, V2_IPV4 + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + PORTS),
        ("v2", V6, TO_V6, V2_IPV6 + packed("2001:db8::7", "2001:db8::1") + PORTS),
        ("v2", V4, TO_V6, V2_IPV6 + packed("::ffff:192.0.2.7", "2001:db8::1") + PORTS),
        ("v2", V6, TO_V4, V2_IPV6 + packed("2001:db8::7", "::ffff:198.51.100.1") + PORTS),
        ("v2", V4, None, V2_IPV4[:12] + b"\x20\x00\x00\x00"),
    ],
)
def test_headers_as_in_the_specification(
    version: Version, client: SockAddr | None, server: SockAddr | None, header: bytes
) -> None:
    assert make_header(version, client, server) == header
    assert begins_header(header)


@given(st.sampled_from(["v1", "v2"]), st.ip_addresses(), st.ip_addresses(), ports, ports)
def test_a_header_is_read_as_it_was_made(
    version: Version,
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    server: ipaddress.IPv4Address | ipaddress.IPv6Address,
    client_port: int,
    server_port: int,
) -> None:
    header = make_header(version, (str(client), client_port), (str(server), server_port))
    found, rest = parsed(header + REST)
    assert found is not None
    host = ipaddress.ip_address(found[0])
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    assert client in {host, mapped}
    assert (found[1], rest) == (client_port, REST)
