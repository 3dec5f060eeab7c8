"""Connectors, which open single connections to the targets of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from echo_client.addresses import Address, resolve
from echo_client.connection import EchoConnection
from echo_client.happy_eyeballs import best_first
from echo_client.proxy_header import ProxyHeaders
from echo_client.socket_options import SocketOptions
from echo_core.endpoint import Endpoint
from echo_load.plan.plan import Plan
from echo_load.plan.sources import source_addresses

if TYPE_CHECKING:
    import ssl


class Connector(NamedTuple):
    """The address and the options with which connections to a target are opened.

    Attributes:
        addresses: the target's addresses; the one that answered first is in front.
        timeout: seconds to wait for a reply.
        connect_timeout: seconds to wait for a connection.
        source: local address to connect from; None for the kernel's choice.
        tls: TLS context; None without TLS.
        server_name: name that the certificate must match; None for the host of the target.
        options: options of the sockets.
        headers: PROXY headers; None if connections have none.
        numbers: numbers of the connections to all targets, for their headers.
    """

    addresses: Sequence[Address]
    timeout: float
    connect_timeout: float
    source: str | None
    tls: ssl.SSLContext | None
    server_name: str | None
    options: SocketOptions
    headers: ProxyHeaders | None
    numbers: Iterator[int]

    def open(self) -> EchoConnection:
        """Open a connection.

        Raises:
            ConnectError: it cannot be opened.
        """
        headers = self.headers
        return EchoConnection.connect(
            self.addresses,
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            tls=self.tls,
            server_name=self.server_name,
            source=self.source,
            options=self.options,
            header=headers.header(next(self.numbers)) if headers is not None else None,
        )


class ResolvingConnector:
    """Opens connections to a target, each to an address to which its name resolves at that time.

    Args:
        connector: the connector for the addresses to which it resolved first.
        endpoint: the target.
        ip_version: 4 or 6 for addresses of this version only; None for both.
    """

    def __init__(self, connector: Connector, endpoint: Endpoint, ip_version: int | None) -> None:
        self._connector = connector
        self._endpoint = endpoint
        self._ip_version = ip_version

    def open(self) -> EchoConnection:
        """Open a connection.

        Raises:
            ConnectError: it cannot be opened, or the name cannot be resolved.
        """
        found: Sequence[Address] = resolve(self._endpoint, self._ip_version)
        connector = self._connector
        if set(found) != set(connector.addresses):
            if self._endpoint.scheme == "udp":
                found = best_first(found, connector.connect_timeout, connector.source)
            connector = self._connector = connector._replace(addresses=found)
        return connector.open()


def connectors(
    plan: Plan, endpoints: Sequence[Endpoint], connect_timeout: float
) -> list[Connector]:
    """Resolve targets, and return a connector for each.

    Args:
        plan: source addresses, IP version, options of TLS and sockets, PROXY headers, and timeout
            of a reply.
        endpoints: the targets.
        connect_timeout: seconds to wait for a connection.

    Raises:
        UnresolvedError: the host of a target is unknown.
        InvalidValueError: a source address is not one of this machine.
        TlsFileError: a file for TLS is invalid.
    """
    sources = source_addresses(plan)
    source = sources[0] if sources else None
    tls = plan.tls.context() if plan.speaks("tls") else None
    numbers = count(1)
    return [
        Connector(
            best_first(
                resolve(endpoint, plan.ip_version), connect_timeout, source, plan.proxy_headers
            ),
            plan.reply_timeout,
            connect_timeout,
            source,
            tls if endpoint.scheme == "tls" else None,
            plan.tls.server_name,
            plan.socket_options,
            plan.proxy_headers,
            numbers,
        )
        for endpoint in endpoints
    ]
