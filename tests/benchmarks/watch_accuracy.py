"""Measures how exactly `echo-load watch` finds the begin and the end of outages that it is told of.

    python tests/benchmarks/watch_accuracy.py [--rounds 5]

A server is killed and started again, stopped (SIGSTOP) and continued, or cut off by a firewall rule
(in a network namespace, which needs root); the begin and the end of the outage found are compared
with the instants at which that was done. A rolling restart (SIGHUP) must have no outage. A round
takes about 40 seconds. It uses helpers of the tests: run it with PYTHONPATH=tests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench_results import FAILED, MeasurementError, exit_with
from support.namespaces import inside, network_namespace
from support.processes import LOAD, SERVER, EchoServerProcess, environment, until

# The errors of a begin and of an end are to be smaller, in seconds.
CLOSE = 0.1
# Time before the fault, after it, and of the fault itself, in seconds.
BEFORE, AFTER, FAULT = 2.0, 3.0, 2.0


class Outage(NamedTuple):
    """The time of an outage.

    Attributes:
        begin: when it began, in seconds of the clock.
        end: when it ended.
    """

    begin: float
    end: float


class Watching:
    """A running `echo-load watch` with its default options.

    Args:
        target: URL of the target.
        prefix: prefix of its command.
    """

    def __init__(self, target: str, prefix: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*prefix, *LOAD, "watch", target, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert self._process.stderr is not None
        if not self._process.stderr.readline().startswith(b"watching"):
            raise MeasurementError("the watch did not start")
        # Faults are to begin at any time between two probes.
        time.sleep(BEFORE + random.random() / 10)

    def outages(self) -> list[Outage]:
        """End the watch some seconds after now, and return the outages that it found."""
        time.sleep(AFTER)
        self._process.send_signal(signal.SIGINT)
        output, errors = self._process.communicate()
        if not output:
            raise MeasurementError(errors.decode().strip())
        found: dict[str, Any] = json.loads(output)["watch"]
        begins = [datetime.fromisoformat(one["started_at"]).timestamp() for one in found["outages"]]
        return [
            Outage(begin, begin + one["seconds"])
            for begin, one in zip(begins, found["outages"], strict=True)
        ]


def killed(stack: ExitStack, directory: Path) -> tuple[Outage, list[Outage]]:
    """Return the outage of a server that was killed and started again, and those found."""
    server = EchoServerProcess(log=directory / "first")
    stack.callback(server.close)
    watching = Watching(server.url)
    begin = time.time()
    server.process.kill()
    time.sleep(FAULT)
    again = EchoServerProcess("--port", str(server.port), log=directory / "second")
    stack.callback(again.close)
    return Outage(begin, time.time()), watching.outages()


def stopped(stack: ExitStack, directory: Path) -> tuple[Outage, list[Outage]]:
    """Return the outage of a server that was stopped for a while, and those found."""
    server = EchoServerProcess(log=directory / "log")
    stack.callback(server.close)
    watching = Watching(server.url)
    with server.paused():
        begin = time.time()
        time.sleep(FAULT)
    return Outage(begin, time.time()), watching.outages()


def blocked(stack: ExitStack, directory: Path) -> tuple[Outage, list[Outage]]:
    """Return the outage of a path that was cut off for a while, and those found."""
    prefix = inside(stack.enter_context(network_namespace("accuracy")))
    server = EchoServerProcess(log=directory / "log", command=(*prefix, *SERVER))
    stack.callback(server.close)
    watching = Watching(server.url, prefix)
    rule = ("INPUT", "-p", "tcp", "--dport", str(server.port), "-j", "DROP")
    subprocess.run([*prefix, "iptables", "-A", *rule], check=True)
    begin = time.time()
    time.sleep(FAULT)
    subprocess.run([*prefix, "iptables", "-D", *rule], check=True)
    return Outage(begin, time.time()), watching.outages()


def rolled(stack: ExitStack, directory: Path) -> list[Outage]:
    """Return the outages found in a rolling restart, which has none."""
    server = EchoServerProcess("--workers", "2", log=directory / "log")
    stack.callback(server.close)
    old = set(server.workers())
    watching = Watching(server.url)
    server.signal(signal.SIGHUP)
    until(lambda: len(now := set(server.workers())) == 2 and not now & old, "new workers")
    return watching.outages()


def measure(
    name: str, fault: Callable[[ExitStack, Path], tuple[Outage, list[Outage]]]
) -> list[float]:
    """Return how far the begin and the end are from the truth, in seconds, and print it.

    An outage that was not found, or found as several, is infinitely far from it.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        truth, found = fault(stack, directory)
    if len(found) != 1:
        print(f"{name}: {len(found)} outages were found instead of one", flush=True)
        return [float("inf")]
    errors = [found[0].begin - truth.begin, found[0].end - truth.end]
    begin, end = (f"{one * 1e3:+.0f} ms" for one in errors)
    print(f"{name}: begin {begin}, end {end} from the truth", flush=True)
    return [abs(one) for one in errors]


def main() -> int:
    """Measure, print, and return 1 if an outage is off by 100 ms, or a restart has one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    faults = {"killed": killed, "stopped": stopped, "blocked": blocked}
    if os.geteuid() != 0:
        print("blocked: left out, it needs root")
        del faults["blocked"]
    off = 0
    for name, fault in faults.items():
        errors = [error for _ in range(rounds) for error in measure(name, fault)]
        off += sum(error > CLOSE for error in errors)
        print(f"{name}: at most {max(errors) * 1e3:.0f} ms from the truth in {rounds} rounds")
    for _ in range(rounds):
        with ExitStack() as stack:
            found = rolled(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        print(f"rolling restart: {len(found)} outages", flush=True)
        off += len(found)
    return FAILED if off else 0


if __name__ == "__main__":
    exit_with(main)
