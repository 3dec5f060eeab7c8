"""Ports for programs that cannot report the one that port 0 yields."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from itertools import count

# Below the kernel's ephemeral ports; a thousand for each process that runs tests.
_PORTS = count(20_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and that no other test is given."""
    for port in _PORTS:
        with (
            suppress(OSError),
            socket.socket() as stream,
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        ):
            stream.bind(("127.0.0.1", port))
            datagrams.bind(("127.0.0.1", port))
            return port
    raise AssertionError
