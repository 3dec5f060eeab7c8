"""The comparison of servers and of clients: what is counted, and what an interruption leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest

from echo_core.endpoint import Endpoint, NetworkEndpoint
from echo_load.lab.comparison.clients import generators
from echo_load.lab.comparison.observation import UsageObserver
from echo_load.lab.comparison.samples import memory_per_connection
from echo_load.lab.comparison.workload import LENGTHS
from echo_load.lab.models.preforked import PROCESSES
from echo_load.lab.serving import MODULES, serving
from echo_load.lab.usage import Footprint, Probe, footprint, processes_of
from echo_load.plan.plan import Plan
from echo_load.runner.observer import Progress
from echo_load.runner.tally import Tally
from support.labs import experiment_of, is_running, outcome_of, started
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


def children_with(part: str, experiment: psutil.Process) -> list[psutil.Process]:
    """Return the children of an experiment with a part in their command lines."""
    found = []
    for child in experiment.children():
        with suppress(psutil.Error):
            if part in " ".join(child.cmdline()):
                found.append(child)
    return found


def is_connected(process: psutil.Process) -> bool:
    try:
        return bool(process.net_connections())
    except psutil.Error:
        return False


def switches_of(process: psutil.Process) -> int:
    """Return the context switches of a process so far; it makes one for a message or more."""
    return Probe([process.pid]).since(Probe([])).switches


@pytest.mark.slow
@pytest.mark.parametrize("name", ["servers", "clients"])
def test_an_interruption_keeps_the_runs_of_the_size_under_way(name: str, tmp_path: Path) -> None:
    file = tmp_path / "lab.json"
    with started(name, "-o", str(file)) as lab:
        experiment = until(lambda: experiment_of(lab), "the experiment")
        servers: set[int] = set()

        def all_of_one_run() -> bool:
            for module in MODULES.values():
                servers.update(one.pid for one in children_with(module, experiment))
            return len(servers) > len(LENGTHS)

        until(all_of_one_run, "as many servers as one run may need, and one more")
        lab.send_signal(signal.SIGINT)
        lab.communicate(timeout=60)
    assert lab.returncode == 130
    (outcome,) = json.loads(file.read_bytes())["experiments"]
    assert outcome["verdict"] == "interrupted"
    assert figures_of(outcome)["messages", "threads", 1][0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["servers", "clients"])
def test_a_run_that_could_not_be_observed_is_repeated(name: str) -> None:
    with started("--quick", "--json", name) as lab:
        experiment = until(lambda: experiment_of(lab), "the experiment")
        first, *_ = until(lambda: children_with("spawn_main", experiment), "its first generator")
        until(lambda: switches_of(first) > 1000 or not is_running(first), "messages")
        experiment.suspend()
        try:
            until(lambda: not is_connected(first), "the end of the run")
        finally:
            experiment.resume()
        outcome = outcome_of(lab)
    (cpu_seconds,) = figures_of(outcome)["CPU per echo", "threads", 1]
    assert cpu_seconds > 0


def test_a_reading_that_ends_after_the_run_does_not_count() -> None:
    length = 0.1
    lasts_until = 0.0

    def processes() -> list[int]:
        while time.monotonic() < lasts_until:
            pass
        return [os.getpid()]

    observer = UsageObserver(length, CORES, processes, "middle")
    observer.progressed(progress(0.1 * length))
    # What is read in the middle takes until after the end, and only then usage is read.
    lasts_until = time.monotonic() + length
    observer.progressed(progress(0.9 * length))
    assert (observer.footprint, observer.seconds) == (None, 0)


def progress(elapsed: float) -> Progress:
    """Return the progress of a run, some seconds after its beginning."""
    plan = Plan()
    return Progress(1, 1, "running", elapsed, Tally(plan, plan.run_stages, 1, 1))


def figures_of(outcome: dict[str, Any]) -> dict[tuple[str, str, int], list[float]]:
    """Return the values by name, variant and size."""
    return {(one["name"], one["of"], one["at"]): one["values"] for one in outcome["figures"]}
