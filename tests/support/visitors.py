"""Clients that come and go all the time, and count what they saw."""

from __future__ import annotations

import socket
import threading
import time
from typing import Self

from support.processes import DEADLINE, receive_exactly, until


class Visitors:
    """Threads that connect, echo, see the end of the stream and connect anew; all is counted."""

    def __init__(self, port: int, threads: int, per_second: int) -> None:
        self.visits = 0
        self.failures: list[str] = []
        self._port = port
        self._interval = threads / per_second
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(number,)) for number in range(threads)
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
        enough = self.visits + 100
        until(lambda: self.visits > enough, "more visits")

    def _visit(self, number: int) -> None:
        turn = 0
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += self._interval
            turn += 1
            # Many source addresses: closed connections keep their ports for a while.
            source = f"127.0.{1 + number}.{1 + turn % 250}"
            try:
                with socket.create_connection(
                    ("127.0.0.1", self._port), DEADLINE, (source, 0)
                ) as connection:
                    connection.sendall(b"a visit")
                    connection.shutdown(socket.SHUT_WR)
                    assert receive_exactly(connection, 7) == b"a visit"
                    assert connection.recv(1) == b""
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            else:
                self.visits += 1
