"""Shared by the benchmarks: processes on cores of their own, their figures, ratios with a spread.

The target has core 0 to itself and the generator core 1. Rounds are interleaved, one candidate
after the other in each, because shared machines change their speed: every figure is divided by that
of the reference in the same round, and the median of these ratios is what to quote.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
SERVER_CORE, GENERATOR_CORE = 0, 1
WARMUP_SECONDS = 0.5


def option_parser(description: str | None, connections: Sequence[int]) -> argparse.ArgumentParser:
    """The options that every benchmark has; the description is a docstring's first line."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, nargs="+", default=list(connections))
    return parser


def compile_peer(name: str, directory: Path, *libraries: str) -> str:
    """Compile a peer written in C and return its path."""
    program = directory / name
    source = PEERS / f"{name}.c"
    subprocess.run(["cc", "-O2", "-o", str(program), str(source), *libraries], check=True)
    return str(program)


@contextmanager
def listening(command: list[str]) -> Iterator[tuple[int, int]]:
    """Run a server on its core, and yield its process id and its port."""
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline().rpartition(":")[2])
        yield server.pid, port
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def generator(command: list[str]) -> subprocess.Popen[str]:
    """Start the generator on its core."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {GENERATOR_CORE}),
    )


def generated(command: list[str]) -> Any:
    """Run a generator on its core to its end and return what it printed as JSON."""
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {GENERATOR_CORE}),
    )
    if ended.returncode != 0:
        sys.exit(
            f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}{ended.stdout}"
        )
    return json.loads(ended.stdout)


def peer_rate(figures: Any) -> float:
    """Messages per second, from the output of the peers that generate load."""
    rate: float = figures["messages"] / figures["seconds"]
    return rate


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [pid, *map(int, children.split())]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise ValueError(f"no Rss of process {pid}")


def spread(values: list[float], decimals: int = 2) -> str:
    """A median and its range."""
    median, least, most = (
        f"{value:,.{decimals}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} [{least}-{most}]"
