"""The three commands as processes, and helpers for connections to them."""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from echo_load.results.result import Result

# Seconds that any step may take on a busy machine. Waiting ends as soon as the condition holds.
DEADLINE = 60.0

SERVER = (sys.executable, "-m", "echo_server")
CLIENT = (sys.executable, "-m", "echo_client")
LOAD = (sys.executable, "-m", "echo_load")


def environment(**settings: str) -> dict[str, str]:
    """Return the environment without variables that change the commands, plus `settings`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ECHO_") and name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}
    }
    return {**kept, **settings}


def run(
    arguments: Sequence[str], *, stdin: bytes = b"", **settings: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end.

    Args:
        arguments: the command.
        stdin: its standard input.
        **settings: environment variables to set for it.
    """
    return subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(**settings),
    )


def loaded(*arguments: str) -> tuple[int, Result]:
    """Run an `echo-load` command to its end; return its exit code and its result."""
    process = run([*LOAD, *arguments, "--json"])
    errors = process.stderr.decode()
    assert "Traceback" not in errors, errors
    assert process.stdout, errors
    return process.returncode, msgspec.json.decode(process.stdout, type=Result)


def one_error(*arguments: str) -> tuple[int, str]:
    """Run an `echo-server` that must print one line of error; return its exit code and the line."""
    result = run([*SERVER, *arguments])
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return result.returncode, lines[0]


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds, and return its value; fail at the deadline.

    Args:
        condition: returns a true value when the wait is over; it is polled.
        what: the condition in words, for the failure.
    """
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what}")
        os.sched_yield()
        # A pause between two polls.
        signal.sigtimedwait([], 0.005)
    return value


def sum_of_metric(page: str, name: str, labels: Mapping[str, str]) -> float:
    """Return the sum of a metric's samples with these labels, on a page for Prometheus."""
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, name
    return sum(found)


