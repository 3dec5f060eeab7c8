"""Locks, without which updates may be lost, and locks that are taken twice."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from echo_load.lab.experiment import (
    Conclusion,
    Experiment,
    Measurement,
    Measurements,
    Verdict,
)
from echo_load.lab.notation import written


def one() -> int:
    """Return 1; the interpreter may switch threads at any call of a Python function."""
    return 1


class Counter:
    """A number to which threads add 1 in three ways."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self.value = 0
        self._lock = lock

    def add(self) -> None:
        """Add 1 in one statement."""
        with self._lock:
            self.value += 1

    def add_call(self) -> None:
        """Add what a function returns: the number is read before the call, and written after."""
        with self._lock:
            self.value += one()

    def add_slowly(self) -> None:
        """Read, pause and write, as where the new value takes time to compute."""
        with self._lock:
            value = self.value
            time.sleep(1e-6)
            self.value = value + 1


def _lost(add: Callable[[], None], counter: Counter, threads: int, times: int) -> float:
    """Return the share of updates that are lost when threads add some times each."""

    def work() -> None:
        for _ in range(times):
            add()

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return 1 - counter.value / (threads * times)


def count_with_and_without(quick: bool) -> Iterator[Measurement]:
    """Let 10,000 threads add 1 each, and 8 threads add many times, with a lock and without."""
    threads = 500 if quick else 10_000
    # Switch between threads as often as the interpreter can.
    sys.setswitchinterval(1e-6)
    # Threads that queue up for a lock at every switch take their time.
    for kind, make, times in (("no lock", nullcontext, 50_000), ("lock", threading.Lock, 500)):
        counter = Counter(make())
        yield Measurement(
            "lost", (_lost(counter.add, counter, threads, 1),), "share", f"+= 1, {kind}"
        )
        counter = Counter(make())
        lost = _lost(counter.add, counter, 8, times)
        yield Measurement("lost", (lost,), "share", f"+= 1 many times, {kind}")
        counter = Counter(make())
        lost = _lost(counter.add_call, counter, 8, times)
        yield Measurement("lost", (lost,), "share", f"+= one(), {kind}")
        counter = Counter(make())
        lost = _lost(counter.add_slowly, counter, 50, 10)
        yield Measurement("lost", (lost,), "share", f"read, pause, write, {kind}")


def conclude_lock(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if nothing is lost without a lock.

    That only `+= 1` loses nothing is a limit.
    """
    lost = {one.of: one.median for one in measurements.named("lost")}
    locked = max(share for of, share in lost.items() if of.endswith(", lock"))
    at_once = max(lost["+= 1, no lock"], lost["+= 1 many times, no lock"])
    with_call, in_steps = lost["+= one(), no lock"], lost["read, pause, write, no lock"]
    verdict: Verdict = "does not hold"
    if not locked and not at_once:
        verdict = "holds within a limit" if with_call or in_steps else "holds"
    return Conclusion(
        verdict,
        f"without a lock `+= 1` lost {written(at_once, 'share')} of the updates on this "
        f"interpreter, `+= one()` {written(with_call, 'share')}, and read, pause, write "
        f"{written(in_steps, 'share')}; with a lock {written(locked, 'share')} were lost. That an "
        "interpreter does not switch threads within `+= 1` is not guaranteed, and no longer holds "
        "when the update has a second step.",
    )


def nest_locks(_quick: bool) -> Iterator[Measurement]:
    """Take a lock that this thread has already, with a deadline of 100 ms."""
    kinds: dict[str, Callable[[], threading.Lock | threading.RLock]] = {
        "Lock": threading.Lock,
        "RLock": threading.RLock,
    }
    for kind, make in kinds.items():
        lock = make()
        with lock:
            began = time.perf_counter()
            taken = lock.acquire(timeout=0.1)
            waited = time.perf_counter() - began
            if taken:
                lock.release()
        yield Measurement("taken a second time", (taken,), "yes/no", kind)
        yield Measurement("waited", (waited,), "s", kind)


def conclude_nesting(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if the RLock was taken twice, and the Lock was not."""
    lock, rlock = (measurements.median("taken a second time", kind) for kind in ("Lock", "RLock"))
    waited = measurements.median("waited", "Lock")
    return Conclusion.when(
        not lock and bool(rlock),
        f"the thread that has an RLock {'took' if rlock else 'could not take'} it a second time; "
        + (
            "with a Lock it did so too."
            if lock
            else f"with a Lock it gave up after {written(waited, 's')}: without a deadline it "
            "would have waited for itself for ever."
        ),
    )


LOCK = Experiment(
    "lock",
    "Python 3 has mended this: without a lock the result is right too.",
    "Threads add 1 to a number, with `+= 1`, with `+= one()`, and by reading, pausing for "
    "a microsecond and writing; the interpreter switches between threads as often as it "
    "can.",
    count_with_and_without,
    conclude_lock,
    # On a busy machine a start takes 20 ms and more, and there are 20,000 of them.
    seconds=600.0,
)


RLOCK = Experiment(
    "rlock",
    "Where a lock is taken within itself a Lock does not do; it takes an RLock.",
    "A thread takes a lock that it has already, and gives up after 100 ms.",
    nest_locks,
    conclude_nesting,
)
