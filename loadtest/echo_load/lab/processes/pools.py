"""Pools of processes and their tasks."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from echo_load.errors import LoadError
from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written
from echo_load.lab.processes.children import DEADLINE, context_of


def work(number: int) -> tuple[int, int]:
    """Take 20 ms, and return a result and the id of the process."""
    time.sleep(0.02)
    return number + 100, os.getpid()


def work_in_a_pool(_quick: bool) -> Iterator[Measurement]:
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
        yield Measurement("apply_async of ten took", (time.perf_counter() - began,), "s")
        pool.close()
        pool.join()
        yield Measurement("all ten were done after", (time.perf_counter() - began,), "s")
    yield Measurement("results called back", (len(results),))
    yield Measurement(
        "of them right", (len({result for result, _ in results} & set(range(100, 110))),)
    )
    yield Measurement("processes that worked", (len({pid for _, pid in results}),))
    elsewhere = threading.main_thread().name not in threads
    yield Measurement("called back in a thread of the pool's", (elsewhere,), "yes/no")


def conclude_pool(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if all results came back, from five processes at most."""
    back, right = measurements.median("results called back"), measurements.median("of them right")
    processes = measurements.median("processes that worked")
    elsewhere = measurements.median("called back in a thread of the pool's")
    took = measurements.median("all ten were done after")
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


def end_with_a_pool(quick: bool) -> Iterator[Measurement]:
    """End programs whose pool has ten tasks of 200 ms left, with close and join and without."""
    context_of("fork")
    for kind, ending in (("close and join", "pool.close(); pool.join()"), ("neither", "pass")):
        done = []
        for _ in range(1 if quick else 3):
            ended = subprocess.run(
                [sys.executable, "-I", "-c", _PROGRAM.format(ending=ending)],
                capture_output=True,
                check=False,
                timeout=DEADLINE,
            )
            if ended.returncode != 0:
                said = ended.stderr.decode(errors="backslashreplace").strip().splitlines()
                raise LoadError(f"the program failed: {said[-1] if said else ended.returncode}")
            done.append(len(ended.stdout.split()))
        yield Measurement("tasks done of ten", tuple(done), "", kind)


def conclude_end(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if all tasks are done with both, and some are lost without."""
    both = measurements.find("tasks done of ten", "close and join")
    neither = measurements.find("tasks done of ten", "neither")
    return Conclusion.when(
        both.low == 10 and neither.high < 10,
        f"with `close` and `join` {written(both.median, '')} of 10 tasks were done when the "
        f"program had ended, with neither {written(neither.median, '')}: what is not waited for is "
        "lost.",
    )


POOL = Experiment(
    "pool",
    "apply_async gives tasks to a pool and calls back with each result; where no process "
    "is free a task waits.",
    "A Pool(5) is given ten tasks of 20 ms.",
    work_in_a_pool,
    conclude_pool,
)

POOL_JOIN = Experiment(
    "pool-join",
    "Without pool.join the program simply closes.",
    "Programs give a Pool(5) ten tasks of 200 ms, and end with close and join or without.",
    end_with_a_pool,
    conclude_end,
)