class EchoServerProcess:
    """A running `echo-server`.

    Args:
        *options: its options.
        log: file to which its standard error is written.
        preexec: called in the process before the command starts.
        stderr: descriptor of its standard error; None for the log file.
        pass_fds: descriptors that it inherits.
        command: the command.
        wait: whether to wait until it listens.
        **settings: environment variables to set for it.

    Attributes:
        process: the process.
        pid: its process id.
        line: its first line of output, once it listens.
        url: URL of its first listener, once it listens.
    """

    def __init__(
        self,
        *options: str,
        log: Path,
        preexec: Callable[[], None] | None = None,
        stderr: int | None = None,
        pass_fds: Sequence[int] = (),
        command: Sequence[str] = SERVER,
        wait: bool = True,
        **settings: str,
    ) -> None:
        self.log_path = log
        with log.open("wb") as log_file:
            self.process = subprocess.Popen(
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=log_file if stderr is None else stderr,
                env=environment(**{"ECHO_SERVER_PORT": "0", **settings}),
                preexec_fn=preexec,
                pass_fds=pass_fds,
                text=True,
            )
        self.pid = self.process.pid
        if wait:
            self.wait_for_start()

    def wait_for_start(self) -> None:
        """Read the first line of output, which has the URL of a listener."""
        self.line = self.read_line()
        assert self.line.startswith("listening "), (self.line, self.log())
        self.url = self.line.removeprefix("listening ")

    def read_line(self) -> str:
        """Return the next line of standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    @property
    def port(self) -> int:
        """The port of its first listener."""
        return int(self.url.rpartition(":")[2])

    @cached_property
    def admin(self) -> str:
        """The URL of the admin page, of a server with a single listener."""
        line = self.read_line()
        assert line.startswith("admin http://"), (line, self.log())
        return line.removeprefix("admin ")

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return the status and the text of a page of the admin port."""
        request = urllib.request.Request(f"{self.admin}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels."""
        return sum_of_metric(self.get("/metrics")[1], f"echo_server_{name}", labels)

    def wait_for_metric(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has a value: a worker counts a batch only after it has echoed it."""
        seen: list[float] = []

        def has_it() -> bool:
            seen[:] = [self.metric(name, **labels)]
            return seen == [value]

        try:
            until(has_it, name)
        except AssertionError:
            assert seen == [value], (name, labels)
            raise

    def workers(self) -> list[int]:
        """Return the process ids of a supervisor's workers, in the order of their start.

        Their numbers need not be in that order: the system begins again with low ones.
        """
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the processes that serve connections for the duration of the block (SIGSTOP)."""
        pids = self.serving()
        stop(*pids)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def serving(self) -> list[int]:
        """Return the ids of the processes that serve: a supervisor's workers, or the server."""
        return self.workers() or [self.pid]

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        """Open a connection to its first listener."""
        return socket.create_connection((host, self.port), timeout=DEADLINE)

    def refuses(self) -> bool:
        """Return whether it refuses connections, in general because it drains."""
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            # The listener was closed while the connection waited to be accepted.
            return False
        return False

    def log(self) -> str:
        """Return the log so far."""
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, text: str) -> None:
        """Wait until the log contains a text."""
        until(lambda: text in self.log(), f"{text!r} in the log")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        return self.process.wait(DEADLINE)

    def resident_bytes(self) -> int:
        """Return the resident memory of the processes that serve, in bytes."""
        return sum(map(resident_bytes, self.serving()))

    def open_descriptors(self) -> int:
        """Return the number of open descriptors of the process."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def close(self) -> None:
        """Kill the process if it is still running."""
        if self.process.poll() is None:
            # Workers end when their supervisor has ended.
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def stop(*pids: int) -> None:
    """Stop processes by a signal, and return when they have stopped."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        until(partial(is_stopped, pid), "the process to be stopped")


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by a signal (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Rss")


StartServer = Callable[..., EchoServerProcess]


def ended_by_signals(server: EchoServerProcess, number: signal.Signals) -> int:
    """Send a signal until a server ends, and return its exit code.

    A server ignores a signal shortly after the first one as a repetition of it.
    """

    def ended() -> bool:
        if server.process.poll() is None:
            server.signal(number)
        return server.process.poll() is not None

    until(ended, "the end")
    return server.wait()


def descriptor_limit(soft: int, hard: int | None = None) -> Callable[[], None]:
    """Return a `preexec` that limits the open descriptors of a process.

    Args:
        soft: the soft limit.
        hard: the hard limit; None for the same.
    """
    limits = (soft, soft if hard is None else hard)
    return partial(resource.setrlimit, resource.RLIMIT_NOFILE, limits)


def established(port: int) -> list[str]:
    """Return the connections of this machine that are established to a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [line[1] for line in lines if line[2].endswith(f":{port:04X}") and line[3] == "01"]


def accepts(port: int) -> bool:
    """Return whether a listener accepts a connection on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process."""
    os.kill(pid, number)


def until_replaced(server: EchoServerProcess, old: set[int]) -> None:
    """Wait until none of a server's workers is one of the old."""
    until(lambda: not old & set(server.workers()), "new workers and the end of the old")


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Receive `size` bytes; fail if the stream ends before."""
    received = bytearray()
    while len(received) < size:
        piece = connection.recv(min(65536, size - len(received)))
        assert piece, f"the stream ended after {len(received)} of {size} bytes"
        received += piece
    return bytes(received)


def receive_to_end(connection: socket.socket) -> bytes:
    """Receive all bytes up to the end of the stream."""
    received = bytearray()
    while piece := connection.recv(65536):
        received += piece
    return bytes(received)


def reset(connection: socket.socket) -> None:
    """Close a connection with a reset instead of an end of the stream."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def echoes(connection: socket.socket, message: bytes = b"still there?") -> bool:
    """Send a message, and return whether the reply is the same."""
    connection.sendall(message)
    return receive_exactly(connection, len(message)) == message


def fill(connection: socket.socket) -> int:
    """Send without receiving until the buffers of both ends are full; return the bytes sent."""
    connection.setblocking(False)
    sent = 0
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    while poll.poll(100):
        try:
            sent += connection.send(b"x" * 65536)
        except BlockingIOError:
            continue
    return sent


def program(name: str) -> str:
    """Return the path of a program; skip the test without it, or fail in continuous integration."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
