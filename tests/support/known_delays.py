"""An echo service with given delays, which reports the delays and stalls that really occurred.

It is a program of its own, with one thread, so that it shares no interpreter lock with the program
that measures it. It sleeps until shortly before an instant, and busy-waits for the rest. Where that
is permitted, it has a real-time priority, so that its delays are known on a busy machine, too. All
instants are those of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

# The kernel seldom wakes a process later than this, unless others use the processor.
_SPIN_NS = 100_000
# Longest sleep, so that the lateness of wake-ups is measured often enough.
_NAP_NS = 5_000_000
# prctl(2): how long the kernel may delay a wake-up to combine it with others; by default 50 us.
_PR_SET_TIMERSLACK = 29
_MESSAGE = 65536


@dataclass(frozen=True)
class ServiceLog:
    """The times that a service reports, in nanoseconds.

    Attributes:
        arrivals: instants at which messages were received.
        delays: delay of each reply, from when its message was received until just before it was
            sent.
        stalls: begin and end of each stall.
        wakes: lateness of each wake-up from a sleep until an instant.
    """

    arrivals: list[int]
    delays: list[int]
    stalls: list[tuple[int, int]]
    wakes: list[int]


class KnownDelays:
    """The service in a process of its own; a context manager.

    Args:
        delay: seconds from each message to its reply.
        first_delay: the same for the first message of each connection; None for `delay`.
        stall: duration in seconds of the stalls, in which the service does nothing.
        period: seconds from the beginning of one stall to that of the next.
        service: seconds for which each message occupies the only worker.
        sheds_above: messages per second above which connections are closed instead of answered; 0
            for no limit.
        starve_after: number of messages after which the first connection is no longer read; None
            for never.

    Attributes:
        target: `HOST:PORT` of the service, once entered.
    """

    def __init__(
        self,
        *,
        delay: float = 0.0,
        first_delay: float | None = None,
        stall: float = 0.0,
        period: float = 1.0,
        service: float = 0.0,
        sheds_above: float = 0.0,
        starve_after: int | None = None,
    ) -> None:
        self._command = [sys.executable, "-S", __file__, "--delay", str(delay)]
        self._command += ["--first-delay", str(delay if first_delay is None else first_delay)]
        self._command += ["--stall", str(stall), "--period", str(period)]
        self._command += ["--service", str(service), "--sheds-above", str(sheds_above)]
        if starve_after is not None:
            self._command += ["--starve-after", str(starve_after)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.target = f"127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # If `finish` was called, it has ended already.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def finish(self) -> ServiceLog:
        """End the service, and return the times that it reports."""
        # It ends when its standard input is closed.
        output, _ = self._process.communicate()
        arrivals, delays, stalls, wakes = json.loads(output)
        return ServiceLog(arrivals, delays, [(begin, end) for begin, end in stalls], wakes)


@dataclass(frozen=True)
class _Reply:
    due_ns: int
    received_ns: int
    connection: socket.socket
    message: bytes


class _Service:
    """The service in its process: one loop over one epoll set.

    The data of one receive counts as one message, which is true with one message in flight on each
    connection.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._delays_ns = (int(options.delay * 1e9), int(options.first_delay * 1e9))
        self._stall_ns = int(options.stall * 1e9)
        self._period_ns = int(options.period * 1e9)
        self._service_ns = int(options.service * 1e9)
        self._free_ns = 0
        self._sheds_above: float = options.sheds_above
        # A token bucket, which holds the messages of a tenth of a second.
        self._allowed, self._allowed_ns = self._sheds_above / 10, time.monotonic_ns()
        self._starve_after: int | None = options.starve_after
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(sys.stdin, select.EPOLLIN)
        self._connections: dict[int, socket.socket] = {}
        self._first: socket.socket | None = None
        self._messages: dict[socket.socket, int] = {}
        # A queue for each of the two delays, so that each is in the order of due times.
        self._replies: tuple[deque[_Reply], deque[_Reply]] = (deque(), deque())
        self._log = ServiceLog([], [], [], [])
        self._over = False

    def run(self) -> None:
        print(self._listener.getsockname()[1], flush=True)
        stall_ns = time.monotonic_ns() + self._period_ns if self._stall_ns else sys.maxsize
        while not self._over:
            if time.monotonic_ns() >= stall_ns:
                self._stall()
                stall_ns += self._period_ns
            self._reply()
            self._wait(min([stall_ns, *(queue[0].due_ns for queue in self._replies if queue)]))
            for descriptor, _ in self._epoll.poll(0):
                self._serve(descriptor)
        log = self._log
        print(json.dumps([log.arrivals, log.delays, log.stalls, log.wakes]))

    def _stall(self) -> None:
        begin = time.monotonic_ns()
        end = begin + self._stall_ns
        time.sleep((self._stall_ns - _SPIN_NS) / 1e9)
        while time.monotonic_ns() < end:
            pass
        self._log.stalls.append((begin, time.monotonic_ns()))

    def _wait(self, instant_ns: int) -> None:
        """Wait for an event, or until shortly before an instant."""
        now = time.monotonic_ns()
        until_ns = min(instant_ns - _SPIN_NS, now + _NAP_NS)
        if until_ns > now:
            # Not epoll_wait, whose timeouts are whole milliseconds.
            ready, _, _ = select.select([self._epoll], [], [], (until_ns - now) / 1e9)
            if not ready:
                self._log.wakes.append(time.monotonic_ns() - until_ns)

    def _serve(self, descriptor: int) -> None:
        if descriptor == self._listener.fileno():
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[connection.fileno()] = connection
            self._first = self._first or connection
            self._messages[connection] = 0
            self._epoll.register(connection, select.EPOLLIN)
            self._starve(connection)
        elif descriptor == sys.stdin.fileno():
            self._over = True
        else:
            self._receive(self._connections[descriptor])

    def _receive(self, connection: socket.socket) -> None:
        try:
            message = connection.recv(_MESSAGE)
        except OSError:
            message = b""
        now = time.monotonic_ns()
        if not message:
            # It stays open until the service ends, so that its descriptor is not used again.
            self._epoll.unregister(connection)
            return
        if self._sheds_above and self._is_overloaded(now):
            self._epoll.unregister(connection)
            connection.shutdown(socket.SHUT_RDWR)
            return
        self._log.arrivals.append(now)
        first = not self._messages[connection]
        self._messages[connection] += 1
        self._free_ns = max(now, self._free_ns) + self._service_ns
        due_ns = self._free_ns + self._delays_ns[first]
        self._replies[first].append(_Reply(due_ns, now, connection, message))
        self._starve(connection)

    def _is_overloaded(self, now: int) -> bool:
        """Return whether a message at this instant exceeds the rate; count it if it does not."""
        gained = (now - self._allowed_ns) / 1e9 * self._sheds_above
        self._allowed = min(self._sheds_above / 10, self._allowed + gained)
        self._allowed_ns = now
        if self._allowed < 1:
            return True
        self._allowed -= 1
        return False

    def _starve(self, connection: socket.socket) -> None:
        """Stop reading the first connection after its last message to be read."""
        if (connection, self._messages[connection]) == (self._first, self._starve_after):
            self._epoll.unregister(connection)

    def _reply(self) -> None:
        """Send the replies that are due."""
        for queue in self._replies:
            while queue and (now := time.monotonic_ns()) >= queue[0].due_ns:
                reply = queue.popleft()
                self._log.delays.append(now - reply.received_ns)
                try:
                    reply.connection.send(reply.message)
                except OSError:
                    continue


def _main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--delay", "--first-delay", "--stall", "--period", "--service", "--sheds-above"):
        parser.add_argument(name, type=float)
    parser.add_argument("--starve-after", type=int)
    gc.disable()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    _Service(parser.parse_args()).run()


if __name__ == "__main__":
    _main()
