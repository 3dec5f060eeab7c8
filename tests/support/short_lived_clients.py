"""Clients that open short-lived connections at a steady rate."""

from __future__ import annotations

import socket
import threading
import time
from typing import Self

from support.processes import DEADLINE, receive_exactly, until


class ShortLivedClients:
    """Threads that connect, exchange a message, and close, again and again; a context manager.

    Args:
        port: port to connect to.
        threads: number of threads.
        per_second: connections per second of all threads together.

    Attributes:
        connections: number of connections that succeeded, up to the end of the stream.
        failures: descriptions of those that failed.
    """

    def __init__(self, port: int, threads: int, per_second: int) -> None:
        self.connections = 0
        self.failures: list[str] = []
        self._port = port
        self._interval = threads / per_second
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def wait_for_more(self) -> None:
        """Wait for another 100 connections."""
        enough = self.connections + 100
        until(lambda: self.connections > enough, "more connections")

    def _run(self, number: int) -> None:
        turn = 0
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += self._interval
            turn += 1
            # Many source addresses, because closed connections keep their ports for a while.
            source = f"127.0.{1 + number}.{1 + turn % 250}"
            try:
                with socket.create_connection(
                    ("127.0.0.1", self._port), DEADLINE, (source, 0)
                ) as connection:
                    connection.sendall(b"message")
                    connection.shutdown(socket.SHUT_WR)
                    assert receive_exactly(connection, 7) == b"message"
                    assert connection.recv(1) == b""
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            else:
                self.connections += 1
