"""An echo server with a pool of processes, each of which serves one connection at a time.

While all are busy, further connections wait in the backlog.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from echo_load.lab.models.listening import echo, listen

PROCESSES = 100


def serve() -> None:
    """Fork the pool, and wait for it."""
    with listen() as listener:
        for _ in range(PROCESSES):
            if os.fork() == 0:
                serve_one_by_one(listener)
        os.wait()


def serve_one_by_one(listener: socket.socket) -> NoReturn:
    """Accept a connection, serve it to its end, and go on with the next."""
    while True:
        connection, _ = listener.accept()
        echo(connection)


if __name__ == "__main__":
    serve()
