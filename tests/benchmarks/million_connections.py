"""Measure what opening, probing and holding 10,000, 100,000 and 1,000,000 connections costs.

    python tests/benchmarks/million_connections.py [--most 1000000] [-o build/bench]

`echo-server` with a worker for every 17,500 connections, and `echo-load hold` with as few
generators as the descriptor limit allows, on all cores together. Every connection is opened, probed
with a checked message twice, and closed; a step fails if a connection or a message was lost. It
needs about 16 GB of memory for a million. Results are printed, and written to
build/bench/million.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench_results import MeasurementError, Scenario, Suite, Value, exit_with
from echo_core.limits import raise_descriptor_limit
from measuring import resident_kib

STEPS = (10_000, 100_000, 1_000_000)
PER_WORKER = 17_500
SOURCES = "127.0.1.0/24"
PROBES_PER_SECOND = 17_000
# A step that takes longer is given up.
LONGEST_SECONDS = 900.0
# What `echo-load hold` prints once all connections are open.
STAGE_BEGINS = "stage 1 of 1:"
# How many connections the kernel can track, and how many it does, if it can.
TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_max")
IN_USE = Path("/proc/sys/net/netfilter/nf_conntrack_count")


@dataclass(frozen=True)
class Step:
    """The measurements with one number of connections.

    Attributes:
        open_seconds: time until all connections were open.
        probing_seconds: time for which probes were due.
        result: what `echo-load hold` printed.
        server_kib: largest memory of the whole server.
        generator_kib: largest memory of the whole load generator.
        idle_server_kib: memory of the whole server without a connection.
    """

    open_seconds: float
    probing_seconds: int
    result: Any
    server_kib: int
    generator_kib: int
    idle_server_kib: int


def memory_kib(process: psutil.Process) -> int:
    """Return the resident memory of a process and all that it started."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += resident_kib(one.pid)
        except OSError:
            # It has ended since it was listed.
            continue
    return total


@contextmanager
def server(workers: int) -> Iterator[tuple[psutil.Process, str]]:
    """Run echo-server with a number of workers; yield its process and its URL."""
    command = [sys.executable, "-m", "echo_server", "--port", "0", "--workers", str(workers)]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert running.stdout is not None
    try:
        line = running.stdout.readline()
        if not line:
            raise MeasurementError("echo-server did not start")
        yield psutil.Process(running.pid), line.split()[-1]
    finally:
        running.terminate()
        running.wait()
        running.stdout.close()


def hold(connections: int) -> Step:
    """Open, probe twice and close a number of connections.

    Raises:
        MeasurementError: it did not end well.
    """
    cycle = max(10, round(connections / PROBES_PER_SECOND))
    with (
        server(-(-connections // PER_WORKER)) as (serving, url),
        # Not a pipe, which would be full before all progress is read.
        tempfile.TemporaryFile() as output,
    ):
        idle = memory_kib(serving)
        started = time.monotonic()
        holding = subprocess.Popen(
            [
                *(sys.executable, "-m", "echo_load", "hold", url, "-c", str(connections)),
                *("--source-ip", SOURCES, "--connect-timeout", "60s", "--timeout", "60s"),
                *("--cycle", f"{cycle}s", "-d", f"{2 * cycle}s", "--json"),
            ],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
        watchdog = threading.Timer(LONGEST_SECONDS, holding.terminate)
        watchdog.start()
        with sampling(serving, psutil.Process(holding.pid)) as samples:
            assert holding.stderr is not None
            said: list[str] = []
            opened = 0.0
            for line in holding.stderr:
                said.append(line)
                if line.startswith(STAGE_BEGINS):
                    opened = time.monotonic() - started
            holding.wait()
        watchdog.cancel()
        if holding.returncode != 0 or not opened:
            raise MeasurementError(f"{connections:,} connections: {''.join(said).strip()}")
        output.seek(0)
        result = json.load(output)
    largest = [max(column) for column in zip(*samples, strict=True)]
    return Step(opened, 2 * cycle, result, largest[0], largest[1], idle)


@contextmanager
def sampling(*processes: psutil.Process) -> Iterator[list[list[int]]]:
    """Sample the memory of processes in KiB until the block ends."""
    samples: list[list[int]] = []
    ended = threading.Event()

    def sample() -> None:
        # Looking at a hundred processes takes time that they would need.
        while not ended.wait(2):
            with suppress(psutil.NoSuchProcess):
                samples.append([memory_kib(one) for one in processes])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def scenarios(connections: int, step: Step) -> Iterator[Scenario]:
    """Yield what was measured with a number of connections."""
    latencies = step.result["latency_us"]["response"]
    probed = sum(
        one["messages"] for one in step.result["series"] if one["second"] < step.probing_seconds
    )
    for group, unit, values in (
        ("opening", "s", {"all open after": step.open_seconds}),
        (
            "memory",
            "KiB per connection",
            {
                "server": (step.server_kib - step.idle_server_kib) / connections,
                "server, with its workers": step.server_kib / connections,
                "generator, with its processes": step.generator_kib / connections,
            },
        ),
        ("total", "GiB", {"both": (step.server_kib + step.generator_kib) / 2**20}),
        ("probes", "probes/s", {"checked": probed / step.probing_seconds}),
        (
            "times",
            "ms",
            {"p50": latencies["p50"] / 1e3, "p99": latencies["p99"] / 1e3},
        ),
        (
            "processes",
            "processes",
            {
                "workers": -(-connections // PER_WORKER),
                "generators": step.result["generator"]["processes"],
            },
        ),
        ("processor", "cores", {"generators": step.result["generator"]["cpu_cores"]}),
    ):
        yield Scenario(
            group=group,
            label=f"{connections:,}",
            x=connections,
            unit=unit,
            reference=None,
            rounds={name: [Value(value)] for name, value in values.items()},
        )


def check_tracking(most: int) -> None:
    """Check that the kernel's connection tracking does not end the test.

    Raises:
        MeasurementError: it has too few entries.
    """
    if TRACKED.exists() and IN_USE.exists() and int(IN_USE.read_text()) > 0:
        limit = int(TRACKED.read_text())
        if limit < most:
            raise MeasurementError(
                f"the kernel tracks connections, at most {limit:,} of them; measure in a network "
                "namespace of its own (unshare -n sh -c 'ip link set lo up; make bench-million'), "
                f"or raise net.netfilter.nf_conntrack_max to {most:,} or more"
            )


def main() -> int:
    """Measure, write, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--most", type=int, default=STEPS[-1], help="largest step")
    parser.add_argument("-o", "--directory", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    raise_descriptor_limit()
    check_tracking(options.most)
    suite = Suite.begin("million", 1, 0, {})
    for connections in STEPS:
        if connections <= options.most:
            suite.scenarios += scenarios(connections, hold(connections))
            suite.write(options.directory)
            print(f"{suite.name}: {connections:,}", file=sys.stderr, flush=True)
    print("\n".join(suite.lines()))
    print(f"written to {options.directory / 'million.json'}")
    return suite.exit_code


if __name__ == "__main__":
    exit_with(main)
