"""Coroutines that wait for the network, that block, and that compute."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import gevent
import gevent.events
from gevent.hub import get_hub

from echo_core.units import format_count
from echo_load.lab.experiment import (
    CannotRunError,
    Chapter,
    Conclusion,
    Experiment,
    Measurement,
    Measurements,
)
from echo_load.lab.notation import written
from echo_load.lab.processes.children import connected, context_of
from echo_load.lab.usage import check_supported

# Nothing here waits longer: what has not happened by then does not happen.
_DEADLINE = 20.0


# Monkey-patching.

_FETCH = """
import sys
if sys.argv[1] == "patched":
    from gevent import monkey
    monkey.patch_all()
import time, urllib.request
import gevent
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def fetch(url):
    return len(opener.open(url, timeout=10).read())
began = time.perf_counter()
jobs = [gevent.spawn(fetch, url) for url in sys.argv[2:]]
gevent.joinall(jobs, raise_error=True)
print(time.perf_counter() - began)
"""
_PAGE_SECONDS = (0.1, 0.15, 0.2)


class _SlowPages(BaseHTTPRequestHandler):
    """Answers after as many milliseconds as the path says."""

    def do_GET(self) -> None:  # the name that http.server asks for
        """Answer a request."""
        time.sleep(int(self.path[1:]) / 1000)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@contextmanager
def _pages() -> Iterator[list[str]]:
    """Serve three pages, and yield where they are."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _SlowPages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        yield [f"{base}/{int(seconds * 1000)}" for seconds in _PAGE_SECONDS]
        server.shutdown()


def fetch_pages(quick: bool) -> Iterator[Measurement]:
    """Fetch three pages with a greenlet each, in programs that are patched and that are not."""
    with _pages() as urls:
        for kind in ("patched", "not patched"):
            took = [
                float(
                    subprocess.run(
                        [sys.executable, "-I", "-c", _FETCH, kind, *urls],
                        stdout=subprocess.PIPE,
                        check=True,
                        timeout=_DEADLINE,
                    ).stdout
                )
                for _ in range(1 if quick else 5)
            ]
            yield Measurement("three pages took", tuple(took), "s", kind)


def conclude_pages(measurements: Measurements) -> Conclusion:
    """The patched program must have taken nearer to the slowest page than to the sum."""
    patched, other = (
        measurements.median("three pages took", kind) for kind in ("patched", "not patched")
    )
    slowest, total = max(_PAGE_SECONDS), sum(_PAGE_SECONDS)
    return Conclusion.when(
        patched < (slowest + total) / 2 <= other,
        f"three pages of 100, 150 and 200 ms took {written(patched, 's')} patched, where the "
        f"slowest alone takes {written(slowest, 's')}, and {written(other, 's')} unpatched, where "
        f"the sum is {written(total, 's')}.",
    )


# Blocking.

_BLOCKED_SECONDS = 0.3


def block(seconds: float) -> None:
    """Block the whole thread, as any call does that gevent has not patched."""
    time.sleep(seconds)


def block_the_hub(_quick: bool) -> Iterator[Measurement]:
    """Count a greenlet's ticks while another blocks, and while a thread of gevent's pool does."""
    reports: list[str] = []

    def on_event(event: object) -> None:
        if isinstance(event, gevent.events.EventLoopBlocked):
            reports.append("".join(event.info))

    gevent.events.subscribers.append(on_event)
    gevent.config.monitor_thread = True
    gevent.config.max_blocking_time = 0.1
    hub = get_hub()
    hub.start_periodic_monitoring_thread()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.005)
            ticks += 1

    ticking = gevent.spawn(tick)
    gevent.sleep(0.02)
    before = ticks
    gevent.spawn(block, _BLOCKED_SECONDS).join()
    yield Measurement("ticks meanwhile", (ticks - before,), "", "blocking call")
    before = ticks
    hub.threadpool.apply(block, (_BLOCKED_SECONDS,))
    yield Measurement("ticks meanwhile", (ticks - before,), "", "in gevent's thread pool")
    ticking.kill()
    named = sum("in block" in report for report in reports)
    yield Measurement("the monitor thread names the function", (named > 0,), "yes/no")


