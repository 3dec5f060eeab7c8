"""Coroutines: greenlets, their switches, and how many there can be."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from greenlet import getcurrent, greenlet

from echo_load.lab.experiment import Chapter, Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written
from echo_load.lab.processes.children import connected, context_of, messages
from echo_load.lab.usage import check_supported, memory

# Nothing here waits longer: what has not happened by then does not happen.
_DEADLINE = 20.0


# State.


def keep_state(_quick: bool) -> Iterator[Measurement]:
    """Let a generator and a greenlet add up what they are sent, in a variable of their own."""

    def generate() -> Iterator[int]:
        total = 0
        for number in range(1, 11):
            total += number
            yield total

    expected = [sum(range(1, number + 1)) for number in range(1, 11)]
    yield Measurement(
        "sums that were right", (list(generate()) == expected,), "yes/no", "generator"
    )

    def add() -> None:
        total = 0
        for number in range(1, 11):
            total += number
            caller.switch(total)

    caller = getcurrent()
    adding = greenlet(add)
    right = [adding.switch() for _ in range(10)] == expected
    yield Measurement("sums that were right", (right,), "yes/no", "greenlet")


def conclude_state(measurements: Measurements) -> Conclusion:
    """Both must have gone on with the value that they had."""
    kept = [one.of for one in measurements if one.median]
    return Conclusion.when(
        len(kept) == 2,
        f"{' and '.join(kept) or 'neither'} continued ten times from where it had stopped, with "
        "its sum intact.",
    )


# The order.

_ORDER = [
    "Running in foo",
    "Explicit context to bar",
    "Explicit context switch to foo again",
    "Implicit context switch back to bar",
]


def switch_between_two(_quick: bool) -> Iterator[Measurement]:
    """Let foo and bar say in turn where they are, as the tutorial does."""
    said: list[str] = []

    def foo() -> None:
        said.append("Running in foo")
        gevent.sleep(0)
        said.append("Explicit context switch to foo again")

    def bar() -> None:
        said.append("Explicit context to bar")
        gevent.sleep(0)
        said.append("Implicit context switch back to bar")

    gevent.joinall([gevent.spawn(foo), gevent.spawn(bar)])
    in_order = sum(one == other for one, other in zip(said, _ORDER, strict=True))
    yield Measurement("lines in the tutorial's order", (in_order,))


def conclude_order(measurements: Measurements) -> Conclusion:
    """All four lines must be where the tutorial has them."""
    in_order = measurements.median("lines in the tutorial's order")
    return Conclusion.when(
        in_order == len(_ORDER),
        f"{written(in_order, '')} of 4 lines came in the order in which the tutorial prints them.",
    )


# Switches.


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
    """A greenlet's must be cheaper than a thread's, by the hub too; the latter is a limit."""
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


# Many.


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
    """Return the same of threads."""
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
    """Tens of thousands of greenlets must have been there, quickly, and each of them small."""
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


# Atomic stretches.


def add_without_locks(_quick: bool) -> Iterator[Measurement]:
    """Let 100 greenlets add 1 to a number 100 times, with a switch within and without."""
    semaphore = BoundedSemaphore(1)
    value = 0

    def without_switch() -> None:
        nonlocal value
        read = value
        value = read + 1

    def with_switch() -> None:
        nonlocal value
        read = value
        gevent.sleep(0)
        value = read + 1

    def with_semaphore() -> None:
        with semaphore:
            with_switch()

    for kind, add in (
        ("no switch within", without_switch),
        ("a switch within", with_switch),
        ("a switch within, semaphore", with_semaphore),
    ):
        value = 0

        def work(add: Callable[[], None] = add) -> None:
            for _ in range(100):
                add()
                gevent.sleep(0)

        gevent.joinall([gevent.spawn(work) for _ in range(100)])
        yield Measurement("updates lost", (1 - value / 10_000,), "share", kind)


def conclude_atomic(measurements: Measurements) -> Conclusion:
    """Nothing may be lost without a switch within; that a switch loses is the limit."""
    lost = {one.of: one.median for one in measurements}
    statement = (
        f"of 10,000 updates by 100 greenlets {written(lost['no switch within'], 'share')} were "
        f"lost where none switches between reading and writing, "
        f"{written(lost['a switch within'], 'share')} where one does, and "
        f"{written(lost['a switch within, semaphore'], 'share')} with a semaphore around that."
    )
    if lost["no switch within"] or lost["a switch within, semaphore"]:
        return Conclusion("does not hold", statement)
    return Conclusion("holds within a limit" if lost["a switch within"] else "holds", statement)


CHAPTER = Chapter(
    name="coroutines",
    title="Coroutines",
    experiments=(
        Experiment(
            "coroutine-state",
            "A coroutine goes on where it left, with the state that it had.",
            "A generator and a greenlet add up numbers in a variable of their own, and are left "
            "after each.",
            keep_state,
            conclude_state,
        ),
        Experiment(
            "switch-order",
            "gevent.sleep(0) switches to the other greenlet: foo, bar, foo, bar.",
            "The tutorial's foo and bar note their lines.",
            switch_between_two,
            conclude_order,
        ),
        Experiment(
            "switch-cost",
            "Coroutines have none of the cost of switching between threads.",
            "Two greenlets, two threads and two processes hand over to one another on one core; "
            "the time is that of one handover.",
            switch_in_each_way,
            conclude_switches,
        ),
        Experiment(
            "greenlets",
            "One CPU supports tens of thousands of coroutines without a problem.",
            "10,000 and 100,000 greenlets, and threads, are started on one core and wait for an "
            "event; memory is the proportional set size of the process.",
            start_many,
            conclude_many,
        ),
        Experiment(
            "no-lock",
            "Coroutines need no lock: what runs is not interrupted.",
            "100 greenlets read a number and write it back one higher, with a switch in between, "
            "without, and with a semaphore around.",
            add_without_locks,
            conclude_atomic,
        ),
    ),
)
