"""The access log's line for each connection that has ended, whatever ended it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.certificates import make_certificates
from support.processes import (
    EchoServerProcess,
    StartServer,
    echoes,
    fill,
    receive_to_end,
    reset,
    until,
)

OPTIONS = ("--access-log", "--admin", "127.0.0.1:0")


def lines(server: EchoServerProcess) -> list[dict[str, Any]]:
    logged = [line for line in server.log().splitlines() if '"event": "connection"' in line]
    return [json.loads(line) for line in logged]


def only_line(server: EchoServerProcess) -> dict[str, Any]:
    until(lambda: lines(server), "a line in the access log")
    (line,) = lines(server)
    return line


def check_bytes(server: EchoServerProcess, line: dict[str, Any]) -> None:
    """The line of the only connection has what the server counted in all."""
    server.wait_for_metric("received_bytes_total", line["received_bytes"])
    server.wait_for_metric("sent_bytes_total", line["sent_bytes"])


@pytest.mark.parametrize("fault", ["truncate", "reset", "close"])
def test_a_fault_that_holds_bytes_back(start_server: StartServer, fault: str) -> None:
    server = start_server(*OPTIONS, "--fault", fault)
    with server.connect() as connection:
        connection.sendall(bytes(1000))
        received = b""
        with suppress(ConnectionResetError):
            received = receive_to_end(connection)
    line = only_line(server)
    assert line["received_bytes"] == 1000
    assert line["sent_bytes"] == len(received)
    assert (len(received) > 0) == (fault == "truncate")
    assert line["reason"] == "fault_injected"
    check_bytes(server, line)


def test_a_reset_during_a_delay(start_server: StartServer) -> None:
    server = start_server(*OPTIONS, "--fault", "delay=1h")
    connection = server.connect()
    connection.sendall(bytes(1000))
    server.wait_for_metric("received_bytes_total", 1000)
    reset(connection)
    line = only_line(server)
    assert (line["received_bytes"], line["sent_bytes"], line["reason"]) == (1000, 0, "reset")
    check_bytes(server, line)


@pytest.mark.parametrize("options", [(), ("--fault", "corrupt@0%")])
def test_a_reset_with_unsent_bytes(start_server: StartServer, options: tuple[str, ...]) -> None:
    server = start_server(*OPTIONS, *options)
    connection = server.connect()
    fill(connection)
    reset(connection)
    line = only_line(server)
    assert 0 < line["received_bytes"] - line["sent_bytes"] <= 256 * 1024
    assert line["reason"] == "reset"
    check_bytes(server, line)


@pytest.mark.slow
def test_connections_that_end_before_the_echo(start_server: StartServer, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    server = start_server(
        *OPTIONS, "--listen", "tls://127.0.0.1:0", *certificates.options, "--proxy-protocol",
        "--handshake-timeout", "4s", "--max-connections-per-ip", "1",
    )  # fmt: skip
    context = certificates.client_context()
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 7\r\n"
    with server.connect() as plain:
        plain.sendall(header)
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            assert echoes(connection)
            with server.connect() as beyond:
                beyond.sendall(header)
                with suppress(OSError), context.wrap_socket(beyond, server_hostname="localhost"):
                    receive_to_end(beyond)
            with server.connect() as no_header:
                no_header.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with server.connect() as no_tls:
                no_tls.sendall(header + os.urandom(100))
                with suppress(ConnectionResetError):
                    receive_to_end(no_tls)
            with server.connect() as silent:
                assert silent.recv(1) == b""
            until(lambda: len(lines(server)) == 4, "four lines")
    until(lambda: len(lines(server)) == 5, "a line each")
    reasons = sorted(line["reason"] for line in lines(server))
    assert reasons == [
        "end_of_stream", "handshake_timed_out", "proxy_header_invalid", "rejected", "tls_failed",
    ]  # fmt: skip
    for line in lines(server):
        echoed = line["reason"] == "end_of_stream"
        assert line["received_bytes"] == line["sent_bytes"] == (12 if echoed else 0)
        assert line["seconds"] > 0
    server.wait_for_metric("connections_accepted_total", 5)
    server.wait_for_metric("connections_closed_total", 5)
