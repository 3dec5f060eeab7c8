from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.misbehaving import Service, halves, resets, silent, wrong
from support.processes import (
    CLIENT,
    DEADLINE,
    EchoServerProcess,
    environment,
    reset,
    run,
)


@pytest.fixture
def target(echo_server: EchoServerProcess) -> str:
    return f"127.0.0.1:{echo_server.port}"


def test_a_line_is_echoed(target: str) -> None:
    result = run([*CLIENT, target], stdin=b"hi\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"hi\n", b"")


def test_the_target_can_be_given_in_three_ways(echo_server: EchoServerProcess) -> None:
    port = str(echo_server.port)
    assert run([*CLIENT, echo_server.url], stdin=b"hi").stdout == b"hi"
    assert run([*CLIENT, "--host", "127.0.0.1", "--port", port], stdin=b"hi").stdout == b"hi"
    assert run(CLIENT, stdin=b"hi", ECHO_CLIENT_PORT=port).stdout == b"hi"


def test_empty_input_gives_empty_output(target: str) -> None:
    result = run([*CLIENT, target])
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.mark.slow
def test_64_mebibytes_to_the_byte(target: str, tmp_path: Path) -> None:
    big, copy = tmp_path / "big.bin", tmp_path / "copy.bin"
    block = os.urandom(1 << 20)
    with big.open("wb") as file:
        for number in range(64):
            file.write(bytes([number]) + block[1:])
    with big.open("rb") as source, copy.open("wb") as sink:
        subprocess.run([*CLIENT, target], stdin=source, stdout=sink, check=True, timeout=DEADLINE)
    digests = []
    for path in (big, copy):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    assert digests[0] == digests[1]


def test_later_input_is_echoed_later(target: str) -> None:
    """A pipe that stays open: each part comes back before the next is written."""
    client = subprocess.Popen(
        [*CLIENT, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    assert client.stdin is not None
    assert client.stdout is not None
    for part in (b"one", "二".encode(), b"three"):
        client.stdin.write(part)
        client.stdin.flush()
        assert client.stdout.read(len(part)) == part
    client.stdin.close()
    assert client.wait(DEADLINE) == 0
    client.stdout.close()


@pytest.mark.slow
def test_waiting_for_input_does_not_time_out(target: str) -> None:
    client = subprocess.Popen(
        [*CLIENT, target, "--timeout", "1ms"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    with pytest.raises(subprocess.TimeoutExpired):
        client.wait(1)
    output, _ = client.communicate(b"", DEADLINE)
    assert (output, client.returncode) == (b"", 0)


def test_a_service_may_keep_the_connection_open() -> None:
    def keeps_open(connection: object, over: object) -> None:
        data = connection.recv(65536)  # type: ignore[attr-defined]
        connection.sendall(data)  # type: ignore[attr-defined]
        over.wait(DEADLINE)  # type: ignore[attr-defined]

    with Service(keeps_open) as service:
        result = run([*CLIENT, service.target, "--timeout", "2s"], stdin=b"hi")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"hi", b"")


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (wrong, "5 bytes were sent and 5 came back, but they differ"),
        (silent, "the server closed the connection after 0 of 5 bytes"),
        (halves, "the server closed the connection after 2 of 5 bytes"),
        (resets, "the server reset the connection"),
    ],
)
def test_a_service_that_fails_is_one_line_and_exit_1(
    behaviour: Callable[..., None], said: str
) -> None:
    with Service(behaviour) as service:
        result = run([*CLIENT, service.target], stdin=b"hello")
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("echo-client: error: ")
    assert said in line


def test_surplus_bytes_are_noticed() -> None:
    def adds_at_the_end(connection: socket.socket, _over: threading.Event) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.sendall(b"!")

    with Service(adds_at_the_end) as service:
        result = run([*CLIENT, service.target], stdin=b"hello")
    assert (result.returncode, result.stdout) == (1, b"hello!")
    assert b"5 bytes were sent and 6 came back, but they differ" in result.stderr


def test_a_reset_after_the_last_byte_is_not_an_error() -> None:
    def resets_at_the_end(connection: socket.socket, _over: threading.Event) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)
        reset(connection)

    with Service(resets_at_the_end) as service:
        result = run([*CLIENT, service.target], stdin=b"hello")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"hello", b"")


def test_a_service_that_stops_reading_is_not_waited_for() -> None:
    with Service(lambda _, over: over.wait(DEADLINE)) as service:
        result = run([*CLIENT, service.target, "--timeout", "300ms"], stdin=bytes(32 << 20))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_a_port_without_a_listener(unused_port: int) -> None:
    result = run([*CLIENT, f"127.0.0.1:{unused_port}"], stdin=b"hi")
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        f"echo-client: error: cannot connect to tcp://127.0.0.1:{unused_port}: Connection refused"
    ]


def test_a_server_that_exits_is_exit_1(echo_server: EchoServerProcess) -> None:
    client = subprocess.Popen(
        [*CLIENT, f"127.0.0.1:{echo_server.port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"hi")
    client.stdin.flush()
    assert client.stdout.read(2) == b"hi"
    echo_server.signal(signal.SIGKILL)
    # Its standard input is still open: the client must not wait for it.
    assert client.wait(DEADLINE) == 1
    assert client.stderr is not None
    assert len(client.stderr.read().splitlines()) == 1
    client.stdin.close()
    client.stdout.close()
    client.stderr.close()


def test_a_closed_output_pipe_ends_the_client(target: str) -> None:
    client = subprocess.Popen(
        [*CLIENT, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert client.stdout is not None
    client.stdout.close()
    _, errors = client.communicate(bytes(1 << 20), DEADLINE)
    assert (client.returncode, errors) == (1, b"")


def test_ctrl_c_is_exit_130(target: str) -> None:
    client = subprocess.Popen(
        [*CLIENT, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"hi")
    client.stdin.flush()
    assert client.stdout.read(2) == b"hi"
    client.send_signal(signal.SIGINT)
    assert client.wait(DEADLINE) == 130
    client.stdin.close()
    client.stdout.close()
