"""An echo server with a pool of processes, each of which serves one connection at a time.

While all are busy, further connections wait in the backlog.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from echo_load.lab.models.listening import BACKLOG, announce, echo

PROCESSES = 100


def serve() -> None:
    """Fork the pool, announce the listener once all are ready to accept, and wait."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        reading, writing = os.pipe()
        for _ in range(PROCESSES):
            if os.fork() == 0:
                os.write(writing, b"r")
                serve_one_by_one(listener)
        ready = 0
        while ready < PROCESSES:
            ready += len(os.read(reading, PROCESSES))
        announce(listener)
        os.wait()


def serve_one_by_one(listener: socket.socket) -> NoReturn:
    """Accept a connection, serve it to its end, and go on with the next."""
    while True:
        connection, _ = listener.accept()
        echo(connection)


if __name__ == "__main__":
    serve()
