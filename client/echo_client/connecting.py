"""Opening of sockets: source address, timeout, TLS handshake and classification of errors."""

from __future__ import annotations

import _socket
import errno
import ipaddress
import os
import resource
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from echo_client.addresses import FAMILIES, Address, source_sockaddr
from echo_client.errors import (
    ConnectError,
    ConnectTimeoutError,
    HandshakeError,
    NoDescriptorError,
    NoPortError,
    NoSourceError,
    UnreachableError,
    connecting_failure,
)
from echo_client.proxy_header import ProxyHeader
from echo_client.socket_options import DEFAULT_OPTIONS, SocketOptions
from echo_client.tls import TlsOptions
from echo_core.errors import InvalidValueError
from echo_core.limits import local_ports
from echo_core.units import format_duration

if TYPE_CHECKING:
    import ssl

    from echo_client.tls_socket import TlsSocket

# linux/in.h: let bind(2) set the address only, and connect(2) choose the port. A port chosen by
# bind(2) serves one connection; one chosen by connect(2) serves one connection to each target.
IP_BIND_ADDRESS_NO_PORT = 24
# The interval at which connecting is retried while the backlog of a unix listener is full.
UNIX_QUEUE_SECONDS = 0.01


def reachable_from(source: str | None, addresses: Sequence[Address]) -> Sequence[Address]:
    """Return the addresses of the same IP version as a source address; all if it is None.

    Raises:
        InvalidValueError: the source is not an IP address.
        NoSourceError: no address has the IP version of the source.
    """
    if source is None or not addresses:
        return addresses
    try:
        version = ipaddress.ip_address(source).version
    except ValueError as error:
        raise InvalidValueError(f"{source!r} is not an IP address") from error
    found = [address for address in addresses if address.family == FAMILIES[version]]
    if not found:
        raise NoSourceError(
            f"cannot connect to {addresses[0].endpoint} from {source}, which is an IPv{version} "
            "address"
        )
    return found


def connect(
    address: Address,
    timeout: float,
    source: str | None,
    options: SocketOptions = DEFAULT_OPTIONS,
) -> tuple[socket.socket, int]:
    """Open a socket and connect it.

    Args:
        address: the address to connect to.
        timeout: the timeout in seconds.
        source: the local IP address to connect from; None lets the system choose.
        options: the options of the socket.

    Returns:
        The socket, and the nanoseconds that connect(2) took.

    Raises:
        ConnectError: connecting failed; the subclass gives the reason.
    """
    try:
        connecting = _socket_for(address, source, options)
        try:
            begin = time.monotonic_ns()
            if address.transport == "unix":
                _connect_unix(connecting, address, timeout)
            else:
                connecting.settimeout(timeout)
                connecting.connect(address.sockaddr)
            return connecting, time.monotonic_ns() - begin
        except BaseException:
            connecting.close()
            raise
    except OSError as error:
        raise not_connected(error, address, timeout) from error


def begin_to_connect(
    address: Address, source: str | None, options: SocketOptions = DEFAULT_OPTIONS
) -> socket.socket:
    """Open a non-blocking socket and begin to connect it.

    When the socket becomes writable, `SO_ERROR` is 0 if connecting succeeded (connect(2)).

    Args:
        address: the address to connect to.
        source: the local IP address to connect from; None lets the system choose.
        options: the options of the socket.

    Raises:
        ConnectError: connecting failed at once; the subclass gives the reason.
    """
    try:
        connecting = _socket_for(address, source, options)
        connecting.setblocking(False)
        failure = connecting.connect_ex(address.sockaddr)
    except OSError as error:
        raise not_connected(error, address, 0.0) from error
    if failure not in {0, errno.EINPROGRESS}:
        connecting.close()
        raise not_connected(OSError(failure, os.strerror(failure)), address, 0.0)
    return connecting


def _socket_for(address: Address, source: str | None, options: SocketOptions) -> socket.socket:
    kind = socket.SOCK_DGRAM if address.transport == "udp" else socket.SOCK_STREAM
    opened = socket.socket(address.family, kind)
    try:
        options.apply(opened, address)
        if source is not None:
            bind(opened, source, address)
    except BaseException:
        opened.close()
        raise
    return opened


def send_header(connected: socket.socket, address: Address, header: ProxyHeader) -> None:
    """Send the PROXY header of a connection, its first bytes; close the socket if that fails.

    Args:
        connected: the connected socket.
        address: the address it is connected to.
        header: the header.

    Raises:
        ConnectError: the connection is broken already.
    """
    try:
        connected.sendall(header.encode(connected, address))
    except OSError as error:
        connected.close()
        raise not_connected(error, address, 0.0) from error


