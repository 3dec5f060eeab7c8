"""The PROXY protocol, versions 1 and 2: a header that names the client behind a proxy.

The server reads headers; the client and the load tester make them.

Source: HAProxy's "The PROXY protocol, versions 1 & 2" (proxy-protocol.txt).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Callable
from typing import Literal

from echo_core.errors import EchoswarmError

Version = Literal["v1", "v2"]
SockAddr = tuple[str, int]
# Receives exactly the given number of bytes, or raises an error.
Receive = Callable[[int], bytes]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# The bytes that can be received before the length of the header is known. The shortest header of
# version 1, "PROXY UNKNOWN\r\n", is longer.
_PREFIX_BYTES = len(SIGNATURE)
_V1_BEGINNING = b"PROXY "
_LONGEST_V1 = 107
# More than the addresses of two unix sockets and a few TLVs, which are skipped.
_LONGEST_V2 = 4096
_V1 = re.compile(rb"PROXY (TCP4|TCP6) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _STREAM_IPV4, _STREAM_IPV6 = 0x00, 0x11, 0x21
# The beginning of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
_MAPPED = bytes(10) + b"\xff\xff"


class InvalidHeaderError(EchoswarmError):
    """The bytes at the beginning of a connection are not a valid header.

    The message does not contain the data, which may be confidential.
    """


def make_header(version: Version, client: SockAddr | None, server: SockAddr | None) -> bytes:
    """Return a header, the first bytes on a connection.

    Addresses of different IP versions are both written as IPv6 addresses, the IPv4 one mapped.

    Args:
        version: the version of the protocol.
        client: the address and the port of the client; a zone is left out.
        server: the address and the port that the client has connected to. If one of the two is
            None, the header names no client, and the receiver uses the address of its peer.
    """
    if client is None or server is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else _v2_header(_LOCAL, _UNSPECIFIED, b"")
    addresses = [ipaddress.ip_address(host.partition("%")[0]) for host, _ in (client, server)]
    packed = [one.packed for one in addresses]
    if addresses[0].version != addresses[1].version:
        packed = [_MAPPED + one if len(one) == 4 else one for one in packed]
    is_ipv4 = len(packed[0]) == 4
    if version == "v2":
        body = b"".join(packed) + struct.pack("!HH", client[1], server[1])
        return _v2_header(_PROXY, _STREAM_IPV4 if is_ipv4 else _STREAM_IPV6, body)
    hosts = [
        socket.inet_ntop(socket.AF_INET if is_ipv4 else socket.AF_INET6, one) for one in packed
    ]
    line = f"PROXY TCP{4 if is_ipv4 else 6} {' '.join(hosts)} {client[1]} {server[1]}\r\n"
    return line.encode("ascii")


def _v2_header(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", 2 << 4 | command, family, len(body)) + body


def begins_header(data: bytes) -> bool:
    """Return whether data begins as a header of either version does."""
    return data.startswith((SIGNATURE, _V1_BEGINNING))


def read_header(receive: Receive) -> SockAddr | None:
    """Read a header of either version, and no byte beyond it.

    Args:
        receive: receives exactly the given number of bytes.

    Returns:
        The client's address; None if the header has none, because the connection is the proxy's own
        (a health check) or the client's address is unknown or not an IP address.

    Raises:
        InvalidHeaderError: the header is not valid.
    """
    prefix = receive(_PREFIX_BYTES)
    if prefix == SIGNATURE:
        return _read_v2(receive)
    if prefix.startswith(_V1_BEGINNING):
        return _read_v1(prefix, receive)
    raise InvalidHeaderError(f"the first {len(prefix)} bytes are not the start of a PROXY header")


def _read_v1(prefix: bytes, receive: Receive) -> SockAddr | None:
    line = bytearray(prefix)
    # One byte at a time, since the bytes after the line belong to the client's stream.
    while not line.endswith(b"\r\n"):
        if len(line) >= _LONGEST_V1:
            raise InvalidHeaderError(f"a line of more than {_LONGEST_V1} bytes")
        line += receive(1)
    text = bytes(line[:-2])
    if text == b"PROXY UNKNOWN" or text.startswith(b"PROXY UNKNOWN "):
        return None
    match = _V1.fullmatch(text)
    if match is None:
        raise InvalidHeaderError(f"a line of {len(line)} bytes that is not a PROXY line")
    protocol, source, destination, *ports = match.groups()
    version = 4 if protocol == b"TCP4" else 6
    host = _address(source, version)
    _address(destination, version)
    source_port, destination_port = map(int, ports)
    if max(source_port, destination_port) > 65535:
        raise InvalidHeaderError("a port above 65535")
    return host, source_port


def _read_v2(receive: Receive) -> SockAddr | None:
    version_command, family, size = struct.unpack("!BBH", receive(4))
    version, command = version_command >> 4, version_command & 0x0F
    if version != 2 or command not in {_LOCAL, _PROXY}:
        raise InvalidHeaderError(f"version {version}, command {command}")
    if size > _LONGEST_V2:
        raise InvalidHeaderError(f"a header of {size} bytes")
    body = receive(size) if size else b""
    if command == _LOCAL:
        return None
    if family == _STREAM_IPV4:
        return _address_v2(body, socket.AF_INET, 4)
    if family == _STREAM_IPV6:
        return _address_v2(body, socket.AF_INET6, 16)
    if family >> 4 > 3 or family & 0x0F > 2:
        raise InvalidHeaderError(f"address family and protocol {family:#04x}")
    # Unspecified, datagrams, unix sockets: "the receiver must ... use the real endpoints".
    return None


def _address_v2(body: bytes, family: int, size: int) -> SockAddr:
    if len(body) < 2 * size + 4:
        raise InvalidHeaderError(f"addresses of {len(body)} bytes")
    (port,) = struct.unpack_from("!H", body, 2 * size)
    return socket.inet_ntop(family, body[:size]), port


def _address(text: bytes, version: int) -> str:
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError as error:
        raise InvalidHeaderError("an invalid address") from error
    if address.version != version:
        raise InvalidHeaderError(f"an address that is not IPv{version}")
    # In the notation of accept(2) and of version 2: ::ffff:192.0.2.1, not ::ffff:c000:201.
    return socket.inet_ntop(socket.AF_INET if version == 4 else socket.AF_INET6, address.packed)
