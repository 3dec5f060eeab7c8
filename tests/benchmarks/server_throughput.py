"""Measures echo-server against its peers: messages and connections a second, memory, CPU.

    python tests/benchmarks/server_throughput.py [--rounds 5] [--seconds 2] [--connections 100 ...]

Each server has core 0 to itself and the C generators core 1. Rounds are interleaved,
one server after the other in each, because shared machines change their speed: every figure is
divided by that of the C epoll server in the same round, and the median of these ratios is what
to quote, with their spread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

PEERS = Path(__file__).parent / "peers"
SERVER_CORE, GENERATOR_CORE = 0, 1
WARMUP_SECONDS = 0.5
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


def compile_peer(name: str, directory: Path, *libraries: str) -> str:
    """Compile a peer written in C and return its path."""
    program = directory / name
    source = PEERS / f"{name}.c"
    subprocess.run(["cc", "-O2", "-o", str(program), str(source), *libraries], check=True)
    return str(program)


@contextmanager
def listening(command: list[str]) -> Iterator[tuple[int, int]]:
    """Run a server on its core; gives its process id and its port."""
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


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [pid, *map(int, children.split())]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """Memory that a process has in RAM."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise ValueError(f"no Rss of process {pid}")


def throughput(
    server: list[str], program: str, connections: int, size: int, seconds: float
) -> Measured:
    """Measure one server once."""
    with listening(server) as (pid, port):
        arguments = [port, connections, size, WARMUP_SECONDS, seconds]
        pids = family(pid)
        before = sum(map(cpu_seconds, pids))
        output, _ = generator([program, *map(str, arguments)]).communicate()
        cpu = sum(map(cpu_seconds, pids)) - before
    figures = json.loads(output)
    rate = figures["messages"] / figures["seconds"]
    # The server worked through the warm-up too.
    return Measured(rate, cpu / (rate * (seconds + WARMUP_SECONDS)) * 1e6)


def memory_per_connection(server: list[str], closed_loop: str) -> float:
    """KiB that a server needs for each of many connections that each echoed once."""
    with listening(server) as (pid, port):
        pids = family(pid)
        before = sum(map(resident_kib, pids))
        holding = generator([closed_loop, str(port), str(MEMORY_CONNECTIONS), "64", "0", "0"])
        assert holding.stdout is not None
        assert holding.stdout.readline() == "open\n"
        grown = sum(map(resident_kib, pids)) - before
        holding.communicate()
    return grown / MEMORY_CONNECTIONS


def spread(ratios: list[float]) -> str:
    """A median and its range."""
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"


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
    """The peer written in Go, on one core, where there is a Go compiler."""
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
    """Measure TLS against asyncio and uvloop, where there are OpenSSL's headers."""
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--size", type=int, nargs="+", default=[64])
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
