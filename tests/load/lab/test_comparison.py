"""The comparison of servers and of clients: what is counted, and what an interruption leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest

from echo_core.endpoint import Endpoint, NetworkEndpoint
from echo_load.lab.comparison.clients import generators
from echo_load.lab.comparison.samples import memory_per_connection
from echo_load.lab.models.preforked import PROCESSES
from echo_load.lab.serving import MODULES, serving
from echo_load.lab.usage import Footprint, footprint, processes_of
from support.labs import experiment_of, started
from support.processes import receive_exactly, until

CORES = frozenset(os.sched_getaffinity(0))


def test_only_generators_are_counted() -> None:
    """A tracker as the third of two processes made a connection of `threads x 2` seem larger."""
    resource_tracker.ensure_running()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    generator = context.Process(target=theirs.__class__.recv, args=(theirs,))
    generator.start()
    try:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
            assert generators() == [generator.pid]
            server.communicate(b"\n")
    finally:
        ours.send("end")
        generator.join()


def test_an_idle_pool_is_counted_with_all_its_processes() -> None:
    with serving("prefork", CORES) as (_, pid):
        processes = processes_of(pid)
        idle = footprint(processes)
        alone = footprint([pid])
    assert idle.processes == len(processes) == PROCESSES + 1
    # Each of them has pages of its own.
    assert idle.memory > 2 * alone.memory
    assert idle.sockets == alone.sockets == 1


@pytest.mark.parametrize(
    ("model", "count"), [("threads", 30), ("fork", 30), ("prefork", 30), ("greenlets", 30)]
)
def test_a_server_holds_the_connections_that_it_has_accepted(model: str, count: int) -> None:
    with serving(model, CORES) as (target, pid):
        endpoint = Endpoint.parse(target)
        assert isinstance(endpoint, NetworkEndpoint)
        idle = footprint(processes_of(pid))
        connections = [
            socket.create_connection((endpoint.host, endpoint.port), timeout=20)
            for _ in range(count)
        ]
        for connection in connections:
            connection.sendall(b"x")
            assert receive_exactly(connection, 1) == b"x"
        expected = (idle.sockets + count, idle.processes + (count if model == "fork" else 0))
        until(lambda: footprint(processes_of(pid))[1:] == expected, "all of them")
        for connection in connections:
            connection.close()
        until(lambda: footprint(processes_of(pid)).sockets == idle.sockets, "the end of all")


def test_of_many_processes_some_stand_for_all() -> None:
    with serving("fork", CORES) as (target, pid):
        endpoint = Endpoint.parse(target)
        assert isinstance(endpoint, NetworkEndpoint)
        count = 250
        connections = [
            socket.create_connection((endpoint.host, endpoint.port), timeout=20)
            for _ in range(count)
        ]
        for connection in connections:
            connection.sendall(b"x")
            assert receive_exactly(connection, 1) == b"x"
        # The server may not have closed its copy of the last connection yet.
        until(lambda: footprint(processes_of(pid))[1:] == (1 + count, 1 + count), "all of them")
        for connection in connections:
            connection.close()


def test_memory_is_divided_by_the_connections_held() -> None:
    assert memory_per_connection(Footprint(9000, 101, 101), Footprint(4000, 1, 1)) == 50
    assert memory_per_connection(Footprint(3000, 101, 101), Footprint(4000, 1, 1)) == 0
    assert memory_per_connection(Footprint(9000, 1, 101), Footprint(4000, 1, 1)) is None


def test_an_idle_footprint_is_that_of_as_many_processes() -> None:
    assert Footprint(4000, 3, 1).scaled(2) == Footprint(8000, 6, 2)
    assert Footprint(4000, 3, 2).scaled(2) == Footprint(4000, 3, 2)


def is_server(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any(module in process.cmdline() for module in MODULES.values())
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", ["servers", "clients"])
def test_an_interruption_keeps_the_runs_of_the_size_under_way(name: str, tmp_path: Path) -> None:
    file = tmp_path / "lab.json"
    with started(name, "-o", str(file)) as lab:
        experiment = until(lambda: experiment_of(lab), "the experiment")
        servers: set[int] = set()

        def second_server() -> bool:
            servers.update(one.pid for one in experiment.children() if is_server(one))
            return len(servers) > 1

        until(second_server, "the server of the second variant")
        lab.send_signal(signal.SIGINT)
        lab.communicate(timeout=60)
    assert lab.returncode == 130
    (outcome,) = json.loads(file.read_bytes())["experiments"]
    assert outcome["verdict"] == "interrupted"
    kept = {(one["name"], one["of"], one["at"]): one["values"] for one in outcome["figures"]}
    assert len(kept["messages", "threads", 1]) == 1
    assert kept["messages", "threads", 1][0] > 0
