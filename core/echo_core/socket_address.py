"""Conversion of socket addresses to the notation that users write."""

from __future__ import annotations

import os
import socket
from typing import Any


def host_of(sockaddr: tuple[Any, ...]) -> str:
    """Return the host of an IPv4 or IPv6 address, with the zone if it has one: `fe80::1%eth0`.

    A link-local address is ambiguous without its zone, the interface (RFC 4007, section 11).
    """
    host: str = sockaddr[0]
    scope = sockaddr[3] if len(sockaddr) > 3 else 0
    if not scope or "%" in host:
        return host
    try:
        return f"{host}%{socket.if_indextoname(scope)}"
    except OSError:
        # The interface no longer exists; its index is a valid zone, too.
        return f"{host}%{scope}"


def unix_path(sockaddr: str | bytes) -> str:
    """Return the path of a unix socket as in `UnixEndpoint`; `@name` if it is abstract.

    Raises:
        ValueError: the socket is unnamed, or its name contains a null byte.
    """
    name = os.fsdecode(sockaddr)
    if name.startswith("\0"):
        name = f"@{name[1:]}"
    elif name.startswith("@"):
        name = f"./{name}"
    if not name or "\0" in name:
        raise ValueError(f"{sockaddr!r} is not a valid unix socket name")
    return name
