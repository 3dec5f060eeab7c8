"""The cores that greenlets use, in one process and in two."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import gevent
import gevent.events

from echo_load.lab.experiment import (
    CannotRunError,
    Conclusion,
    Experiment,
    Measurement,
    Measurements,
)
from echo_load.lab.notation import written
from echo_load.lab.processes.children import connected, context_of
from echo_load.lab.usage import check_supported


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
    """Conclude that the claim holds if one process asked for at most a core, and two for more."""
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


CORES = Experiment(
    "cores",
    "Coroutines cannot use several cores; it takes several processes.",
    "Four greenlets that always have work run in one process and in each of two. What a "
    "process asks for is the time that it runs and the time that it waits for a core.",
    use_cores,
    conclude_cores,
)
