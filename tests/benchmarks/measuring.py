"""Helpers of the benchmarks: processes pinned to cores, their figures, and ratios with a spread.

The target runs alone on core 0, the generator on core 1. Rounds are interleaved: in each, all
candidates are measured one after the other, because the speed of a shared machine changes. Every
figure is divided by that of the reference in the same round. Quote the median of these ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_results import MeasurementError

PEERS = Path(__file__).parent / "peers"
SERVER_CORE, GENERATOR_CORE = 0, 1
WARMUP_SECONDS = 0.3
# Time after which a program is killed.
LONGEST_SECONDS = 60.0
# The directory of compiled peers.
BUILD = "peers"


@dataclass(frozen=True)
class Options:
    """The options of a suite.

    Attributes:
        rounds: number of interleaved rounds.
        seconds: measured seconds of each candidate in each round.
        directory: directory of the results.
        groups: groups of scenarios to measure; all if empty.
    """

    rounds: int
    seconds: float
    directory: Path
    groups: frozenset[str]

    def wants(self, group: str) -> bool:
        """Return whether to measure a group."""
        return not self.groups or group in self.groups


def read_options(description: str | None, groups: Sequence[str]) -> Options:
    """Parse the options of a suite.

    Args:
        description: docstring whose first line is the help text.
        groups: names of the groups of scenarios.
    """
    parser = option_parser(description)
    parser.add_argument("--quick", action="store_true", help="one short round, to try it")
    parser.add_argument("-o", "--directory", type=Path, default=Path("build/bench"))
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(groups))
    parsed = parser.parse_args()
    if unknown := set(parsed.groups) - set(groups):
        parser.error(f"no group {min(unknown)!r}; there are {', '.join(groups)}")
    return Options(
        rounds=1 if parsed.quick else parsed.rounds,
        seconds=0.4 if parsed.quick else parsed.seconds,
        directory=parsed.directory,
        groups=frozenset(parsed.groups),
    )


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have.

    Args:
        description: docstring whose first line is the help text.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8)
    return parser


def compile_peer(name: str, directory: Path, *libraries: str) -> str:
    """Compile a peer written in C, and return its path."""
    program = directory / BUILD / name
    program.parent.mkdir(exist_ok=True)
    source = PEERS / f"{name}.c"
    subprocess.run(["cc", "-O2", "-o", str(program), str(source), *libraries], check=True)
    return str(program)


@contextmanager
def listening(command: list[str]) -> Iterator[tuple[int, int]]:
    """Run a server on its core for the duration of the block; yield its process id and its port."""
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        if not line:
            raise MeasurementError(f"{command[0]} did not start")
        yield server.pid, int(line.rpartition(":")[2])
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def generator(command: list[str]) -> subprocess.Popen[str]:
    """Start a generator on its core."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {GENERATOR_CORE}),
    )


def generated(command: list[str]) -> Any:
    """Run a generator on its core to its end; return the JSON that it printed.

    Raises:
        MeasurementError: it failed, or did not end.
    """
    return measured(command, lambda: 0.0)[0]


def measured(command: list[str], cpu: Callable[[], float]) -> tuple[Any, float]:
    """Run a generator on its core to its end.

    Args:
        command: program and its arguments. A compiled peer prints a line on standard error when
            it begins to measure, after its warm-up.
        cpu: returns the processor time that the target has used, in seconds.

    Returns:
        The JSON that it printed, and the processor time in seconds that the target used while it
        measured.

    Raises:
        MeasurementError: it failed, or did not end.
    """
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {GENERATOR_CORE}),
    )
    watchdog = threading.Timer(LONGEST_SECONDS, running.kill)
    watchdog.start()
    try:
        assert running.stdout is not None
        assert running.stderr is not None
        # Only compiled peers print that line; standard error of others is for their failures.
        mark = Path(command[0]).parent.name == BUILD and running.stderr.readline()
        before = cpu()
        if mark:
            output = running.stdout.read()
            used = cpu() - before
            _, errors = running.communicate()
        else:
            output, errors = running.communicate()
            used = cpu() - before
    finally:
        watchdog.cancel()
    if running.returncode != 0:
        lines = (errors or str(mark or "")).strip().splitlines()
        reason = lines[-1] if lines else "without a message"
        raise MeasurementError(f"{Path(command[0]).name} ended with {running.returncode}: {reason}")
    return json.loads(output), used


def peer_rate(figures: Any) -> float:
    """Return the messages per second from the JSON of a peer that generates load."""
    rate: float = figures["messages"] / figures["seconds"]
    return rate


def family(pid: int) -> list[int]:
    """Return the ids of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [pid, *map(int, children.split())]


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise ValueError(f"no Rss of process {pid}")


def spread(values: list[float], decimals: int = 2) -> str:
    """Return the median and the range of values, as text."""
    median, least, most = (
        f"{value:,.{decimals}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} [{least}-{most}]"