def secure(
    connected: socket.socket,
    address: Address,
    timeout: float,
    context: ssl.SSLContext | None,
    server_name: str | None,
) -> tuple[TlsSocket, int]:
    """Perform the TLS handshake on a connected socket; close the socket if it fails.

    Args:
        connected: the connected socket.
        address: the address it is connected to.
        timeout: the timeout in seconds.
        context: the TLS context; None for one that trusts the system's certificate authorities.
        server_name: the name that the certificate must match; None for the address's host.

    Returns:
        The TLS socket, and the nanoseconds that the handshake took.

    Raises:
        HandshakeError: the handshake failed, for example because the peer does not speak TLS.
    """
    from echo_client.tls_socket import TlsSocket

    closing: socket.socket | TlsSocket = connected
    try:
        try:
            name = server_name or address.host or None
            closing = secured = TlsSocket(connected, context or TlsOptions().context(), name)
            begin = time.monotonic_ns()
            secured.do_handshake(timeout)
            return secured, time.monotonic_ns() - begin
        except BaseException:
            closing.close()
            raise
    except TimeoutError as error:
        raise no_handshake(address, "timed out") from error
    except OSError as error:
        raise no_handshake(address, error.strerror or str(error)) from error
    except ValueError as error:
        raise no_handshake(address, str(error)) from error


def _connect_unix(connecting: socket.socket, address: Address, timeout: float) -> None:
    """Connect, retrying while the backlog is full: no event signals that it has space."""
    connecting.settimeout(0)
    deadline = time.monotonic() + timeout
    while True:
        try:
            connecting.connect(address.sockaddr)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise TimeoutError from error
            time.sleep(UNIX_QUEUE_SECONDS)
        else:
            return


def bind(connecting: _socket.socket, source: str, address: Address) -> None:
    """Bind a socket to a local address; the system chooses the port.

    Raises:
        NoPortError: no local port is left.
        NoSourceError: the source is not an address that can connect to this target.
    """
    try:
        if sys.platform == "linux" and address.transport != "udp":
            connecting.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connecting.bind(source_sockaddr(source))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _no_port(address) from error
        reason = (
            "not an address of this machine"
            if error.errno == errno.EADDRNOTAVAIL
            else error.strerror or error
        )
        raise NoSourceError(
            f"cannot connect to {address.endpoint} from {source}: {reason}"
        ) from error


def not_connected(error: OSError, address: Address, timeout: float) -> ConnectError:
    """Convert an OSError of connecting to a `ConnectError` that gives the reason."""
    failure = failure_to_connect(error.errno, address)
    if isinstance(error, TimeoutError) or failure is ConnectTimeoutError:
        reason = f"no answer within {format_duration(timeout)}"
        return ConnectTimeoutError(f"cannot connect to {address.endpoint}: {reason}")
    if failure is NoDescriptorError:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return NoDescriptorError(
            f"cannot connect to {address.endpoint}: {error.strerror}; `ulimit -n` is {limit}"
        )
    if failure is NoPortError:
        return _no_port(address)
    return failure(f"cannot connect to {address.endpoint}: {error.strerror}")


def failure_to_connect(number: int | None, address: Address) -> type[ConnectError]:
    """Return the error class for a failure to create or connect a socket.

    Args:
        number: the error number (`errno`).
        address: the address to connect to.
    """
    failure = connecting_failure(number)
    if number == errno.EADDRNOTAVAIL and not _has_route(address):
        return UnreachableError
    return failure


def _has_route(address: Address) -> bool:
    """Return False if there is no route to an address, and thus EADDRNOTAVAIL means that.

    Otherwise EADDRNOTAVAIL means that no port is left.
    """
    if address.transport == "udp":
        # A UDP socket that lacks a port fails with EAGAIN instead.
        return False
    # UDP ports are separate from TCP ports, so that a UDP socket can be connected.
    with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(address.sockaddr) != errno.EADDRNOTAVAIL


def _no_port(address: Address) -> NoPortError:
    first, last = local_ports()
    return NoPortError(
        f"cannot connect to {address.endpoint}: all local ports of "
        f"net.ipv4.ip_local_port_range ({first} to {last}) are in use; connect from more source "
        "addresses"
    )


def no_handshake(address: Address, reason: str) -> HandshakeError:
    """Return the error for a TLS handshake that failed for a reason."""
    return HandshakeError(f"cannot connect to {address.endpoint}: TLS handshake failed: {reason}")
