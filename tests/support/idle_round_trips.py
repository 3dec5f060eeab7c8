"""What a round trip costs on this machine at this moment, apart from what it waits for.

Two programs that do nothing else exchange a byte every 10 ms: one sleeps until an instant, sends,
and waits; the other one answers at once. From the instant to the answer three sleepers are woken.
On a quiet machine that takes some 100 us, on one whose processors are lent out several times that,
and what a load test measures there takes longer by as much, whoever measures it.
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
# prctl(2): by how much the kernel may delay a wake-up to save others; 50 us if nobody says.
_PR_SET_TIMERSLACK = 29


class IdleRoundTrips:
    """Both programs, side by side with what is measured; a context manager."""

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
                for role, end in (("asks", ours), ("answers", theirs))
            ]
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # They have ended already, if they were asked.
        for process in self._processes:
            process.kill()
            process.communicate()

    def nanoseconds(self) -> list[int]:
        """End it, and say what each round trip took, from the instant at which it was due."""
        asking, answering = self._processes
        # Closes its standard input, which it watches.
        said, _ = asking.communicate()
        answering.communicate()
        found: list[int] = json.loads(said)
        return found


def _ask(end: socket.socket) -> None:
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


def _answer(end: socket.socket) -> None:
    while message := end.recv(1):
        end.send(message)


def _main() -> None:
    role, descriptor = sys.argv[1:]
    gc.disable()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with socket.socket(fileno=int(descriptor)) as end:
        (_ask if role == "asks" else _answer)(end)


if __name__ == "__main__":
    _main()
