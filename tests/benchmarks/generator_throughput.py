"""Compare echo-load with its peers: messages per second, and its lateness at half that rate.

    python tests/benchmarks/generator_throughput.py [--rounds 5] [--seconds 0.8]

The target is the C epoll server on core 0; each generator runs on core 1, together with its
controller. Rounds are interleaved as described in measuring.py, which also says which figures to
quote.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_results import MeasurementError
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
SOCKET_USER = "locust, a plain socket User"
ECHO_USER = "locust, EchoUser"
BLOCK_USER = "locust, EchoBlockUser"
# Connections per block.
BLOCK = 100


@dataclass(frozen=True)
class Generator:
    """The command of a generator, and a function that extracts its rate.

    Attributes:
        command: returns a program and its arguments for a port, a number of connections and a
            duration in seconds.
        rate: returns messages per second from the JSON that the program printed.
    """

    command: Callable[[int, int, float], list[object]]
    rate: Callable[[Any], float]


def peer(*program: str) -> Generator:
    """Return a peer that generates a closed loop of messages of SIZE bytes."""
    return Generator(
        lambda port, connections, seconds: [
            *(*program, port, connections, SIZE, WARMUP_SECONDS, seconds)
        ],
        peer_rate,
    )


def tutorial() -> Generator:
    """Return the tutorial's threads; their messages are `hello 0`, `hello 1` and so on."""
    program = (sys.executable, PEERS / "tutorial_threads.py")
    return Generator(
        lambda port, connections, seconds: [*program, port, connections, WARMUP_SECONDS, seconds],
        peer_rate,
    )


def echo_load(*arguments: object) -> Generator:
    """Return echo-load with a single generator, whose controller shares its core."""
    return Generator(
        lambda port, connections, seconds: [
            *(sys.executable, "-m", "echo_load", *arguments, f"tcp://127.0.0.1:{port}"),
            *("--connections", connections, "--duration", f"{seconds}s"),
            *("--processes", 1, "--json"),
        ],
        lambda result: result["totals"]["messages_per_second"],
    )


def echo_load_run(engine: str, *arguments: object) -> Generator:
    """Return `echo-load run` with an engine and messages of SIZE bytes."""
    return echo_load(
        *("run", "--engine", engine, "--warmup", f"{WARMUP_SECONDS}s", "--payload-size", SIZE),
        *arguments,
    )


def locust(file: Path, users: Callable[[int], int], *options: object) -> Generator:
    """Return a locust process with users; its statistics are reset after the warm-up.

    Args:
        file: the locustfile.
        users: returns the number of users for a number of connections.
        options: further options of locust.
    """
    program = (sys.executable, "-m", "locust", "-f", f"{file},{PEERS / 'locust_warmup.py'}")
    output = ("--headless", "--only-summary", "--loglevel", "ERROR", "--json")
    return Generator(
        lambda port, connections, seconds: [
            *(*program, *output, "--host", f"tcp://127.0.0.1:{port}", *options),
            *("--warmup-seconds", WARMUP_SECONDS),
            *("-u", users(connections), "-r", users(connections)),
            # Locust accepts only whole seconds.
            *("-t", f"{math.ceil(WARMUP_SECONDS + seconds)}s"),
        ],
        locust_rate,
    )


def locusts() -> dict[str, Generator]:
    """Return locust with a plain socket user, and with the two user classes of the swarm."""
    package = importlib.util.find_spec("echo_load")
    assert package is not None
    assert package.origin is not None
    ours = Path(package.origin).parent / "swarm" / "locustfile.py"
    return {
        SOCKET_USER: locust(PEERS / "locust_user.py", lambda connections: connections),
        ECHO_USER: locust(ours, lambda connections: connections, "EchoUser"),
        BLOCK_USER: locust(
            *(ours, lambda connections: connections // BLOCK, "EchoBlockUser"),
            *("--block-connections", BLOCK),
        ),
    }


def locust_rate(entries: Any) -> float:
    """Return the messages per second from locust's statistics, computed as locust does."""
    (entry,) = (entry for entry in entries if entry["name"] == "message")
    seconds = entry["last_request_timestamp"] - entry["start_time"]
    rate: float = entry["num_requests"] / seconds
    return rate


def measured(generator: Generator, server: str, connections: int, seconds: float) -> Any:
    """Run a generator once against a target of its own; return the JSON that it printed."""
    with listening([server, "0"]) as (_, port):
        return generated([*map(str, generator.command(port, connections, seconds))])


def compare(
    generators: dict[str, Generator], server: str, connections: int, options: argparse.Namespace
) -> float:
    """Measure all generators in rounds, and print the results.

    Returns:
        The median rate of the hub engine in messages per second.
    """
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
    for name, other in ((STRESS, TUTORIAL), (ECHO_USER, SOCKET_USER), (BLOCK_USER, SOCKET_USER)):
        print(f"  {name}: {spread([one[name] / one[other] for one in rounds])} of {other}")
    return statistics.median(rates[HUB])


def open_loop(server: str, connections: int, rate: int, options: argparse.Namespace) -> None:
    """Measure and print the lateness of messages in an open loop."""
    generator = echo_load_run("hub", "--rate", rate)
    results = [
        measured(generator, server, connections, options.seconds) for _ in range(options.rounds)
    ]
    sent = statistics.median(map(generator.rate, results))
    lateness = [result["generator"]["lateness_us"]["p99"] for result in results]
    print(
        f"  open loop at {rate:,} msg/s: {sent:,.0f} msg/s sent,"
        f" lateness p99 {spread(lateness, decimals=0)} us"
    )


def main() -> None:
    """Measure and print the results."""
    parser = option_parser(__doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[100, 1000])
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
            **locusts(),
            TUTORIAL: tutorial(),
            STRESS: echo_load("stress"),
        }
        for connections in options.connections:
            top_rate = compare(generators, server, connections, options)
            open_loop(server, connections, round(top_rate / 2), options)


if __name__ == "__main__":
    try:
        main()
    except MeasurementError as error:
        sys.exit(str(error))
