"""The three commands as real processes."""

from __future__ import annotations

import os
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

# What any step may take on a busy machine. Waiting ends as soon as the condition holds.
DEADLINE = 60.0

SERVER = (sys.executable, "-m", "echo_server")
CLIENT = (sys.executable, "-m", "echo_client")
LOAD = (sys.executable, "-m", "echo_load")


def environment(**settings: str) -> dict[str, str]:
    """The environment without what would change a command's defaults, plus some settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ECHO_") and name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}
    }
    return {**kept, **settings}


def run(
    arguments: Sequence[str], *, stdin: bytes = b"", **settings: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; keyword arguments are environment variables."""
    return subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(**settings),
    )


def loaded(*arguments: str) -> tuple[int, Result]:
    """Exit code and result of an `echo-load` command that comes to its end."""
    process = run([*LOAD, *arguments, "--json"])
    said = process.stderr.decode()
    assert "Traceback" not in said, said
    assert process.stdout, said
    return process.returncode, msgspec.json.decode(process.stdout, type=Result)


def one_error(*arguments: str) -> tuple[int, str]:
    """Exit code and message of an `echo-server` that must not start and say why in one line."""
    result = run([*SERVER, *arguments])
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return result.returncode, lines[0]


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds and return its value; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what}")
        os.sched_yield()
        # A pause between looks, not a wait for something to have happened.
        signal.sigtimedwait([], 0.005)
    return value


def sum_of_metric(page: str, name: str, labels: Mapping[str, str]) -> float:
    """The sum of a metric's samples that have these labels, on a page for Prometheus."""
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, name
    return sum(found)


class EchoServerProcess:
    """A running `echo-server`; ended at the end of the test."""

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
        """Read the first line, which says where the server listens."""
        self.line = self.read_line()
        assert self.line.startswith("listening "), (self.line, self.log())
        self.url = self.line.removeprefix("listening ")

    def read_line(self) -> str:
        """The next line of standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @cached_property
    def admin(self) -> str:
        """Where the admin page is, of a server that listens on one address."""
        line = self.read_line()
        assert line.startswith("admin http://"), (line, self.log())
        return line.removeprefix("admin ")

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and text of a page of the admin port."""
        request = urllib.request.Request(f"{self.admin}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum_of_metric(self.get("/metrics")[1], f"echo_server_{name}", labels)

    def wait_for_metric(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has a value: a worker counts a batch once it has served it."""
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
        """Process ids of a supervisor's workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the processes that serve stand still while the block runs."""
        pids = self.serving()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            until(partial(is_stopped, pid), "the process to stand still")
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def serving(self) -> list[int]:
        """Process ids of what serves: a supervisor's workers, or the server itself."""
        return self.workers() or [self.pid]

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection((host, self.port), timeout=DEADLINE)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, text: str) -> None:
        until(lambda: text in self.log(), f"{text!r} in the log")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(DEADLINE)

    def resident_bytes(self) -> int:
        """Memory in RAM of the processes that serve."""
        return sum(map(resident_bytes, self.serving()))

    def open_descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def close(self) -> None:
        if self.process.poll() is None:
            # With the supervisor gone its workers end by themselves.
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def resident_bytes(pid: int) -> int:
    """Memory that a process has in RAM."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Rss")


StartServer = Callable[..., EchoServerProcess]


def ended_by_signals(server: EchoServerProcess, number: signal.Signals) -> int:
    """Signal until it ends: what comes soon after the first is a repetition of it."""

    def ended() -> bool:
        if server.process.poll() is None:
            server.signal(number)
        return server.process.poll() is not None

    until(ended, "the end")
    return server.wait()


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = connection.recv(min(65536, size - len(received)))
        assert piece, f"the stream ended after {len(received)} of {size} bytes"
        received += piece
    return bytes(received)


def receive_to_end(connection: socket.socket) -> bytes:
    received = bytearray()
    while piece := connection.recv(65536):
        received += piece
    return bytes(received)


def reset(connection: socket.socket) -> None:
    """Close with a reset instead of an end of stream."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def echoes(connection: socket.socket, message: bytes = b"still there?") -> bool:
    connection.sendall(message)
    return receive_exactly(connection, len(message)) == message


def fill(connection: socket.socket) -> int:
    """Send without reading until the other end takes no more."""
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
    """A peer's path; without it the test is skipped, but not in continuous integration."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
