"""The three commands as real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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


class EchoServerProcess:
    """A running `echo-server`; ended at the end of the test."""

    def __init__(
        self,
        *options: str,
        log: Path,
        preexec: Callable[[], None] | None = None,
        stderr: int | None = None,
        **settings: str,
    ) -> None:
        self.log_path = log
        with log.open("wb") as log_file:
            self.process = subprocess.Popen(
                [*SERVER, "--port", "0", *options],
                stdout=subprocess.PIPE,
                stderr=log_file if stderr is None else stderr,
                env=environment(**settings),
                preexec_fn=preexec,
                text=True,
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().rstrip("\n")
        assert self.line.startswith("listening "), (self.line, self.log())
        self.url = self.line.removeprefix("listening ")
        self.port = int(self.url.rpartition(":")[2])
        self.pid = self.process.pid

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
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no Rss")

    def open_descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


StartServer = Callable[..., EchoServerProcess]


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
