"""From an endpoint to the addresses that it can be reached at."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Literal

from echo_client.errors import UnresolvedError
from echo_core.endpoint import Endpoint, NetworkEndpoint, UnixEndpoint
from echo_core.errors import InvalidValueError
from echo_core.socket_address import host_of, unix_path

Transport = Literal["tcp", "tls", "udp", "unix"]
# Of the IP versions.
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Address:
    """One address that an endpoint resolved to.

    Attributes:
        family: `AF_INET`, `AF_INET6` or `AF_UNIX`.
        sockaddr: what `connect` of a socket takes.
        transport: `tcp`, `tls`, `udp` or `unix`.
        host: the name that was looked up, which a TLS certificate must be for; "" for unix.
    """

    family: int
    sockaddr: tuple[Any, ...] | str
    transport: Transport = "tcp"
    host: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """The address as people write it."""
        if isinstance(self.sockaddr, str) or self.transport == "unix":
            return UnixEndpoint(unix_path(str(self.sockaddr)))
        return NetworkEndpoint(host_of(self.sockaddr), self.sockaddr[1], self.transport)


def source_sockaddr(source: str) -> tuple[Any, ...]:
    """Return an IP address of this machine as a socket's `bind` takes it, with any port.

    Raises:
        OSError: there is no interface of the name that the address ends in.
    """
    if "%" not in source:
        return source, 0
    # The zone is a field of its own, which Python leaves at 0 where only host and port are given.
    found = socket.getaddrinfo(source, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return tuple(found[0][4])


def resolve(endpoint: Endpoint, ip_version: int | None = None) -> list[Address]:
    """Look up the addresses of an endpoint, in the order in which to try them (RFC 6724).

    Args:
        endpoint: tcp, tls, udp or unix.
        ip_version: 4 or 6 leaves out all other addresses.

    Raises:
        InvalidValueError: it is a descriptor, which can only be listened on.
        UnresolvedError: the host is not known, or has no address of that version.
    """
    found = _look_up(endpoint)
    if ip_version is None:
        return found
    of_version = [address for address in found if address.family == FAMILIES[ip_version]]
    if not of_version:
        raise UnresolvedError(f"cannot connect to {endpoint}: it has no IPv{ip_version} address")
    return of_version


def _look_up(endpoint: Endpoint) -> list[Address]:
    if isinstance(endpoint, UnixEndpoint):
        return [Address(socket.AF_UNIX, endpoint.sockaddr, "unix")]
    if not isinstance(endpoint, NetworkEndpoint):
        raise InvalidValueError(f"cannot connect to {endpoint}")
    kind = socket.SOCK_DGRAM if endpoint.transport == "udp" else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=kind)
    except socket.gaierror as error:
        raise UnresolvedError(f"cannot connect to {endpoint}: {error.strerror}") from error
    # A certificate is for an address without the name of the interface that leads there, and for a
    # name without the dot that says that it is absolute (RFC 6066, section 3).
    host = endpoint.host.partition("%")[0].removesuffix(".")
    return [
        Address(family, tuple(sockaddr), endpoint.transport, host)
        for family, _, _, _, sockaddr in found
    ]
