"""The listener of a program of this package."""

from __future__ import annotations

import socket

BACKLOG = 8192
RECEIVE_BYTES = 65_536


def listen() -> socket.socket:
    """Listen on a free port of 127.0.0.1, and say where on standard output."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    announce(listener)
    return listener


def announce(listener: socket.socket) -> None:
    """Say on standard output where a socket listens."""
    host, port = listener.getsockname()[:2]
    print(f"listening tcp://{host}:{port}", flush=True)


def echo(connection: socket.socket) -> None:
    """Send back what a connection sends until it has sent all, then close it."""
    with connection:
        try:
            while data := connection.recv(RECEIVE_BYTES):
                connection.sendall(data)
        except ConnectionError:
            # The client has gone; there is nobody left to send to.
            return
