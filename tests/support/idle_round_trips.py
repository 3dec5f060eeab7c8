"""The time that this machine needs for a minimal round trip, as a baseline for measurements.

Two programs exchange a byte every 10 ms: one sleeps until an instant, sends, and waits; the other
one answers at once. From the instant to the answer the kernel wakes three sleeping processes. On an
idle machine that takes about 100 us, on one that shares its processors several times that; any
measurement of response times includes as much.
"""

from __future__ import annotations

import ctypes
import gc
import json
import select
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

_PERIOD_NS = 10_000_000
# prctl(2): how long the kernel may delay a wake-up to combine it with others; by default 50 us.
_PR_SET_TIMERSLACK = 29


class IdleRoundTrips:
    """Both programs, which run during another measurement; a context manager."""

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._processes = [
                subprocess.Popen(
                    [sys.executable, "-S", __file__, role, str(end.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    pass_fds=[end.fileno()],
                )
                for role, end in (("client", ours), ("server", theirs))
            ]
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # If `nanoseconds` was called, they have ended already.
        for process in self._processes:
            process.kill()
            process.communicate()

    def nanoseconds(self) -> list[int]:
        """End both programs, and return the duration of each round trip from when it was due."""
        client, server = self._processes
        # The client ends when its standard input is closed.
        output, _ = client.communicate()
        server.communicate()
        found: list[int] = json.loads(output)
        return found


def _run_client(end: socket.socket) -> None:
    taken = []
    due = time.monotonic_ns() + _PERIOD_NS
    while True:
        over, _, _ = select.select([sys.stdin], [], [], max(0, due - time.monotonic_ns()) / 1e9)
        if over:
            break
        end.send(b"?")
        if not end.recv(1):
            break
        taken.append(time.monotonic_ns() - due)
        due = max(due + _PERIOD_NS, time.monotonic_ns())
    print(json.dumps(taken))


def _run_server(end: socket.socket) -> None:
    while message := end.recv(1):
        end.send(message)


def _main() -> None:
    role, descriptor = sys.argv[1:]
    gc.disable()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with socket.socket(fileno=int(descriptor)) as end:
        (_run_client if role == "client" else _run_server)(end)


if __name__ == "__main__":
    _main()
