"""Processes: starting them, what they share, how they talk, locks and pools."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Barrier, Lock
from typing import Any, Protocol, cast

from echo_load.errors import LoadError
from echo_load.lab.experiment import (
    CannotRunError,
    Chapter,
    Conclusion,
    Experiment,
    Figure,
    Figures,
)
from echo_load.lab.notation import written

# Nothing here waits longer: what has not happened by then does not happen.
_DEADLINE = 20.0
_METHODS = ("fork", "spawn", "forkserver")


def _context(method: str) -> SpawnContext:
    """Return the context of a start method.

    Raises:
        CannotRunError: this system does not have it.
    """
    if method not in multiprocessing.get_all_start_methods():
        raise CannotRunError(f"this system does not start processes by {method}")
    # All contexts have the same names.
    return cast("SpawnContext", multiprocessing.get_context(method))


def _join(*processes: BaseProcess) -> None:
    """Wait for processes.

    Raises:
        LoadError: one has not ended in time, or has failed: what it has not done is no figure.
    """
    for process in processes:
        process.join(_DEADLINE)
        if process.exitcode is None:
            raise LoadError(f"a process did not end within {_DEADLINE:.0f} s")
        if process.exitcode != 0:
            raise LoadError(f"a process ended with exit code {process.exitcode}")


# Start.


def nothing() -> None:
    """Do nothing, in a process or a thread that is started for it."""


class Worker(Protocol):
    """What processes and threads have in common."""

    def start(self) -> None:
        """Start it."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""

    def is_alive(self) -> bool:
        """Return whether it has started and not ended."""


def _start_and_join(make: Callable[[], Worker]) -> float:
    """Return the seconds that starting and joining a process or a thread takes."""
    began = time.perf_counter()
    worker = make()
    worker.start()
    worker.join(_DEADLINE)
    if worker.is_alive():
        raise LoadError(f"a process or a thread did not end within {_DEADLINE:.0f} s")
    return time.perf_counter() - began


def start_by_each_method(quick: bool) -> Iterator[Figure]:
    """Start and join processes by each method, and threads."""
    makers: dict[str, Callable[[], Worker]] = {"thread": partial(threading.Thread, target=nothing)}
    for method in _METHODS:
        makers[method] = partial(_context(method).Process, target=nothing)
    for kind, make in makers.items():
        # The first one pays for the server of forkserver, and for imports.
        _start_and_join(make)
        repeats = 3 if quick else 10
        costs = tuple(_start_and_join(make) for _ in range(repeats))
        yield Figure("start and join", costs, "s", kind)


def judge_start(figures: Figures) -> Conclusion:
    """Each must cost more than a thread, by the median."""
    costs = {one.of: one.median for one in figures.named("start and join")}
    thread = costs.pop("thread")
    said = ", ".join(f"{written(cost, 's')} by {method}" for method, cost in costs.items())
    return Conclusion.when(
        min(costs.values()) > thread,
        f"a process takes {said} to start and join; a thread takes {written(thread, 's')}, which "
        f"is {min(costs.values()) / thread:.0f} to "
        f"{max(costs.values()) / thread:.0f} times faster.",
    )


# Memory.


def append(words: list[str]) -> None:
    """Append to a list, as the tutorial does."""
    words.append("child")


def append_elsewhere(quick: bool) -> Iterator[Figure]:
    """Append to a list in a thread, and in a process of each method; look at it afterwards."""
    words = ["parent"]
    thread = threading.Thread(target=append, args=(words,))
    thread.start()
    thread.join(_DEADLINE)
    yield Figure("the parent sees the change", ("child" in words,), "yes/no", "thread")
    for method in _METHODS[: 2 if quick else 3]:
        words = ["parent"]
        process = _context(method).Process(target=append, args=(words,))
        process.start()
        _join(process)
        yield Figure("the parent sees the change", ("child" in words,), "yes/no", method)


def judge_memory(figures: Figures) -> Conclusion:
    """Only the thread may have changed the parent's list."""
    seen = {one.of: one.median for one in figures}
    thread = seen.pop("thread")
    return Conclusion.when(
        bool(thread) and not any(seen.values()),
        f"what a thread appended was {'' if thread else 'not '}in the parent's list; of the "
        f"processes ({', '.join(seen)}) {written(sum(seen.values()), '')} changed it.",
    )


# Communication.

_SMALL = b"x" * 64
_LARGE = b"x" * (1 << 20)
_MANAGER = "Manager's dict"


def _echo_queues(there: Any, back: Any) -> None:
    while (message := there.get()) is not None:
        back.put(message)


