"""The cost of starting a process, and the memory that it shares with its parent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess

from echo_load.errors import LoadError
from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written
from echo_load.lab.processes.children import DEADLINE, METHODS, context_of, join, start


def nothing() -> None:
    """Do nothing, in a process or a thread that is started for it."""


def seconds_to_start_and_join(make: Callable[[], BaseProcess | threading.Thread]) -> float:
    """Return the seconds that starting and joining a process or a thread takes.

    Raises:
        LoadError: it did not end in time, or its exit code is not 0.
    """
    began = time.perf_counter()
    worker = make()
    if isinstance(worker, BaseProcess):
        start(worker)
        join(worker)
    else:
        worker.start()
        worker.join(DEADLINE)
    seconds = time.perf_counter() - began
    if worker.is_alive():
        raise LoadError(f"a thread did not end within {DEADLINE:.0f} s")
    return seconds


def start_by_each_method(quick: bool) -> Iterator[Measurement]:
    """Start and join processes by each method, and threads."""
    makers: dict[str, Callable[[], BaseProcess | threading.Thread]] = {
        "thread": partial(threading.Thread, target=nothing)
    }
    for method in METHODS:
        makers[method] = partial(context_of(method).Process, target=nothing)
    for kind, make in makers.items():
        # The first one pays for the server of forkserver, and for imports.
        seconds_to_start_and_join(make)
        repeats = 3 if quick else 10
        costs = tuple(seconds_to_start_and_join(make) for _ in range(repeats))
        yield Measurement("start and join", costs, "s", kind)


def conclude_start(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if the median of each method is above that of a thread."""
    costs = {one.of: one.median for one in measurements.named("start and join")}
    thread = costs.pop("thread")
    said = ", ".join(f"{written(cost, 's')} by {method}" for method, cost in costs.items())
    return Conclusion.when(
        min(costs.values()) > thread,
        f"a process takes {said} to start and join; a thread takes {written(thread, 's')}, which "
        f"is {min(costs.values()) / thread:.0f} to "
        f"{max(costs.values()) / thread:.0f} times faster.",
    )


def append(words: list[str]) -> None:
    """Append to a list, as the tutorial does."""
    words.append("child")


def append_elsewhere(quick: bool) -> Iterator[Measurement]:
    """Append to a list in a thread, and in a process of each method, and check it afterwards."""
    words = ["parent"]
    thread = threading.Thread(target=append, args=(words,))
    thread.start()
    thread.join(DEADLINE)
    yield Measurement("the parent sees the change", ("child" in words,), "yes/no", "thread")
    for method in METHODS[: 2 if quick else 3]:
        words = ["parent"]
        process = context_of(method).Process(target=append, args=(words,))
        start(process)
        join(process)
        yield Measurement("the parent sees the change", ("child" in words,), "yes/no", method)


def conclude_memory(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if only the thread changed the parent's list."""
    seen = {one.of: one.median for one in measurements}
    thread = seen.pop("thread")
    return Conclusion.when(
        bool(thread) and not any(seen.values()),
        f"what a thread appended was {'' if thread else 'not '}in the parent's list; of the "
        f"processes ({', '.join(seen)}) {written(sum(seen.values()), '')} changed it.",
    )


PROCESS_START = Experiment(
    "process-start",
    "A process has its memory and resources allotted by the system; a thread is lighter.",
    "Processes that do nothing are started and joined by each method, and threads.",
    start_by_each_method,
    conclude_start,
)

PROCESS_MEMORY = Experiment(
    "process-memory",
    "Processes do not share memory: what a child appends to a list the parent does not see.",
    "A thread, and a process of each start method, append to a list of the parent's.",
    append_elsewhere,
    conclude_memory,
)
