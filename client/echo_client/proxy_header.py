"""The PROXY protocol header that a connection begins with, and the clients that it names."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Protocol, Self

from echo_client.addresses import Address
from echo_core.errors import InvalidValueError
from echo_core.proxy_protocol import Version, make_header


class HasName(Protocol):
    """A connected socket."""

    def getsockname(self) -> Any:
        """Return its local address."""


@dataclass(frozen=True, slots=True)
class ClientAddresses:
    """Addresses that the clients behind a proxy are pretended to have, one after the other.

    Attributes:
        first: the first address.
        count: the number of addresses; after the last one comes the first again.
        port: the port of all clients; None for the local port of each connection.
    """

    first: ipaddress.IPv4Address | ipaddress.IPv6Address
    count: int = 1
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> ClientAddresses:
        """Parse a network, an address, or an address and a port.

        Raises:
            InvalidValueError: the text is none of these.
        """
        try:
            return cls._of_network(text) if "/" in text else cls._of_address(text)
        except ValueError as error:
            raise InvalidValueError(
                f"{text!r} is neither an address nor a network ({error}); write it as in "
                "192.0.2.1, 192.0.2.1:40000, [2001:db8::1]:40000 or 10.0.0.0/8"
            ) from error

    @classmethod
    def _of_network(cls, text: str) -> ClientAddresses:
        network = ipaddress.ip_network(text)
        if network.max_prefixlen - network.prefixlen < 2:
            return cls(network.network_address, network.num_addresses)
        # Without the addresses of the network itself, and of a broadcast in IPv4.
        reserved = 2 if network.version == 4 else 1
        return cls(network.network_address + 1, network.num_addresses - reserved)

    @classmethod
    def _of_address(cls, text: str) -> ClientAddresses:
        host, port = text, ""
        if text.startswith("["):
            host, _, rest = text[1:].partition("]")
            if not rest.startswith(":"):
                raise ValueError("no port follows the brackets")
            port = rest[1:]
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        if "%" in host:
            raise ValueError("a zone means nothing to another machine")
        address = ipaddress.ip_address(host)
        if host == text:
            return cls(address)
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
            raise ValueError(f"{port!r} is not a port between 1 and 65535")
        return cls(address, port=int(port))

    def address(self, number: int) -> str:
        """Return the address of a client; clients are numbered from 1."""
        return str(self.first + (number - 1) % self.count)


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """The header of one connection.

    Attributes:
        version: the version of the PROXY protocol.
        host: the address of the pretended client; None for the true address of the connection.
        port: its port; None for the true one.
    """

    version: Version
    host: str | None = None
    port: int | None = None

    def encode(self, connected: HasName, address: Address) -> bytes:
        """Return the bytes of the header for a socket that is connected to an address.

        On a unix socket the header names no client.
        """
        if address.transport == "unix":
            return make_header(self.version, None, None)
        own_host, own_port = connected.getsockname()[:2]
        client = self.host or own_host, self.port or own_port
        server = str(address.sockaddr[0]), int(address.sockaddr[1])
        return make_header(self.version, client, server)


@dataclass(frozen=True, slots=True)
class ProxyHeaders:
    """The headers of many connections.

    Attributes:
        version: the version of the PROXY protocol.
        clients: the pretended clients; None for the true address of each connection.
    """

    version: Version
    clients: ClientAddresses | None = None

    @classmethod
    def of(cls, version: Version | None, source: str | None) -> Self | None:
        """Return the headers that `--send-proxy` and `--send-proxy-source` describe.

        Args:
            version: the version of the PROXY protocol; None for no headers.
            source: the text of the pretended clients; None for the true addresses.

        Raises:
            InvalidValueError: the source is neither an address nor a network.
        """
        if version is None:
            return None
        return cls(version, None if source is None else ClientAddresses.parse(source))

    def header(self, number: int) -> ProxyHeader:
        """Return the header of a connection; connections are numbered from 1."""
        if self.clients is None:
            return ProxyHeader(self.version)
        return ProxyHeader(self.version, self.clients.address(number), self.clients.port)

    @property
    def of_no_client(self) -> bytes:
        """The header of a connection of the proxy's own, such as a health check."""
        return make_header(self.version, None, None)