def _echo_pipe(end: Connection) -> None:
    while (message := end.recv_bytes()) != b"":
        end.send_bytes(message)


def _echo_memory(name: str, end: Connection) -> None:
    """Copy what is in the first half of some shared memory to its second half, when told to."""
    memory = SharedMemory(name)
    assert memory.buf is not None
    half = memory.size // 2
    while size := int.from_bytes(end.recv_bytes()):
        memory.buf[half : half + size] = memory.buf[:size]
        end.send_bytes(b"done")
    memory.close()


def _measured(
    exchange: Callable[[bytes], bytes], quick: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return latencies of small messages, and bytes a second of large ones, there and back."""
    exchange(_SMALL)  # its process has to start first
    latencies, throughputs = [], []
    for _ in range(3 if quick else 7):
        count = 200
        began = time.perf_counter()
        for _ in range(count):
            exchange(_SMALL)
        latencies.append((time.perf_counter() - began) / count)
        began = time.perf_counter()
        for _ in range(10):
            answer = exchange(_LARGE)
        throughputs.append(2 * 10 * len(_LARGE) / (time.perf_counter() - began))
        if answer != _LARGE:
            raise LoadError("what came back is not what was sent")
    return tuple(latencies), tuple(throughputs)


def exchange_by_each_way(quick: bool) -> Iterator[Figure]:
    """Send bytes to another process and back: by queues, a pipe, shared memory and a manager."""
    context = multiprocessing.get_context("spawn")
    there, back = context.Queue(), context.Queue()
    process = context.Process(target=_echo_queues, args=(there, back), daemon=True)
    process.start()

    def through_queues(message: bytes) -> bytes:
        there.put(message)
        answer: bytes = back.get(timeout=_DEADLINE)
        return answer

    yield from _figures("Queue", through_queues, quick)
    there.put(None)
    process.join(_DEADLINE)

    ours, theirs = context.Pipe()
    process = context.Process(target=_echo_pipe, args=(theirs,), daemon=True)
    process.start()

    def through_pipe(message: bytes) -> bytes:
        ours.send_bytes(message)
        return ours.recv_bytes()

    yield from _figures("Pipe", through_pipe, quick)
    ours.send_bytes(b"")
    process.join(_DEADLINE)

    yield from _exchange_in_shared_memory(context, quick)

    with context.Manager() as manager:
        numbered = manager.dict()
        listed = manager.list([b""])

        def through_dict(message: bytes) -> bytes:
            numbered[0] = message
            answer: bytes = numbered[0]
            return answer

        def through_list(message: bytes) -> bytes:
            listed[0] = message
            answer: bytes = listed[0]
            return answer

        yield from _figures(_MANAGER, through_dict, quick)
        yield from _figures("Manager's list", through_list, quick)


def _exchange_in_shared_memory(context: SpawnContext, quick: bool) -> Iterator[Figure]:
    memory = SharedMemory(create=True, size=2 * len(_LARGE))
    shared = memory.buf
    assert shared is not None
    try:
        ours, theirs = multiprocessing.Pipe()
        process = context.Process(target=_echo_memory, args=(memory.name, theirs), daemon=True)
        process.start()

        def through_memory(message: bytes) -> bytes:
            half = memory.size // 2
            shared[: len(message)] = message
            ours.send_bytes(len(message).to_bytes(4))
            ours.recv_bytes()
            return bytes(shared[half : half + len(message)])

        yield from _figures("shared memory and Pipe", through_memory, quick)
        ours.send_bytes((0).to_bytes(4))
        process.join(_DEADLINE)
    finally:
        memory.close()
        memory.unlink()


def _figures(way: str, exchange: Callable[[bytes], bytes], quick: bool) -> Iterator[Figure]:
    latencies, throughputs = _measured(exchange, quick)
    yield Figure("round trip of 64 bytes", latencies, "s", way)
    yield Figure("throughput of 1 MiB", throughputs, "B/s", way)


def judge_ways(figures: Figures) -> Conclusion:
    """A queue must be the fastest way for the claim to hold that it is the only one to use."""
    latency = {one.of: one.median for one in figures.named("round trip of 64 bytes")}
    throughput = {one.of: one.median for one in figures.named("throughput of 1 MiB")}
    quickest = min(latency, key=latency.__getitem__)
    widest = max(throughput, key=throughput.__getitem__)
    return Conclusion.when(
        quickest == widest == "Queue",
        f"a queue takes {written(latency['Queue'], 's')} for a round trip and moves "
        f"{written(throughput['Queue'], 'B/s')}; the fastest round trip is that of {quickest}, "
        f"{written(latency[quickest], 's')}, and the highest throughput that of {widest}, "
        f"{written(throughput[widest], 'B/s')}. A manager's dict, which is in a server process, "
        f"takes {written(latency[_MANAGER], 's')} to write and read.",
    )


def note(numbers: Any, pids: Any) -> None:
    """Write into a manager's dict and list, as the tutorial does."""
    numbers["1"] = 1
    numbers["2"] = 2
    pids.append(os.getpid())


def share_by_manager(_quick: bool) -> Iterator[Figure]:
    """Let ten processes write into a manager's dict and list."""
    context = _context("fork")
    with context.Manager() as manager:
        numbers, pids = manager.dict(), manager.list()
        processes = [context.Process(target=note, args=(numbers, pids)) for _ in range(10)]
        for process in processes:
            process.start()
        _join(*processes)
        yield Figure("the dict has both keys", (dict(numbers) == {"1": 1, "2": 2},), "yes/no")
        yield Figure("different process ids in the list", (len(set(pids)),))


def judge_manager(figures: Figures) -> Conclusion:
    """What all ten have written must be there."""
    keys = figures.median("the dict has both keys")
    pids = figures.median("different process ids in the list")
    return Conclusion.when(
        bool(keys) and pids == 10,
        f"the list holds {written(pids, '')} of 10 process ids, and the dict "
        + ("what was written to it." if keys else "not what was written to it."),
    )


# Locks.

_LINES = 2000


def write_lines(
    descriptor: int, letter: str, gate: Barrier, lock: Lock | None, at_once: bool
) -> None:
    """Write lines of one letter, each in one piece or in three, with a lock or without."""
    gate.wait(_DEADLINE)
    line = letter * 30
    pieces = [f"{line}\n".encode()] if at_once else [letter.encode() * 15] * 2 + [b"\n"]
    for _ in range(_LINES):
        with lock or nullcontext():
            for piece in pieces:
                os.write(descriptor, piece)


def mix_lines(quick: bool) -> Iterator[Figure]:
    """Let four processes write lines to one pipe, and count those that are not whole."""
    context = _context("fork")
    cases = (
        ("in pieces, no lock", None, False),
        ("in pieces, lock", context.Lock(), False),
        ("in one write, no lock", None, True),
    )
    for kind, lock, at_once in cases:
        shares = tuple(_torn(context, lock, at_once) for _ in range(1 if quick else 5))
        yield Figure("lines not whole", shares, "share", kind)


def _torn(context: SpawnContext, lock: Lock | None, at_once: bool) -> float:
    """Return the share of lines that hold more than one letter, or not all of it."""
    reading, writing = os.pipe()
    gate = context.Barrier(4)
    writers = [
        context.Process(target=write_lines, args=(writing, letter, gate, lock, at_once))
        for letter in "abcd"
    ]
    for writer in writers:
        writer.start()
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123  # a descriptor
        lines = pipe.read().splitlines()
    _join(*writers)
    whole = sum(len(line) == 30 and len(set(line)) == 1 for line in lines)
    return 1 - whole / (len(writers) * _LINES)


def judge_lines(figures: Figures) -> Conclusion:
    """Lines must mix without the lock and never with it; one write each is a limit."""
    torn = {one.of: one for one in figures}
    bare, locked = torn["in pieces, no lock"], torn["in pieces, lock"]
    at_once = torn["in one write, no lock"]
    statement = (
        f"of lines written in three pieces {written(bare.median, 'share')} were broken up without "
        f"the lock and {written(locked.high, 'share')} with it; of lines written with one write of "
        f"less than 4 KiB (PIPE_BUF) {written(at_once.high, 'share')}, without any lock."
    )
    if locked.high or not bare.high:
        return Conclusion("does not hold", statement)
    return Conclusion("holds" if at_once.high else "holds within a limit", statement)


# Pools.


def work(number: int) -> tuple[int, int]:
    """Take 20 ms, and return a result and the process that made it."""
    time.sleep(0.02)
    return number + 100, os.getpid()


def work_in_a_pool(_quick: bool) -> Iterator[Figure]:
    """Give a pool of five processes ten tasks with a callback, close it and join it."""
    results: list[tuple[int, int]] = []
    threads: set[str] = set()

    def on_result(result: tuple[int, int]) -> None:
        results.append(result)
        threads.add(threading.current_thread().name)

    with multiprocessing.get_context("spawn").Pool(5) as pool:
        # All five have started before the clock does.
        pool.map(work, range(5), chunksize=1)
        began = time.perf_counter()
        for number in range(10):
            pool.apply_async(work, (number,), callback=on_result)
        yield Figure("apply_async of ten took", (time.perf_counter() - began,), "s")
        pool.close()
        pool.join()
        yield Figure("all ten were done after", (time.perf_counter() - began,), "s")
    yield Figure("results called back", (len(results),))
    yield Figure("of them right", (len({result for result, _ in results} & set(range(100, 110))),))
    yield Figure("processes that worked", (len({pid for _, pid in results}),))
    elsewhere = threading.main_thread().name not in threads
    yield Figure("called back in a thread of the pool's", (elsewhere,), "yes/no")


def judge_pool(figures: Figures) -> Conclusion:
    """All results must have been called back, by no more than five processes."""
    back, right = figures.median("results called back"), figures.median("of them right")
    processes = figures.median("processes that worked")
    elsewhere = figures.median("called back in a thread of the pool's")
    took = figures.median("all ten were done after")
    return Conclusion.when(
        back == right == 10 and processes <= 5,
        f"{written(right, '')} of 10 results were called back, from {written(processes, '')} "
        f"processes, in {written(took, 's')} for ten tasks of 20 ms; the callback ran in "
        + ("a thread of the pool, so it must be quick." if elsewhere else "the main thread."),
    )


_PROGRAM = """
import multiprocessing, time
def work(number):
    time.sleep(0.2)
    return number
def main():
    pool = multiprocessing.get_context("fork").Pool(5)
    for number in range(10):
        pool.apply_async(work, (number,), callback=lambda result: print(result, flush=True))
    {ending}
main()
"""


def end_with_a_pool(quick: bool) -> Iterator[Figure]:
    """End programs whose pool has ten tasks of 200 ms left, with close and join and without."""
    _context("fork")
    for kind, ending in (("close and join", "pool.close(); pool.join()"), ("neither", "pass")):
        done = []
        for _ in range(1 if quick else 3):
            ended = subprocess.run(
                [sys.executable, "-I", "-c", _PROGRAM.format(ending=ending)],
                capture_output=True,
                check=False,
                timeout=_DEADLINE,
            )
            if ended.returncode != 0:
                said = ended.stderr.decode(errors="backslashreplace").strip().splitlines()
                raise LoadError(f"the program failed: {said[-1] if said else ended.returncode}")
            done.append(len(ended.stdout.split()))
        yield Figure("tasks done of ten", tuple(done), "", kind)


def judge_end(figures: Figures) -> Conclusion:
    """All must be done with both, and some lost without."""
    both = figures.find("tasks done of ten", "close and join")
    neither = figures.find("tasks done of ten", "neither")
    return Conclusion.when(
        both.low == 10 and neither.high < 10,
        f"with `close` and `join` {written(both.median, '')} of 10 tasks were done when the "
        f"program had ended, with neither {written(neither.median, '')}: what is not waited for is "
        "lost.",
    )


CHAPTER = Chapter(
    name="processes",
    title="Processes",
    experiments=(
        Experiment(
            "process-start",
            "A process has its memory and resources allotted by the system; a thread is lighter.",
            "Processes that do nothing are started and joined by each method, and threads.",
            start_by_each_method,
            judge_start,
        ),
        Experiment(
            "process-memory",
            "Processes do not share memory: what a child appends to a list the parent does not "
            "see.",
            "A thread, and a process of each start method, append to a list of the parent's.",
            append_elsewhere,
            judge_memory,
        ),
        Experiment(
            "process-exchange",
            "As processes do not share memory, only a queue will do.",
            "Messages of 64 bytes and of 1 MiB go to another process and back by two Queues, a "
            "Pipe, and shared memory with a Pipe to say when; a Manager's dict and list are written"
            " and read.",
            exchange_by_each_way,
            judge_ways,
        ),
        Experiment(
            "manager",
            "A Manager's dict and list are shared between processes.",
            "Ten processes write two keys into a dict and append their ids to a list.",
            share_by_manager,
            judge_manager,
        ),
        Experiment(
            "process-lock",
            "Without the lock output from the different processes is liable to get all mixed up.",
            "Four processes write 2,000 lines each to one pipe: in three pieces with and without a "
            "lock, and in one write without.",
            mix_lines,
            judge_lines,
        ),
        Experiment(
            "pool",
            "apply_async gives tasks to a pool and calls back with each result; where no process "
            "is free a task waits.",
            "A Pool(5) is given ten tasks of 20 ms.",
            work_in_a_pool,
            judge_pool,
        ),
        Experiment(
            "pool-join",
            "Without pool.join the program simply closes.",
            "Programs give a Pool(5) ten tasks of 200 ms, and end with close and join or without.",
            end_with_a_pool,
            judge_end,
        ),
    ),
)
