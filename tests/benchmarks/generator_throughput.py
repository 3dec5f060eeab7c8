"""Measures echo-load against its peers: messages a second, and lateness at half of that.

    python tests/benchmarks/generator_throughput.py [--rounds 5] [--seconds 2] [--locust PYTHON]

The target is the C epoll server on core 0; each generator has core 1 to itself, its controller
included. Rounds are interleaved; how, and what to quote, stands in measuring.py. locust takes
part where the interpreter that --locust names has it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_core.limits import raise_descriptor_limit
from measuring import (
    PEERS,
    WARMUP_SECONDS,
    compile_peer,
    generated,
    listening,
    option_parser,
    peer_rate,
    spread,
)

SIZE = 64
REFERENCE = "C, epoll"
HUB = "echo-load run, hub"
STRESS = "echo-load stress"
TUTORIAL = "the tutorial's loop"


@dataclass(frozen=True)
class Generator:
    """How a generator is started, and where its JSON has the rate.

    Attributes:
        command: from port, connections and seconds to a program with its arguments
        rate: from what it printed to messages a second
    """

    command: Callable[[int, int, float], list[object]]
    rate: Callable[[Any], float]


def peer(*program: str) -> Generator:
    """A closed loop among the peers that sends messages of SIZE bytes."""
    return Generator(
        lambda port, connections, seconds: [
            *(*program, port, connections, SIZE, WARMUP_SECONDS, seconds)
        ],
        peer_rate,
    )


def tutorial() -> Generator:
    """The tutorial's threads; their messages are `hello 0` and on."""
    program = (sys.executable, PEERS / "tutorial_threads.py")
    return Generator(
        lambda port, connections, seconds: [*program, port, connections, WARMUP_SECONDS, seconds],
        peer_rate,
    )


def echo_load(*arguments: object) -> Generator:
    """Our own, in one process that generates; its controller shares the core."""
    return Generator(
        lambda port, connections, seconds: [
            *(sys.executable, "-m", "echo_load", *arguments, f"tcp://127.0.0.1:{port}"),
            *("--connections", connections, "--duration", f"{seconds}s"),
            *("--processes", 1, "--json"),
        ],
        lambda result: result["totals"]["messages_per_second"],
    )


def echo_load_run(engine: str, *arguments: object) -> Generator:
    """The engine with messages of SIZE bytes, each checked and recorded."""
    return echo_load(
        *("run", "--engine", engine, "--warmup", f"{WARMUP_SECONDS}s", "--payload-size", SIZE),
        *arguments,
    )


def locust(python: str) -> dict[str, Generator]:
    """A plain socket user in locust, where the interpreter has it."""
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('locust') is None)"
    if subprocess.run([python, "-c", found], check=False).returncode != 0:
        print(f"no locust: {python} does not have it")
        return {}
    program = (python, "-m", "locust", "-f", PEERS / "locust_user.py")
    how = ("--headless", "--only-summary", "--loglevel", "ERROR", "--json")
    return {
        "locust, socket user": Generator(
            lambda port, connections, seconds: [
                *(*program, *how, "--host", f"tcp://127.0.0.1:{port}"),
                *("--warmup-seconds", WARMUP_SECONDS, "-u", connections, "-r", connections),
                # It takes whole seconds alone.
                *("-t", f"{math.ceil(WARMUP_SECONDS + seconds)}s"),
            ],
            locust_rate,
        )
    }


def locust_rate(entries: Any) -> float:
    """Requests a second by locust's own statistics, as it divides them itself."""
    (entry,) = entries
    seconds = entry["last_request_timestamp"] - entry["start_time"]
    rate: float = entry["num_requests"] / seconds
    return rate


def measured(generator: Generator, server: str, connections: int, seconds: float) -> Any:
    """What the generator printed about one run against a target of its own."""
    with listening([server, "0"]) as (_, port):
        return generated([*map(str, generator.command(port, connections, seconds))])


def compare(
    generators: dict[str, Generator], server: str, connections: int, options: argparse.Namespace
) -> float:
    """Measure all generators in rounds and print a line for each; returns the hub's rate."""
    rounds = [
        {
            name: generator.rate(measured(generator, server, connections, options.seconds))
            for name, generator in generators.items()
        }
        for _ in range(options.rounds)
    ]
    print(f"\n{connections} connections, {options.rounds} rounds")
    rates = {name: [one[name] for one in rounds] for name in generators}
    for name in generators:
        ratios = [one[name] / one[REFERENCE] for one in rounds]
        print(
            f"  {name:26} {statistics.median(rates[name]):9,.0f} msg/s"
            f"  {spread(ratios)} of {REFERENCE}"
        )
    ratios = [one[STRESS] / one[TUTORIAL] for one in rounds]
    print(f"  {STRESS}: {spread(ratios)} of {TUTORIAL}, both with its messages")
    return statistics.median(rates[HUB])


def open_loop(server: str, connections: int, rate: int, options: argparse.Namespace) -> None:
    """Measure how late messages leave that are to leave at a rate."""
    generator = echo_load_run("hub", "--rate", rate)
    results = [
        measured(generator, server, connections, options.seconds) for _ in range(options.rounds)
    ]
    sent = statistics.median(map(generator.rate, results))
    lateness = [result["generator"]["lateness_us"]["p99"] for result in results]
    print(
        f"  open loop, {rate:,} msg/s asked for: {sent:,.0f} msg/s,"
        f" lateness p99 {spread(lateness, decimals=0)} us"
    )


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, [100, 1000])
    parser.add_argument(
        "--locust", metavar="PYTHON", default=sys.executable, help="an interpreter that has locust"
    )
    options = parser.parse_args()
    raise_descriptor_limit()

    with tempfile.TemporaryDirectory() as directory:
        server = compile_peer("echo_epoll", Path(directory))
        generators = {
            REFERENCE: peer(compile_peer("closed_loop", Path(directory))),
            HUB: echo_load_run("hub"),
            "echo-load run, greenlets": echo_load_run("greenlets"),
            "echo-load run, threads": echo_load_run("threads"),
            "uvloop Protocol, unchecked": peer(sys.executable, str(PEERS / "uvloop_loop.py")),
            **locust(options.locust),
            TUTORIAL: tutorial(),
            STRESS: echo_load("stress"),
        }
        for connections in options.connections:
            top_rate = compare(generators, server, connections, options)
            open_loop(server, connections, round(top_rate / 2), options)


if __name__ == "__main__":
    main()
