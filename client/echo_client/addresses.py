"""Resolution of an endpoint to the addresses to connect to."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Literal

from echo_client.errors import UnresolvedError
from echo_core.endpoint import Endpoint, NetworkEndpoint, UnixEndpoint
from echo_core.errors import InvalidValueError
from echo_core.socket_address import host_of, unix_path

Transport = Literal["tcp", "tls", "udp", "unix"]
# The address family of each IP version.
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Address:
    """One address that an endpoint resolved to.

    Attributes:
        family: `AF_INET`, `AF_INET6` or `AF_UNIX`.
        sockaddr: the address for a socket's `connect`.
        transport: `tcp`, `tls`, `udp` or `unix`.
        host: the name that was resolved, and that a TLS certificate must match; "" for unix.
    """

    family: int
    sockaddr: tuple[Any, ...] | str
    transport: Transport = "tcp"
    host: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """The address as an endpoint."""
        if isinstance(self.sockaddr, str) or self.transport == "unix":
            return UnixEndpoint(unix_path(str(self.sockaddr)))
        return NetworkEndpoint(host_of(self.sockaddr), self.sockaddr[1], self.transport)


def source_sockaddr(source: str) -> tuple[Any, ...]:
    """Return a local IP address in the form that a socket's `bind` takes, with port 0.

    Raises:
        OSError: the address has a zone (`%eth0`) that is not an interface of this machine.
    """
    if "%" not in source:
        return source, 0
    # The zone is a separate field of the address; with only host and port, Python sets it to 0.
    found = socket.getaddrinfo(source, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return tuple(found[0][4])


def resolve(endpoint: Endpoint, ip_version: int | None = None) -> list[Address]:
    """Return the addresses of an endpoint, in the order in which to try them (RFC 6724).

    Args:
        endpoint: a tcp, tls, udp or unix endpoint.
        ip_version: 4 or 6 for addresses of this version only; None for both.

    Raises:
        InvalidValueError: the endpoint is a descriptor, which can only be listened on.
        UnresolvedError: the host is unknown, or has no address of the IP version.
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
    # A certificate contains an address without its zone, and a name without the trailing dot of an
    # absolute name (RFC 6066, section 3).
    host = endpoint.host.partition("%")[0].removesuffix(".")
    return [
        Address(family, tuple(sockaddr), endpoint.transport, host)
        for family, _, _, _, sockaddr in found
    ]
