"""The cost of a switch between greenlets, threads and processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import gevent
from greenlet import getcurrent, greenlet

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written
from echo_load.lab.processes.children import connected, context_of, messages

# The longest wait in seconds.
_DEADLINE = 20.0


def _switch_greenlets(count: int) -> float:
    """Return the seconds of a switch between two greenlets, without a hub."""
    caller = getcurrent()

    def bounce() -> None:
        while True:
            caller.switch()

    other = greenlet(bounce)
    began = time.perf_counter()
    for _ in range(count):
        other.switch()
    return (time.perf_counter() - began) / (2 * count)


def _switch_by_hub(count: int) -> float:
    """Return the seconds until gevent's hub has run another greenlet."""

    def run() -> None:
        for _ in range(count):
            gevent.sleep(0)

    both = [gevent.spawn(run) for _ in range(2)]
    began = time.perf_counter()
    gevent.joinall(both)
    return (time.perf_counter() - began) / (2 * count)


def _switch_threads(count: int) -> float:
    """Return the seconds until another thread, told by a semaphore, runs."""
    here, there = threading.Semaphore(0), threading.Semaphore(0)

    def bounce() -> None:
        for _ in range(count):
            there.acquire(timeout=_DEADLINE)
            here.release()

    other = threading.Thread(target=bounce)
    other.start()
    began = time.perf_counter()
    for _ in range(count):
        there.release()
        here.acquire(timeout=_DEADLINE)
    seconds = time.perf_counter() - began
    other.join()
    return seconds / (2 * count)


def answer(end: Connection) -> None:
    """Answer each message that comes through a pipe, in another process."""
    for _ in messages(end):
        end.send_bytes(b"1")


def _switch_processes(count: int) -> float:
    """Return the seconds until another process, told through a pipe, runs."""
    with connected(context_of("spawn"), answer) as end:
        end.send_bytes(b"1")
        end.recv_bytes()
        began = time.perf_counter()
        for _ in range(count):
            end.send_bytes(b"1")
            end.recv_bytes()
        return (time.perf_counter() - began) / (2 * count)


_SWITCHES: dict[str, tuple[Callable[[int], float], int]] = {
    "greenlet": (_switch_greenlets, 50_000),
    "greenlet by gevent's hub": (_switch_by_hub, 10_000),
    "thread": (_switch_threads, 5000),
    "process": (_switch_processes, 5000),
}


def switch_in_each_way(quick: bool) -> Iterator[Measurement]:
    """Hand over to another greenlet, thread and process and back, many times."""
    # On one core, as a switch is what is measured and not the waking of another core.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    for kind, (switch, count) in _SWITCHES.items():
        costs = tuple(switch(count // 5 if quick else count) for _ in range(3 if quick else 7))
        yield Measurement("a switch", costs, "s", kind)


def conclude_switches(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if greenlets switch faster than threads, also by the hub.

    That they are not faster by the hub is a limit.
    """
    costs = {one.of: one.median for one in measurements.named("a switch")}
    bare, by_hub, thread = (
        costs[kind] for kind in ("greenlet", "greenlet by gevent's hub", "thread")
    )
    statement = (
        f"a switch takes {written(bare, 's')} between greenlets, {written(by_hub, 's')} by "
        f"gevent's hub, {written(thread, 's')} between threads and "
        f"{written(costs['process'], 's')} between processes, on one core."
    )
    if bare * 1.5 > thread:
        return Conclusion("does not hold", statement)
    return Conclusion("holds" if by_hub * 1.5 < thread else "holds within a limit", statement)


SWITCH_COST = Experiment(
    "switch-cost",
    "Coroutines have none of the cost of switching between threads.",
    "Two greenlets, two threads and two processes hand over to one another on one core; "
    "the time is that of one handover.",
    switch_in_each_way,
    conclude_switches,
)
