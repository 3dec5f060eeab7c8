"""Measures echo-server against its peers: messages and connections a second, memory, CPU.

    python tests/benchmarks/server_throughput.py [--quick] [--rounds 5] [--seconds 0.8] [GROUP ...]

Each server has core 0 to itself and the C generators core 1. Rounds are interleaved; how, and what
to quote, stands in measuring.py. The reference is the C epoll server. Results are printed, and
written to build/bench/server.json.
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
    """Measure one server once with a C generator."""
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
    """KiB that a server needs per connection, with many that have echoed once."""
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
    """The scenarios of the suite, measured one after the other."""

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
        """Return what measures a server with a C generator."""
        return lambda server: throughput(server, self._options, program, *workload)

    def all(self) -> None:
        """Measure what was asked for."""
        for group in GROUPS:
            if self._options.wants(group):
                getattr(self, group)()

    def connections(self) -> None:
        """64-byte messages, from one connection to thousands."""
        program = self._peers.compiled("closed_loop")
        for count in CONNECTIONS:
            servers = self._peers.servers(connections=count)
            measure = self.workload(program, count, 64)
            self.measure(servers, measure, group="connections", label=f"{count:,}", x=count)

    def sizes(self) -> None:
        """100 connections, from small to large messages."""
        program = self._peers.compiled("closed_loop")
        for label, size in SIZES:
            servers = self._peers.servers(connections=100, size=size)
            self.measure(
                servers, self.workload(program, 100, size), group="sizes", label=label, x=size
            )

    def pipelines(self) -> None:
        """100 connections with many messages in flight on each."""
        program = self._peers.compiled("pipelined_loop")
        for depth in PIPELINES:
            servers = self._peers.servers(connections=100, size=64 * depth)
            measure = self.workload(program, 100, 64, depth)
            self.measure(servers, measure, group="pipelines", label=f"{depth} in flight", x=depth)

    def churn(self) -> None:
        """Connections that are opened, echo once and are closed."""
        measure = self.workload(self._peers.compiled("connect_cycles"), CHURN_CONNECTIONS, 64)
        servers = self._peers.servers(connections=CHURN_CONNECTIONS)
        self.measure(
            servers, measure, group="churn", label="connect, echo, close", unit="connections/s"
        )

    def workers(self) -> None:
        """Several workers on one core: what sharing costs."""
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
        """Datagrams, against the plain loop in C."""
        program = self._peers.compiled("datagram_loop")
        servers = self._peers.datagram_servers()
        for sockets, size in ((16, 64), (200, 64), (200, 1400)):
            measure = self.workload(program, sockets, size)
            label = f"{sockets} senders, {size:,} B"
            self.measure(
                servers, measure, group="udp", label=label, reference="C, recvfrom and sendto"
            )

    def tls(self) -> None:
        """TLS, against asyncio and uvloop."""
        program = self._peers.tls_generator
        if program is None:
            return
        servers = self._peers.tls_servers()
        for count, amount, size in ((100, "64 B", 64), (1000, "64 B", 64), (100, "16 KiB", 16384)):
            measure = self.workload(program, count, size)
            label = f"{count:,} connections, {amount}"
            self.measure(servers, measure, group="tls", label=label, reference="asyncio, Protocol")

    def memory(self) -> None:
        """Memory of a connection that has echoed."""
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
    """Measure, write, and return the exit code."""
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
