"""Compare echo-server with its peers: messages and connections per second, memory, CPU.

    python tests/benchmarks/server_throughput.py [--quick] [--rounds 5] [--seconds 0.8] [GROUP ...]

Each server runs alone on core 0, the C generators on core 1. Rounds are interleaved as described in
measuring.py, which also says which figures to quote. The reference is the C epoll server. Results
are printed, and written to build/bench/server.json.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench_results import MeasurementError, Scenario, Suite, Value
from echo_core.limits import raise_descriptor_limit
from measuring import (
    WARMUP_SECONDS,
    Options,
    cpu_seconds,
    family,
    generator,
    listening,
    measured,
    peer_rate,
    read_options,
    resident_kib,
)
from servers import REFERENCE, Command, Peers

MESSAGES = "messages/s"
SIZES = (("64 B", 64), ("1 KiB", 1024), ("16 KiB", 16384), ("256 KiB", 262144), ("1 MiB", 1048576))
CONNECTIONS = (1, 10, 100, 1000, 5000)
PIPELINES = (1, 16, 256)
MEMORY_CONNECTIONS = 5000
CHURN_CONNECTIONS = 64
GROUPS = ("connections", "sizes", "pipelines", "churn", "workers", "udp", "tls", "memory")


def throughput(server: Command, options: Options, program: str, *workload: object) -> Value:
    """Measure the throughput of a server once with a C generator.

    Args:
        server: command of the server.
        options: options of the benchmark.
        program: path of the generator.
        *workload: arguments of the generator that describe the load.

    Raises:
        MeasurementError: a program failed, or nothing was echoed.
    """
    with listening(server) as (pid, port):
        pids = family(pid)
        figures, cpu = measured(
            [program, str(port), *map(str, workload), str(WARMUP_SECONDS), str(options.seconds)],
            lambda: sum(map(cpu_seconds, pids)),
        )
    if not figures["messages"]:
        raise MeasurementError("nothing was echoed")
    return Value(peer_rate(figures), cpu / figures["messages"] * 1e6)


def memory_per_connection(server: Command, closed_loop: str) -> Value:
    """Measure the memory per connection of a server in KiB.

    Args:
        server: command of the server.
        closed_loop: path of the generator; each of its connections has echoed one message.

    Raises:
        MeasurementError: a program failed, or not all connections could be opened.
    """
    with listening(server) as (pid, port):
        pids = family(pid)
        before = sum(map(resident_kib, pids))
        holding = generator([closed_loop, str(port), str(MEMORY_CONNECTIONS), "64", "0", "0"])
        assert holding.stdout is not None
        is_open = holding.stdout.readline() == "open\n"
        grown: int = sum(map(resident_kib, pids)) - before if is_open else 0
        holding.communicate()
    if not is_open:
        raise MeasurementError("could not open all connections")
    return Value(grown / MEMORY_CONNECTIONS)


Measure = Callable[[Command], Value]


class Run:
    """A run of the suite, with a method per group of scenarios."""

    def __init__(self, suite: Suite, options: Options, peers: Peers) -> None:
        self._suite = suite
        self._options = options
        self._peers = peers

    def measure(
        self,
        servers: Mapping[str, Command],
        measure: Measure,
        *,
        group: str,
        label: str,
        x: float = 0,
        unit: str = MESSAGES,
        reference: str | None = REFERENCE,
    ) -> None:
        """Measure a scenario with each of the servers."""
        scenario = Scenario(group=group, label=label, x=x, unit=unit, reference=reference)
        self._suite.measure(
            self._options.directory,
            scenario,
            {name: partial(measure, server) for name, server in servers.items()},
        )

    def workload(self, program: str, *workload: object) -> Measure:
        """Return a function that measures a server with a C generator."""
        return lambda server: throughput(server, self._options, program, *workload)

    def all(self) -> None:
        """Measure the groups that the options select."""
        for group in GROUPS:
            if self._options.wants(group):
                getattr(self, group)()

    def connections(self) -> None:
        """Measure 64-byte messages on different numbers of connections."""
        program = self._peers.compiled("closed_loop")
        for count in CONNECTIONS:
            servers = self._peers.servers(connections=count)
            measure = self.workload(program, count, 64)
            self.measure(servers, measure, group="connections", label=f"{count:,}", x=count)

    def sizes(self) -> None:
        """Measure messages of different sizes on 100 connections."""
        program = self._peers.compiled("closed_loop")
        for label, size in SIZES:
            servers = self._peers.servers(connections=100, size=size)
            self.measure(
                servers, self.workload(program, 100, size), group="sizes", label=label, x=size
            )

    def pipelines(self) -> None:
        """Measure different numbers of messages in flight on each of 100 connections."""
        program = self._peers.compiled("pipelined_loop")
        for depth in PIPELINES:
            servers = self._peers.servers(connections=100, size=64 * depth)
            measure = self.workload(program, 100, 64, depth)
            self.measure(servers, measure, group="pipelines", label=f"{depth} in flight", x=depth)

    def churn(self) -> None:
        """Measure connections that are opened, exchange a message and are closed."""
        measure = self.workload(self._peers.compiled("connect_cycles"), CHURN_CONNECTIONS, 64)
        servers = self._peers.servers(connections=CHURN_CONNECTIONS)
        self.measure(
            servers, measure, group="churn", label="connect, echo, close", unit="connections/s"
        )

    def workers(self) -> None:
        """Measure the cost of several workers that share one core."""
        program = self._peers.compiled("closed_loop")
        for count in (100, 1000, 5000):
            measure = self.workload(program, count, 64)
            servers = self._peers.workers((1, 2, 4))
            self.measure(
                servers,
                measure,
                group="workers",
                label=f"{count:,} connections",
                x=count,
                reference="1 worker",
            )

    def udp(self) -> None:
        """Measure datagrams, relative to a plain loop in C."""
        program = self._peers.compiled("datagram_loop")
        servers = self._peers.datagram_servers()
        for sockets, size in ((16, 64), (200, 64), (200, 1400)):
            measure = self.workload(program, sockets, size)
            label = f"{sockets} senders, {size:,} B"
            self.measure(
                servers, measure, group="udp", label=label, reference="C, recvfrom and sendto"
            )

    def tls(self) -> None:
        """Measure TLS, relative to asyncio."""
        program = self._peers.tls_generator
        if program is None:
            return
        servers = self._peers.tls_servers()
        for count, amount, size in ((100, "64 B", 64), (1000, "64 B", 64), (100, "16 KiB", 16384)):
            measure = self.workload(program, count, size, 1)
            label = f"{count:,} connections, {amount}"
            self.measure(servers, measure, group="tls", label=label, reference="asyncio, Protocol")

    def memory(self) -> None:
        """Measure the memory per connection."""
        program = self._peers.compiled("closed_loop")
        servers = self._peers.servers(connections=MEMORY_CONNECTIONS)
        self.measure(
            servers,
            lambda server: memory_per_connection(server, program),
            group="memory",
            label=f"{MEMORY_CONNECTIONS:,} connections",
            unit="KiB per connection",
            reference=None,
        )


def main() -> int:
    """Measure, print and write the results; return the exit code."""
    options = read_options(__doc__, GROUPS)
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as directory:
        peers = Peers(Path(directory))
        suite = Suite.begin("server", options.rounds, options.seconds, peers.left_out)
        Run(suite, options, peers).all()
    print("\n".join(suite.lines()))
    print(f"written to {options.directory / 'server.json'}")
    return suite.exit_code


if __name__ == "__main__":
    sys.exit(main())
