"""Measure echo-load against its peers: messages a second, lateness, memory.

    python tests/benchmarks/generator_throughput.py [--quick] [--rounds 5] [--seconds 0.8] [GROUP …]

The target has core 0 to itself and each generator, with its controller, core 1. It is the C epoll
server, or over TLS our own. Rounds are interleaved; how, and what to quote, stands in measuring.py.
Results are printed, and written to build/bench/generator.json.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench_results import MeasurementError, Scenario, Suite, Value
from echo_core.limits import raise_descriptor_limit
from generators import HUB, HUB_OVER_TCP, OPENSSL, PIPELINING, REFERENCE, Generator, Generators
from generators import echo_load_run as echo_load
from measuring import Options, family, generated, generator, listening, read_options, resident_kib
from servers import OURS, Command, Peers

SIZE = 64
MESSAGES = "messages/s"
CONNECTIONS = (1, 10, 100, 1000)
PIPELINES = (16, 64, 256, 1024)
BULK = (("16 KiB", 16384), ("256 KiB", 262144))
TLS = ((100, 1), (1000, 1), (100, 64))
# Held connections whose difference in memory is divided by the difference in their number.
HELD = (1000, 9000)
HOLD_SECONDS = 2
GROUPS = ("connections", "pipelines", "bulk", "tls", "lateness", "memory")


def run(generator: Generator, server: Command, workload: tuple[int, int], seconds: float) -> Any:
    """Return what a generator printed about one run against a target of its own.

    Args:
        generator: the generator.
        server: command of the target.
        workload: number of connections, and bytes of a message.
        seconds: measured time.
    """
    with listening(server) as (_, port):
        return generated([*map(str, generator.command(port, *workload, seconds))])


def held_kib(server: Command, connections: int) -> int:
    """Return the resident memory, in KiB, of a generator process that holds connections."""
    with listening(server) as (_, port):
        holding = generator(
            [
                *(sys.executable, "-m", "echo_load", "hold", f"tcp://127.0.0.1:{port}"),
                *("-c", str(connections), "-d", f"{HOLD_SECONDS}s", "--cycle", f"{HOLD_SECONDS}s"),
                *("--processes", "1", "--json"),
            ]
        )
        most = 0
        while holding.poll() is None:
            most = max(most, sum(map(_resident_kib, family(holding.pid)[1:])))
            # The memory is at its largest for seconds.
            time.sleep(0.1)
        holding.communicate()
    if holding.returncode != 0:
        raise MeasurementError(f"echo-load hold ended with {holding.returncode}")
    return most


def _resident_kib(pid: int) -> int:
    try:
        return resident_kib(pid)
    except OSError:
        # It has ended since it was listed.
        return 0


class Run:
    """The scenarios of the suite, measured one after the other."""

    def __init__(self, suite: Suite, options: Options, directory: Path) -> None:
        self._suite = suite
        self._options = options
        self._generators = Generators(directory)
        self._peers = Peers(directory)
        suite.left_out |= self._generators.left_out
        self._target = [self._peers.compiled("echo_epoll"), "0"]

    def measure(
        self,
        candidates: Mapping[str, Callable[[], Value]],
        *,
        group: str,
        label: str,
        x: float,
        unit: str = MESSAGES,
        reference: str | None = REFERENCE,
    ) -> Scenario:
        """Measure a scenario with each of the candidates."""
        scenario = Scenario(group=group, label=label, x=x, unit=unit, reference=reference)
        return self._suite.measure(self._options.directory, scenario, candidates)

    def rates(
        self, generators: Mapping[str, Generator], server: Command, connections: int, size: int
    ) -> dict[str, Callable[[], Value]]:
        """Return what measures the rate of each generator."""

        def rate(one: Generator) -> Value:
            return Value(one.rate(run(one, server, (connections, size), self._options.seconds)))

        return {name: partial(rate, one) for name, one in generators.items()}

    def all(self) -> None:
        """Measure what was asked for."""
        for group in GROUPS:
            if self._options.wants(group):
                getattr(self, group)()

    def connections(self) -> None:
        """One message in flight on each of few and many connections."""
        for count in CONNECTIONS:
            rates = self.rates(self._generators.closed_loops(count), self._target, count, SIZE)
            self.measure(rates, group="connections", label=f"{count:,}", x=count)

    def pipelines(self) -> None:
        """Many messages in flight on each of 100 connections."""
        for depth in PIPELINES:
            rates = self.rates(self._generators.pipelining(depth), self._target, 100, SIZE)
            self.measure(
                rates, group="pipelines", label=f"{depth:,}", x=depth, reference=PIPELINING
            )

    def bulk(self) -> None:
        """Large messages on 100 connections."""
        for label, size in BULK:
            rates = self.rates(self._generators.bulk(), self._target, 100, size)
            self.measure(rates, group="bulk", label=label, x=size)

    def tls(self) -> None:
        """The engines over TLS, a client in C, and the hub over TCP with the same server."""
        program = self._peers.tls_generator
        if program is None:
            return
        secured = self._peers.tls_servers()[OURS]
        plain = self._peers.servers(connections=1)[OURS]
        for count, depth in TLS:
            rates = self.rates(self._generators.tls(program, depth), secured, count, SIZE)
            over_tcp = {HUB_OVER_TCP: echo_load("hub", "--pipeline", depth)}
            rates |= self.rates(over_tcp, plain, count, SIZE)
            label = f"{count:,} connections, {depth} in flight"
            self.measure(rates, group="tls", label=label, x=count * depth, reference=OPENSSL)

    def lateness(self) -> None:
        """The lateness of messages in an open loop, at half of the closed loop's rate."""
        for count in (100, 1000):
            workload = count, SIZE
            top = statistics.median(
                HUB_RUN.rate(run(HUB_RUN, self._target, workload, self._options.seconds))
                for _ in range(self._options.rounds)
            )
            half = echo_load("hub", "--rate", round(top / 2))

            def late(half: Generator = half, workload: tuple[int, int] = workload) -> Value:
                result = run(half, self._target, workload, self._options.seconds)
                return Value(result["generator"]["lateness_us"]["p99"])

            self.measure(
                {HUB: late},
                group="lateness",
                label=f"{count:,} connections, {round(top / 2):,} messages/s",
                x=count,
                unit="us, 99th percentile",
                reference=None,
            )

    def memory(self) -> None:
        """The memory of a held connection that has been probed."""
        few, many = HELD

        def one() -> Value:
            grown = held_kib(self._target, many) - held_kib(self._target, few)
            return Value(grown / (many - few))

        self.measure(
            {"echo-load hold": one},
            group="memory",
            label=f"{many:,} connections",
            x=many,
            unit="KiB per connection",
            reference=None,
        )


HUB_RUN = echo_load("hub")


def main() -> int:
    """Measure, write, and return the exit code."""
    options = read_options(__doc__, GROUPS)
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as directory:
        suite = Suite.begin("generator", options.rounds, options.seconds, {})
        Run(suite, options, Path(directory)).all()
    print("\n".join(suite.lines()))
    print(f"written to {options.directory / 'generator.json'}")
    return suite.exit_code


if __name__ == "__main__":
    sys.exit(main())
