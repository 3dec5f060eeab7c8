"""The pipe over UDP."""

from __future__ import annotations

import os
import socket
import subprocess
import threading

import pytest

from echo_client.datagram_pipe import lines_of, whole
from support.processes import (
    CLIENT,
    DEADLINE,
    EchoServerProcess,
    StartServer,
    environment,
    run,
)

SIX = b"one\ntwo\nthree\nfour\nfive\nsix\n"


@pytest.mark.parametrize("division", [(), ("--datagrams", "lines"), ("--datagrams", "input")])
@pytest.mark.parametrize("data", [b"", b"hi", b"hi\n", SIX, b"\n\nno newline at the end"])
def test_what_is_sent_comes_back(
    udp_server: EchoServerProcess, division: tuple[str, ...], data: bytes
) -> None:
    result = run([*CLIENT, *division, udp_server.url], stdin=data)
    assert (result.returncode, result.stdout, result.stderr) == (0, data, b"")


@pytest.mark.parametrize(
    ("division", "expected"),
    [("lines", [b"one\n", b"\n", b"two"]), ("input", [b"one\n\ntwo"])],
)
def test_what_is_a_datagram(division: str, expected: list[bytes]) -> None:
    received = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(DEADLINE)

        def serve() -> None:
            for _ in expected:
                data, address = service.recvfrom(65536)
                received.append(data)
                service.sendto(data, address)

        serving = threading.Thread(target=serve)
        serving.start()
        url = f"udp://127.0.0.1:{service.getsockname()[1]}"
        result = run([*CLIENT, "--datagrams", division, url], stdin=b"one\n\ntwo")
        serving.join(DEADLINE)
    assert received == expected
    assert result.returncode == 0


def test_later_lines_are_echoed_later(udp_server: EchoServerProcess) -> None:
    with subprocess.Popen(
        [*CLIENT, udp_server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for line in (b"one\n", b"two\n"):
            client.stdin.write(line)
            client.stdin.flush()
            assert client.stdout.readline() == line
        client.stdin.close()
        assert client.wait(DEADLINE) == 0


def test_the_largest_datagram(udp_server: EchoServerProcess) -> None:
    data = os.urandom(65_507)
    result = run([*CLIENT, "--datagrams", "input", udp_server.url], stdin=data)
    assert (result.returncode, result.stdout == data, result.stderr) == (0, True, b"")


@pytest.mark.parametrize("division", ["lines", "input"])
@pytest.mark.parametrize("size", [65_508, 1 << 20])
def test_input_that_no_datagram_can_hold_is_refused(
    udp_server: EchoServerProcess, division: str, size: int
) -> None:
    result = run([*CLIENT, "--datagrams", division, udp_server.url], stdin=b"x" * size)
    assert (result.returncode, result.stdout) == (2, b"")
    (line,) = result.stderr.decode().splitlines()
    assert "too large: a datagram can hold at most 65507" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "output", "said"),
    [
        ("drop@30%", b"one\nthree\nfive\nsix\n", "of 6 datagrams, 2 lost"),
        ("duplicate@30%", SIX, "of 6 datagrams, 2 late or repeated"),
        ("corrupt@30%", None, "of 6 datagrams, 2 wrong"),
    ],
)
def test_faults_are_noticed(
    start_server: StartServer, fault: str, output: bytes | None, said: str
) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0", "--fault", fault)
    result = run([*CLIENT, "--timeout", "2s", server.url], stdin=SIX)
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith(f"echo-client: error: {said}; the first failure was at datagram ")
    if output is not None:
        assert result.stdout == output
    else:
        assert len(result.stdout) == len(SIX)
        assert result.stdout != SIX


@pytest.mark.slow
def test_a_late_reply_is_not_passed_on() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(DEADLINE)

        def serve() -> None:
            first, _ = service.recvfrom(65536)
            second, address = service.recvfrom(65536)
            service.sendto(first, address)
            service.sendto(second, address)

        serving = threading.Thread(target=serve)
        serving.start()
        url = f"udp://127.0.0.1:{service.getsockname()[1]}"
        result = run([*CLIENT, "--timeout", "2s", url], stdin=b"one\ntwo\n")
        serving.join(DEADLINE)
    assert (result.returncode, result.stdout) == (1, b"two\n")
    assert b"of 2 datagrams, 1 lost, 1 late or repeated" in result.stderr


def test_a_port_without_a_listener(unused_port: int) -> None:
    result = run([*CLIENT, f"udp://127.0.0.1:{unused_port}"], stdin=SIX)
    assert (result.returncode, result.stdout) == (1, b"")
    (line,) = result.stderr.decode().splitlines()
    assert "nothing listens there" in line


def test_lines_are_found_across_reads() -> None:
    pieces = iter([b"on", b"e\ntwo\n\nth", b"ree", b""])
    assert list(lines_of(lambda _most: next(pieces))) == [b"one\n", b"two\n", b"\n", b"three"]
    pieces = iter([b"on", b"e\n", b""])
    assert list(whole(lambda _most: next(pieces))) == [b"one\n"]
