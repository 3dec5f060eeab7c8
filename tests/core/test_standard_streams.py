"""Commands whose standard streams are closed, or full."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from echo_load.results.result import Result
from support.processes import CLIENT, DEADLINE, LOAD, SERVER, echoes, environment, until

COMMANDS = {"echo-server": SERVER, "echo-client": CLIENT, "echo-load": LOAD}
closed = pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1, 2)], ids=str)


def start(
    command: Sequence[str], numbers: Sequence[int], stdout: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start a command without some of its standard streams."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(),
        preexec_fn=close,
    )


def is_open(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextmanager
def server_without(numbers: Sequence[int], path: Path, *options: str) -> Iterator[None]:
    process = start([*SERVER, "--listen", f"unix://{path}", *options], numbers)
    try:
        until(lambda: process.poll() is not None or is_open(path), "the server")
        yield
        process.terminate()
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@closed
@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--admin", "127.0.0.1:0")], ids=str)
def test_a_server_works_without_standard_streams(
    tmp_path: Path, numbers: Sequence[int], options: Sequence[str]
) -> None:
    path = tmp_path / "echo.sock"
    with (
        server_without(numbers, path, "--listen", "tcp://127.0.0.1:0", *options),
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.settimeout(DEADLINE)
        connection.connect(str(path))
        assert echoes(connection)


@pytest.mark.slow
@closed
def test_a_client_and_a_load_test_work_without_standard_streams(
    tmp_path: Path, numbers: Sequence[int]
) -> None:
    path = tmp_path / "echo.sock"
    with server_without((), path):
        client = start([*CLIENT, f"unix://{path}"], numbers)
        replies, said = client.communicate(b"hello" if 0 not in numbers else None, DEADLINE)
        assert replies == (b"hello" if numbers == (2,) else b"")
        # Nothing is sent without an input, and nothing comes back.
        lost = numbers == (1,)
        assert said.decode() == (
            "echo-client: error: cannot write the output: Bad file descriptor\n" if lost else ""
        )
        assert client.returncode == lost
        output = tmp_path / "result.json"
        load = start(
            [*LOAD, "run", "-c", "2", "-n", "10", "--json", "-o", str(output), f"unix://{path}"],
            numbers,
        )
        result, said = load.communicate(timeout=DEADLINE)
        assert load.returncode == (1 in numbers), said
        assert bool(result) == (1 not in numbers)
        assert msgspec.json.decode(output.read_bytes(), type=Result).passed


@closed
def test_child_processes_have_standard_streams_too(numbers: Sequence[int]) -> None:
    """Generators, for example, do not look for themselves."""
    child = "import os; [os.fstat(number) for number in range(3)]"
    program = (
        "import subprocess, sys\n"
        "from echo_core.standard_streams import prepare\n"
        "prepare()\n"
        f"sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)\n"
    )
    process = start([sys.executable, "-c", program], numbers)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


FULL = [
    *([*command, option] for command in COMMANDS.values() for option in ("--help", "--version")),
    *([*LOAD, name, "--help"] for name in ("run", "swarm")),
    [*LOAD, "schema"],
    [*SERVER, "--port", "0", "--log-level", "error"],
    [*SERVER, "--port", "0", "--log-level", "error", "--workers", "2"],
    [*SERVER, "--port", "0", "--log-level", "error", "--admin", "127.0.0.1:0"],
]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", FULL, ids=lambda command: " ".join(command[2:]))
def test_a_failed_write_to_standard_output_is_reported_in_one_line(
    command: list[str], unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=DEADLINE,
            check=False,
            env=environment(PYTHONUNBUFFERED=unbuffered),
        )
    (line,) = result.stderr.decode().splitlines()
    assert line.endswith("error: cannot write to standard output: No space left on device")
    assert result.returncode == 1


PRINTING = [
    *([*command, option] for command in COMMANDS.values() for option in ("--help", "--version")),
    [*LOAD, "schema"],
]


@pytest.mark.parametrize("command", PRINTING, ids=lambda command: " ".join(command[2:]))
def test_requested_output_that_cannot_be_printed_is_an_error(command: list[str]) -> None:
    process = start(command, (1,))
    _, said = process.communicate(timeout=DEADLINE)
    (line,) = said.decode().splitlines()
    assert line.endswith("error: cannot write to standard output: Bad file descriptor")
    assert process.returncode == 1


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(command: Sequence[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [*command, "--no-such-option"],
            stdout=full,
            stderr=full,
            timeout=DEADLINE,
            check=False,
            env=environment(),
        )
    assert result.returncode == 2


def test_an_unbuffered_server_announces_each_listener_in_one_write() -> None:
    # Each write to such a socket is a packet of its own, so a divided line shows.
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reader, writer:
        process = subprocess.Popen(
            [*SERVER, "--port", "0"],
            stdout=writer.fileno(),
            stderr=subprocess.DEVNULL,
            env=environment(PYTHONUNBUFFERED="1"),
        )
        try:
            reader.settimeout(DEADLINE)
            line = reader.recv(4096)
        finally:
            process.kill()
            process.wait()
    assert line.startswith(b"listening tcp://127.0.0.1:")
    assert line.endswith(b"\n")
