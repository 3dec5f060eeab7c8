"""Large numbers of greenlets and threads that wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import gevent
from gevent.event import Event

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written
from echo_load.lab.usage import check_supported, memory

# The longest wait in seconds.
_DEADLINE = 20.0


def _start_greenlets(count: int) -> tuple[float, float]:
    """Return the seconds that a greenlet takes to start, and its bytes while it waits."""
    release = Event()
    before = memory([os.getpid()])
    began = time.perf_counter()
    waiting = [gevent.spawn(release.wait) for _ in range(count)]
    # They run in the order in which they were spawned: with this one all have.
    gevent.spawn(lambda: None).join()
    seconds = time.perf_counter() - began
    used = memory([os.getpid()]) - before
    release.set()
    gevent.joinall(waiting)
    return seconds / count, used / count


def _start_threads(count: int) -> tuple[float, float]:
    """Return the seconds that a thread takes to start, and its bytes while it waits."""
    release, begun = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        begun.release()
        release.wait()

    before = memory([os.getpid()])
    began = time.perf_counter()
    waiting = [threading.Thread(target=wait, daemon=True) for _ in range(count)]
    try:
        for thread in waiting:
            thread.start()
            begun.acquire(timeout=_DEADLINE)
        seconds = time.perf_counter() - began
        used = memory([os.getpid()]) - before
    finally:
        release.set()
    for thread in waiting:
        thread.join()
    return seconds / count, used / count


def start_many(quick: bool) -> Iterator[Measurement]:
    """Start greenlets and threads that wait, on one core."""
    check_supported()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    cases = [("greenlet", _start_greenlets, 10_000), ("thread", _start_threads, 1000)]
    if not quick:
        cases += [("greenlet", _start_greenlets, 100_000), ("thread", _start_threads, 10_000)]
    for kind, start, count in cases:
        seconds, used = start(count)
        yield Measurement("start", (seconds,), "s", kind, count)
        yield Measurement("memory", (used,), "B", kind, count)


def conclude_many(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if 10,000 or more waited, each small and quick to start."""
    found = list(measurements.named("memory"))
    most = {one.of: one for one in sorted(found, key=lambda one: one.at or 0)}
    greenlets, threads = most["greenlet"], most["thread"]
    starts = {kind: measurements.median("start", kind, one.at) for kind, one in most.items()}
    return Conclusion.when(
        (greenlets.at or 0) >= 10_000
        and greenlets.median < 32 * 1024
        and starts["greenlet"] < 1e-3,
        f"{greenlets.at:,} greenlets waited on one core with {written(greenlets.median, 'B')} each,"
        f" started in {written(starts['greenlet'], 's')} each; {threads.at:,} threads with "
        f"{written(threads.median, 'B')} each, without the kernel's part, started in "
        f"{written(starts['thread'], 's')} each.",
    )


GREENLETS = Experiment(
    "greenlets",
    "One CPU supports tens of thousands of coroutines without a problem.",
    "10,000 and 100,000 greenlets, and threads, are started on one core and wait for an "
    "event; memory is the proportional set size of the process.",
    start_many,
    conclude_many,
)
