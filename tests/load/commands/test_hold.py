"""`echo-load hold`: many connections, kept open and probed."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from echo_load.results.result import Result
from support.misbehaving import Service
from support.processes import LOAD, StartServer, loaded, run


def all_held(result: Result, connections: int) -> None:
    totals = result.totals
    assert result.command == "hold"
    assert (totals.connections_opened, totals.connections_lost, totals.errors) == (
        connections,
        0,
        {},
    )
    # Two cycles, in each of which every connection is probed once.
    assert totals.messages == 2 * connections
    assert (result.spread.least, result.spread.most, result.spread.starved) == (2, 2, 0)


@pytest.mark.slow
def test_thousands_of_connections_are_held_and_each_is_probed() -> None:
    code, result = loaded("hold", "-c", "3000", "--cycle", "1s", "--processes", "2")
    all_held(result, 3000)
    assert result.reconciliation is not None
    assert result.reconciliation.balanced
    assert result.generator.processes == 2
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["unix", "udp"])
def test_connections_over_other_transports_are_held(
    start_server: StartServer, tmp_path: Path, scheme: str
) -> None:
    where = f"unix://{tmp_path}/echo.sock" if scheme == "unix" else "udp://127.0.0.1:0"
    server = start_server("--listen", where, "--admin", "127.0.0.1:0")
    code, result = loaded(
        *("hold", server.url, "-c", "500", "--cycle", "300ms", "--reconcile", server.admin),
        *("--timeout", "10s"),
    )
    all_held(result, 500)
    # Only TCP has retransmits.
    assert result.totals.retransmits is None
    assert {stage.retransmits for stage in result.stages} == {None}
    assert result.reconciliation is not None
    assert (code, result.reconciliation.balanced) == (0, True)


def test_the_tables_and_the_verdict_are_printed(start_server: StartServer) -> None:
    server = start_server()
    result = run([*LOAD, "hold", server.url, "-c", "20", "-d", "200ms", "--cycle", "100ms"])
    assert result.returncode == 0
    assert "20 opened, 0 failed, 0 lost" in result.stdout.decode()
    assert "PASSED" in result.stdout.decode()


@pytest.mark.slow
def test_lost_connections_are_reported_and_not_reopened() -> None:
    """One in ten is closed at its first probe, and one in ten while it is idle."""
    numbers = iter(range(100))
    lock = threading.Lock()

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        with lock:
            number = next(numbers)
        while data := connection.recv(65536):
            if number % 10 == 0:
                return
            connection.sendall(data)
            if number % 10 == 1:
                return

    with Service(behave) as service:
        code, result = loaded("hold", service.target, "-c", "100", "--cycle", "300ms")
    totals = result.totals
    assert (totals.connections_opened, totals.connections_lost) == (100, 20)
    assert totals.errors.pop("closed", 0) + totals.errors.pop("reset", 0) == 20
    assert not totals.errors
    assert (code, result.passed) == (1, False)
    assert "20 connections were lost" in result.reasons[0]


@pytest.mark.slow
def test_idle_connections_that_the_server_closes_are_reported(start_server: StartServer) -> None:
    server = start_server("--idle-timeout", "200ms")
    code, result = loaded("hold", server.url, "-c", "50", "-d", "1s", "--cycle", "10s")
    totals = result.totals
    assert code == 1
    # A probe that is sent before the close arrives is answered with a reset.
    assert set(totals.errors) <= {"closed", "reset"}
    assert sum(totals.errors.values()) == totals.connections_lost
    # A connection that is probed in time stays open.
    assert 0 < totals.connections_lost <= 50
    assert totals.connections_opened == 50