def conclude_blocking(measurements: Measurements) -> Conclusion:
    """Hardly any tick may have come while the call blocked, and many while the pool did."""
    blocked = measurements.median("ticks meanwhile", "blocking call")
    pooled = measurements.median("ticks meanwhile", "in gevent's thread pool")
    named = measurements.median("the monitor thread names the function")
    return Conclusion.when(
        blocked <= 2 and pooled > 5,
        f"while a call blocked for 300 ms another greenlet that ticks every 5 ms ticked "
        f"{format_count(int(blocked), 'time')}; in gevent's thread pool the same call let it tick "
        f"{format_count(int(pooled), 'time')}. GEVENT_MONITOR_THREAD_ENABLE=1 finds such calls: "
        f"its report {'named' if named else 'did not name'} the function.",
    )


# Cores.


def send_cores(seconds: float, end: Connection) -> None:
    """Keep greenlets busy in another process, and send through a pipe what `compute` returns."""
    end.send(compute(seconds))


def compute(seconds: float) -> tuple[float, float]:
    """Keep four greenlets busy, and return the cores that they used, and those they asked for.

    What a process asks for is the time that it ran and the time that it waited for a core.
    """

    def work() -> None:
        while time.perf_counter() < end:
            sum(range(1000))
            gevent.sleep(0)

    before = _run_and_waited()
    began = time.perf_counter()
    end = began + seconds
    gevent.joinall([gevent.spawn(work) for _ in range(4)])
    took = time.perf_counter() - began
    ran, waited = (after - then for after, then in zip(_run_and_waited(), before, strict=True))
    return ran / took, (ran + waited) / took


def _run_and_waited() -> tuple[float, float]:
    """Return the seconds that this process has run, and waited for a core (schedstat(5))."""
    ran, waited, _ = Path("/proc/self/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def use_cores(quick: bool) -> Iterator[Measurement]:
    """Keep greenlets busy in one process, and in two."""
    check_supported()
    if len(os.sched_getaffinity(0)) < 2:
        raise CannotRunError("this machine, or what it lets this process use of it, has one core")
    context = context_of("spawn")
    seconds, repeats = (0.3, 1) if quick else (0.5, 5)
    alone = [compute(seconds) for _ in range(repeats)]
    yield Measurement("cores used", tuple(used for used, _ in alone), "", "one process")
    yield Measurement("cores asked for", tuple(asked for _, asked in alone), "", "one process")
    together = []
    for _ in range(repeats):
        with ExitStack() as stack:
            ends = [stack.enter_context(connected(context, send_cores, seconds)) for _ in range(2)]
            found = [end.recv() for end in ends]
        together.append([sum(column) for column in zip(*found, strict=True)])
    yield Measurement("cores used", tuple(used for used, _ in together), "", "two processes")
    yield Measurement("cores asked for", tuple(asked for _, asked in together), "", "two processes")


def conclude_cores(measurements: Measurements) -> Conclusion:
    """One process must never have asked for more than a core, and two must have."""
    one, two = (
        measurements.find("cores asked for", kind) for kind in ("one process", "two processes")
    )
    used = {
        kind: measurements.median("cores used", kind) for kind in ("one process", "two processes")
    }
    return Conclusion.when(
        one.high <= 1.1 and two.median > 1.3,
        f"greenlets that are always busy used {written(used['one process'], '')} cores in "
        f"one process and {written(used['two processes'], '')} in two; counting the time spent "
        "waiting for a core, "
        f"{written(one.median, '')} and {written(two.median, '')}.",
    )


CHAPTER = Chapter(
    name="waiting",
    title="Coroutines that wait, block and compute",
    experiments=(
        Experiment(
            "monkey-patching",
            "After monkey.patch_all() urllib switches by itself: three pages are fetched at once.",
            "Programs fetch pages of 100, 150 and 200 ms from a server on this machine with a "
            "greenlet each.",
            fetch_pages,
            conclude_pages,
        ),
        Experiment(
            "blocking",
            "A blocking call stops the whole program.",
            "A greenlet ticks every 5 ms while another makes a blocking call of 300 ms, and while "
            "a thread of gevent's pool does; gevent's monitor thread looks for calls of 100 ms.",
            block_the_hub,
            conclude_blocking,
        ),
        Experiment(
            "cores",
            "Coroutines cannot use several cores; it takes several processes.",
            "Four greenlets that always have work run in one process and in each of two. What a "
            "process asks for is the time that it runs and the time that it waits for a core.",
            use_cores,
            conclude_cores,
        ),
    ),
)
