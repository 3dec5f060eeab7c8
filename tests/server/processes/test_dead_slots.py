"""Slots whose worker is down: who serves their listeners meanwhile."""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from support.processes import (
    DEADLINE,
    EchoServerProcess,
    StartServer,
    descriptor_limit,
    echoes,
    kill,
    receive_exactly,
    stop,
    until,
    until_replaced,
)
from support.short_lived_clients import ShortLivedClients

ADMIN = ("--admin", "127.0.0.1:0")
# Connections, or senders of datagrams: all of them at one of two listeners would be a wonder.
MANY = 40
DESCRIPTORS = 64


def start_with_config(
    start_server: StartServer, file: Path, *options: str, **settings: Any
) -> EchoServerProcess:
    """Start two workers that read a file when they start."""
    file.write_text("")
    return start_server("--config", str(file), *options, **settings)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def assert_all_are_served(server: EchoServerProcess) -> None:
    """Open enough connections for each listener to get some."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(MANY)]
        assert all(map(echoes, connections))


def assert_all_datagrams_are_served(port: int) -> None:
    with ExitStack() as stack:
        for number in range(MANY):
            sender = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            sender.settimeout(DEADLINE)
            sender.sendto(b"%d" % number, ("127.0.0.1", port))
            assert sender.recv(100) == b"%d" % number


def until_down(server: EchoServerProcess, count: int) -> None:
    """Wait until `count` of several workers are down, and others serve their listeners."""
    state = f"workers {'is' if count == 1 else 'are'} down\n"

    def are_down() -> bool:
        status, page = server.get("/readyz")
        return status == 200 and page.startswith(f"ready, but {count} of ") and state in page

    until(are_down, f"{count} workers to be down")


def test_a_worker_that_cannot_be_replaced_continues(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    server = start_with_config(start_server, file, "--workers", "2")
    old = set(server.workers())
    file.write_text("nonsense = 1\n")
    kill(server.workers()[0], signal.SIGTERM)
    server.wait_for_log("restart given up")
    assert set(server.workers()) == old
    assert_all_are_served(server)


@pytest.mark.slow
def test_commands_wait_for_a_starting_worker(start_server: StartServer, tmp_path: Path) -> None:
    """A signal that comes before a worker can handle it is not its death."""
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    server = start_server("--workers", "2", "--config", str(pipe), wait=False)
    pipe.write_text("")
    until(lambda: len(server.workers()) == 2, "two workers")
    starting = server.workers()
    for pid in starting:
        kill(pid, signal.SIGTERM)
        kill(pid, signal.SIGHUP)

    def replaced() -> bool:
        with suppress(OSError):
            # Let those go on that wait for the file.
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return not set(starting) & set(server.workers())

    until(replaced, "the replacements that they ask for")
    server.wait_for_start()
    assert "worker died" not in server.log()
    assert_all_are_served(server)


@pytest.mark.slow
def test_a_dead_slot_is_served_by_another_worker(start_server: StartServer, tmp_path: Path) -> None:
    """While its worker cannot start: TCP, UDP, and what waits in its queue."""
    file = tmp_path / "server.toml"
    server = start_with_config(
        start_server,
        file,
        "--workers",
        "2",
        "--listen",
        "tcp://127.0.0.1:0",
        "--listen",
        "udp://127.0.0.1:0",
        *ADMIN,
    )
    datagrams = int(server.read_line().rpartition(":")[2])
    first, second = server.workers()
    before = descriptors(second)
    with ExitStack() as stack:
        file.write_text("nonsense = 1\n")
        stop(first)
        waiting = [stack.enter_context(server.connect()) for _ in range(MANY)]
        kill(first, signal.SIGKILL)
        assert all(map(echoes, waiting))
        assert server.get("/readyz") == (200, "ready, but 1 of 2 workers is down\n")
        assert server.metric("worker_up", worker="0") == 0
        assert server.metric("worker_up", worker="1") == 1
        assert_all_are_served(server)
        assert_all_datagrams_are_served(datagrams)
        until(lambda: descriptors(second) == before + 2 + len(waiting), "the others to be closed")
        file.write_text("")
        server.signal(signal.SIGHUP)
        until(lambda: server.get("/readyz") == (200, "ready\n"), "both workers")
        # Not those of the slot that has a worker again.
        assert all(map(echoes, waiting))
    server.wait_for_log("workers restarted")
    assert server.metric("worker_up") == 2
    assert_all_are_served(server)
    assert_all_datagrams_are_served(datagrams)


def test_a_substitute_releases_the_listeners_of_other_slots(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    server = start_with_config(
        start_server,
        file,
        "--workers",
        "2",
        "--listen",
        "tcp://127.0.0.1:0",
        "--listen",
        "udp://127.0.0.1:0",
        *ADMIN,
    )
    datagrams = int(server.read_line().rpartition(":")[2])
    first, second = server.workers()
    before = descriptors(second)
    file.write_text("nonsense = 1\n")
    kill(first, signal.SIGKILL)
    until(lambda: descriptors(second) == before + 2, "a substitute")
    file.write_text("")
    # Its turn comes by itself.
    until(lambda: descriptors(second) == before, "the substitute to be relieved")
    assert second in server.workers()
    assert server.get("/readyz") == (200, "ready\n")
    stop(second)
    served = 0
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(MANY)]
        for connection in connections:
            connection.sendall(b"?")
        served = len(select.select(connections, [], [], DEADLINE)[0])
        kill(second, signal.SIGCONT)
        assert all(receive_exactly(connection, 1) == b"?" for connection in connections)
    assert served > 0
    assert_all_datagrams_are_served(datagrams)


@pytest.mark.slow
def test_a_substitute_that_dies_or_is_replaced(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    server = start_with_config(start_server, file, "--workers", "3", *ADMIN)
    workers = server.workers()
    file.write_text("nonsense = 1\n")
    for down, pid in enumerate(workers[:2], 1):
        kill(pid, signal.SIGKILL)
        until_down(server, down)
        assert_all_are_served(server)
    file.write_text("")
    with ShortLivedClients(server.port, threads=4, per_second=500) as clients:
        server.signal(signal.SIGHUP)
        until(lambda: server.get("/readyz") == (200, "ready\n"), "all workers")
        until_replaced(server, set(workers))
        clients.wait_for_more()
    assert clients.failures == []
    assert server.metric("worker_up") == 3


@pytest.mark.slow
def test_a_substitute_without_descriptors(start_server: StartServer, tmp_path: Path) -> None:
    """The server says so, is not ready, and takes over as soon as it can."""
    file = tmp_path / "server.toml"
    server = start_with_config(
        start_server, file, "--workers", "2", *ADMIN, preexec=descriptor_limit(DESCRIPTORS)
    )
    first, second = server.workers()
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(server.connect())
        until(lambda: descriptors(second) == DESCRIPTORS, "no descriptor to be left")
        file.write_text("nonsense = 1\n")
        kill(first, signal.SIGKILL)
        until(lambda: server.get("/readyz") == (503, "1 of 2 workers is down\n"), "the bad news")
    until(lambda: server.get("/readyz")[0] == 200, "a substitute")
    assert_all_are_served(server)


def test_the_server_is_not_ready_without_a_worker(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    server = start_with_config(start_server, file, "--workers", "1", *ADMIN)
    file.write_text("nonsense = 1\n")
    kill(server.workers()[0], signal.SIGKILL)
    until(lambda: server.get("/readyz") == (503, "1 of 1 workers is down\n"), "the bad news")
    file.write_text("")
    until(lambda: server.get("/readyz") == (200, "ready\n"), "the worker")
    assert_all_are_served(server)
