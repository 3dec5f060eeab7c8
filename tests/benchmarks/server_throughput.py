"""Measures echo-server against its peers: messages and connections a second, memory, CPU.

    python tests/benchmarks/server_throughput.py [--rounds 5] [--seconds 2] [--connections 100 ...]

Each server has core 0 to itself and the C generators core 1. Rounds are interleaved; how, and what
to quote, stands in measuring.py. The reference is the C epoll server.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trustme

from measuring import (
    PEERS,
    WARMUP_SECONDS,
    compile_peer,
    cpu_seconds,
    family,
    generated,
    generator,
    listening,
    option_parser,
    peer_rate,
    resident_kib,
    spread,
)

MEMORY_CONNECTIONS = 5000

REFERENCE = "C, epoll"
OURS = "echo-server"
LIMITED = "echo-server, all limits"
FOUR_WORKERS = "echo-server, 4 workers"
ALL_LIMITS = (
    *("--max-connections", "15k", "--max-connections-per-ip", "15k", "--idle-timeout", "1m"),
    *("--rate-limit", "100GB", "--access-log", "--access-log-sample", "1%"),
    *("--admin", "127.0.0.1:0"),
)
LARGE_CONNECTIONS = 100
# The tutorial's server sends once what it received, whole or not, and the peer waits for the rest.
SMALL_ONLY = {"the tutorial's server"}
CHURN_PLACES = 64
PYTHON_PEERS = {
    "uvloop Protocol": "uvloop",
    "StreamServer, greenlets": "greenlet",
    "the tutorial's server": "tutorial",
    "asyncio Protocol": "asyncio",
}


@dataclass(frozen=True)
class Measured:
    """One server in one round."""

    messages_per_second: float
    cpu_us_per_message: float


def throughput(
    server: list[str], program: str, connections: int, size: int, seconds: float
) -> Measured:
    """Measure one server once."""
    with listening(server) as (pid, port):
        arguments = [port, connections, size, WARMUP_SECONDS, seconds]
        pids = family(pid)
        before = sum(map(cpu_seconds, pids))
        rate = peer_rate(generated([program, *map(str, arguments)]))
        cpu = sum(map(cpu_seconds, pids)) - before
    # The server also worked during the warm-up.
    return Measured(rate, cpu / (rate * (seconds + WARMUP_SECONDS)) * 1e6)


def memory_per_connection(server: list[str], closed_loop: str) -> float:
    """KiB that a server needs per connection, with many that have echoed once."""
    with listening(server) as (pid, port):
        pids = family(pid)
        before = sum(map(resident_kib, pids))
        holding = generator([closed_loop, str(port), str(MEMORY_CONNECTIONS), "64", "0", "0"])
        assert holding.stdout is not None
        assert holding.stdout.readline() == "open\n"
        grown: int = sum(map(resident_kib, pids)) - before
        holding.communicate()
    return grown / MEMORY_CONNECTIONS


def compare(
    servers: dict[str, list[str]],
    program: str,
    connections: int,
    options: argparse.Namespace,
    *,
    size: int,
    what: str,
    reference: str = REFERENCE,
) -> None:
    """Measure all servers in interleaved rounds and print a line for each."""
    rounds = [
        {
            name: throughput(server, program, connections, size, options.seconds)
            for name, server in servers.items()
        }
        for _ in range(options.rounds)
    ]
    for name in servers:
        rate = statistics.median(one[name].messages_per_second for one in rounds)
        cpu = statistics.median(one[name].cpu_us_per_message for one in rounds)
        ratios = [
            one[name].messages_per_second / one[reference].messages_per_second for one in rounds
        ]
        print(
            f"  {name:24} {rate:9,.0f} {what}/s  {spread(ratios)} of {reference}"
            f"  {cpu:5.1f} us CPU each"
        )


def build_go_peer(directory: Path) -> dict[str, list[str]]:
    """The peer written in Go, on one core, if there is a Go compiler."""
    compiler = shutil.which("go")
    if compiler is None:
        return {}
    program = str(directory / "echo_goroutines")
    subprocess.run([compiler, "build", "-o", program, PEERS / "echo_goroutines.go"], check=True)
    return {"Go, goroutines": ["env", "GOMAXPROCS=1", program]}


def compare_datagrams(directory: Path, options: argparse.Namespace) -> None:
    """Measure UDP against the plain loop of recvfrom and sendto in C."""
    reference = "C, recvfrom and sendto"
    generator_program = compile_peer("datagram_loop", directory)
    servers = {
        reference: [compile_peer("echo_datagrams", directory)],
        OURS: [sys.executable, "-m", "echo_server", "--listen", "udp://127.0.0.1:0"],
    }
    for sockets, size in ((16, 64), (200, 64), (200, 1400)):
        print(f"\nUDP, {sockets} sockets, {size} bytes")
        compare(
            servers,
            generator_program,
            sockets,
            options,
            size=size,
            what="msg",
            reference=reference,
        )


def compare_tls(directory: Path, options: argparse.Namespace) -> None:
    """Measure TLS against asyncio and uvloop, if OpenSSL's headers are installed."""
    try:
        generator_program = compile_peer("tls_loop", directory, "-lssl", "-lcrypto")
    except subprocess.CalledProcessError:
        print("\nno TLS: OpenSSL's headers are missing")
        return
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(cert)
    python_servers = [sys.executable, str(PEERS / "python_servers.py")]
    ours = [sys.executable, "-m", "echo_server", "--listen", "tls://127.0.0.1:0"]
    servers = {
        "uvloop": [*python_servers, "uvloop", cert, key],
        "asyncio": [*python_servers, "asyncio", cert, key],
        OURS: [*ours, "--tls-cert", cert, "--tls-key", key],
    }
    for connections, size in ((100, 64), (1000, 64), (100, 16384)):
        print(f"\nTLS, {connections} connections, {size} bytes")
        compare(
            servers,
            generator_program,
            connections,
            options,
            size=size,
            what="msg",
            reference="asyncio",
        )


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, [100, 1000, 5000])
    parser.add_argument("--size", type=int, nargs="+", default=[64])
    parser.add_argument("--large-size", type=int, nargs="*", default=[16384, 262144, 1048576])
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        closed_loop = compile_peer("closed_loop", Path(directory))
        connect_cycles = compile_peer("connect_cycles", Path(directory))
        python_servers = [sys.executable, str(PEERS / "python_servers.py")]
        ours = [sys.executable, "-m", "echo_server", "--port", "0"]
        servers = {
            REFERENCE: [compile_peer("echo_epoll", Path(directory)), "0"],
            OURS: ours,
            LIMITED: [*ours, *ALL_LIMITS],
            FOUR_WORKERS: [*ours, "--workers", "4"],
            **build_go_peer(Path(directory)),
            **{name: [*python_servers, kind] for name, kind in PYTHON_PEERS.items()},
        }
        for size in options.size:
            for connections in options.connections:
                print(f"\n{connections} connections, {size} bytes, {options.rounds} rounds")
                compare(servers, closed_loop, connections, options, size=size, what="msg")
        fast = {name: server for name, server in servers.items() if name not in SMALL_ONLY}
        for size in options.large_size:
            print(f"\n{LARGE_CONNECTIONS} connections, {size} bytes, {options.rounds} rounds")
            compare(fast, closed_loop, LARGE_CONNECTIONS, options, size=size, what="msg")
        print(f"\n{CHURN_PLACES} connections opened, echoed on and closed again and again")
        compare(servers, connect_cycles, CHURN_PLACES, options, size=64, what="cycles")
        compare_datagrams(Path(directory), options)
        compare_tls(Path(directory), options)
        if not options.no_memory:
            print(f"\nmemory at {MEMORY_CONNECTIONS} connections")
            for name, server in servers.items():
                print(f"  {name:24} {memory_per_connection(server, closed_loop):5.2f} KiB each")


if __name__ == "__main__":
    main()
