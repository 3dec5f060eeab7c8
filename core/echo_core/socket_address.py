"""From the addresses that sockets have to what people write."""

from __future__ import annotations

import os
import socket
from typing import Any


def host_of(sockaddr: tuple[Any, ...]) -> str:
    """The host of an IPv4 or IPv6 address, with the zone where it has one: `fe80::1%eth0`.

    A link-local address means nothing without the interface that leads there (RFC 4007, section
    11).
    """
    host: str = sockaddr[0]
    scope = sockaddr[3] if len(sockaddr) > 3 else 0
    if not scope or "%" in host:
        return host
    try:
        return f"{host}%{socket.if_indextoname(scope)}"
    except OSError:
        # The interface is gone; a number is a zone too.
        return f"{host}%{scope}"


def unix_path(sockaddr: str | bytes) -> str:
    """The name of a unix socket, as in `UnixEndpoint`: `@name` in the abstract namespace.

    Raises:
        ValueError: it has none that can be written.
    """
    name = os.fsdecode(sockaddr)
    if name.startswith("\0"):
        name = f"@{name[1:]}"
    elif name.startswith("@"):
        name = f"./{name}"
    if not name or "\0" in name:
        raise ValueError(f"{sockaddr!r} is not a valid unix socket name")
    return name
