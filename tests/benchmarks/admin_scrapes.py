"""Measure the cost of scrapes of the admin page, and their effect on the latency of the echo.

    python tests/benchmarks/admin_scrapes.py [--rounds 5] [--seconds 0.8] [--scrapers 8]

The results are the processor time of the process that serves the page, per scrape and for the
rendering alone; and the round trips of one connection, alone and under scrapers that request the
page without pauses. Rounds are interleaved. The prober and each scraper are processes of their own:
as threads they would measure their own interpreter lock. The server and the prober share core 0;
the scrapers run on core 1, as if they were on another machine.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench_results import MeasurementError
from echo_server.metrics.counters import ROW_CELLS, WorkerFigures
from echo_server.metrics.exposition import Format, Metrics
from measuring import GENERATOR_CORE, SERVER_CORE, cpu_seconds, listening, option_parser, spread

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n"
PAUSE_SECONDS = 0.0005
RENDERINGS = 2000


@dataclass(frozen=True)
class Measured:
    """The figures of one round, with or without scrapers.

    Attributes:
        p50: median round trip in microseconds.
        p99: 99th percentile of the round trips in microseconds.
        scrapes: number of scrapes.
        cpu_us_per_scrape: processor time per scrape in microseconds; 0 without scrapes.
    """

    p50: float
    p99: float
    scrapes: int
    cpu_us_per_scrape: float


def probe(port: int, seconds: float) -> None:
    """Print the 50th and 99th percentile of round trips of one byte, in microseconds."""
    times = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.perf_counter_ns()
            connection.sendall(b"x")
            connection.recv(1)
            times.append((time.perf_counter_ns() - begin) / 1000)
            time.sleep(PAUSE_SECONDS)
    percentiles = statistics.quantiles(times, n=100)
    print(json.dumps([percentiles[49], percentiles[98]]))


def scrape(port: int) -> None:
    """Scrape until standard input ends, and print the number of scrapes."""
    os.set_blocking(0, False)
    scrapes = 0
    while True:
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            pass
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(REQUEST)
            while connection.recv(1 << 16):
                pass
        scrapes += 1
    print(scrapes)


def child(core: int, *arguments: object) -> subprocess.Popen[str]:
    """Start `probe` or `scrape` in a process of its own, on a core."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


@contextmanager
def scraped(port: int, scrapers: int) -> Iterator[list[int]]:
    """Scrape for the duration of the block.

    Yields:
        A list that is filled after the block: the number of scrapes of each scraper.
    """
    counts: list[int] = []
    children = [child(GENERATOR_CORE, "scrape", port) for _ in range(scrapers)]
    try:
        yield counts
    finally:
        counts += [int(one.communicate()[0]) for one in children]


def measure(port: int, admin_port: int, pid: int, scrapers: int, seconds: float) -> Measured:
    """Measure one round.

    Args:
        port: port of the echo service.
        admin_port: port of the admin page.
        pid: id of the process that serves the admin page.
        scrapers: number of scrapers.
        seconds: duration in seconds.
    """
    with scraped(admin_port, scrapers) as counts:
        before = cpu_seconds(pid)
        p50, p99 = json.loads(child(SERVER_CORE, "probe", port, seconds).communicate()[0])
    # The last scrape has been answered here, so that its processor time is included.
    cpu = cpu_seconds(pid) - before
    return Measured(p50, p99, sum(counts), cpu / sum(counts) * 1e6 if counts else 0.0)


def rendering_us(form: Format) -> float:
    """Return the processor time to render the page of one worker, in microseconds."""
    metrics = Metrics(1)
    figures = [WorkerFigures(0, os.getpid(), True, 0, [12345] * ROW_CELLS)]
    begin = time.process_time()
    for _ in range(RENDERINGS):
        metrics.render(figures, form, None)
    return (time.process_time() - begin) / RENDERINGS * 1e6


def free_port() -> int:
    """Return a port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def main() -> None:
    """Measure and print the results."""
    parser = option_parser(__doc__)
    parser.add_argument("--scrapers", type=int, default=8)
    options = parser.parse_args()
    admin_port = free_port()
    server = [sys.executable, "-m", "echo_server", "--port", "0"]
    alone, under = [], []
    with listening([*server, "--admin", f"127.0.0.1:{admin_port}"]) as (pid, port):
        for _ in range(options.rounds):
            alone.append(measure(port, admin_port, pid, 0, options.seconds))
            under.append(measure(port, admin_port, pid, options.scrapers, options.seconds))
    print(f"\nscrapes of the admin page, {options.rounds} rounds")
    for form in Format:
        renderings = [rendering_us(form) for _ in range(options.rounds)]
        print(f"  rendering {form.name:14} {spread(renderings)} us CPU each")
    costs = [one.cpu_us_per_scrape for one in under]
    print(f"  scrape in total          {spread(costs)} us CPU each")
    rates = [one.scrapes / options.seconds for one in under]
    print(f"  {options.scrapers} scrapers               {spread(rates, 0)} scrapes/s")
    for name, rounds in (("alone", alone), ("under scrapes", under)):
        p50, p99 = ([getattr(one, key) for one in rounds] for key in ("p50", "p99"))
        print(f"  echo {name:19} p50 {spread(p50, 0)}  p99 {spread(p99, 0)} us")
    ratios = [two.p99 / one.p99 for one, two in zip(alone, under, strict=True)]
    print(f"  p99 under scrapes        {spread(ratios)} of p99 alone")


if __name__ == "__main__":
    match sys.argv[1:2]:
        case ["probe"]:
            probe(int(sys.argv[2]), float(sys.argv[3]))
        case ["scrape"]:
            scrape(int(sys.argv[2]))
        case _:
            try:
                main()
            except MeasurementError as error:
                sys.exit(str(error))
