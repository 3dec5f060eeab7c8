"""Makes the sockets that the server listens on."""

from __future__ import annotations

import socket

from echo_core.endpoint import Endpoint
from echo_server.errors import ListenError


def listen(endpoint: Endpoint, backlog: int) -> socket.socket:
    """Open a non-blocking TCP listener on the first address that the host resolves to.

    TCP_NODELAY is set here because accepted connections inherit it (tcp(7)): an echo waits for
    nothing, and no call is spent on each connection.

    Raises:
        ListenError: the host is unknown, or the address cannot be bound.
    """
    family, kind, protocol, _, address = _resolve(endpoint)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {endpoint}: {error.strerror}") from error
    return listener


def bound_endpoint(listener: socket.socket) -> Endpoint:
    """Where a listener really listens, once port 0 has become a port."""
    host, port = listener.getsockname()[:2]
    return Endpoint(host, port)


def _resolve(endpoint: Endpoint) -> tuple[int, int, int, str, tuple[str | int, ...]]:
    try:
        return socket.getaddrinfo(  # type: ignore[return-value]  # never AF_UNIX's bare strings
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {endpoint}: {error.strerror}") from error
