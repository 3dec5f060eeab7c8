"""The start of threads, their names, and the two ways to write them."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written


def start_threads(quick: bool) -> Iterator[Measurement]:
    """Start 1,000 threads that wait, and count how many are alive at once."""
    count, costs = 1000, []
    for _ in range(1 if quick else 5):
        release = threading.Event()
        # The first waits until the last has started, which takes long on a busy machine.
        threads = [threading.Thread(target=release.wait, args=(60.0,)) for _ in range(count)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        costs.append((time.perf_counter() - began) / count)
        alive = sum(thread.is_alive() for thread in threads)
        release.set()
        for thread in threads:
            thread.join()
    yield Measurement("a start", tuple(costs), "s")
    yield Measurement("started", (count,))
    yield Measurement("alive at once", (alive,))


def conclude_start(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if all were alive at once, and took less than 50 s to start."""
    cost, alive = measurements.median("a start"), measurements.median("alive at once")
    return Conclusion.when(
        alive == measurements.median("started") and cost < 0.05,
        f"{written(alive, '')} threads were alive at once; a start costs {written(cost, 's')}, so "
        f"one thread can start {written(1 / cost, '1/s')}.",
    )


def name_threads(_quick: bool) -> Iterator[Measurement]:
    """Check the default names of threads, and one that was given."""
    threads = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(10)]
    plain = sum(bool(re.fullmatch(r"Thread-\d+", thread.name)) for thread in threads)
    with_function = sum(bool(re.fullmatch(r"Thread-\d+ \(.+\)", one.name)) for one in threads)
    named = threading.Thread(name="reader")
    yield Measurement("named Thread-N", (plain,))
    yield Measurement("named Thread-N (function)", (with_function,))
    yield Measurement("keeps the name it is given", (named.name == "reader",), "yes/no")


def conclude_names(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if all names have the claimed form.

    That they have it with the function's name added is a limit.
    """
    if not measurements.median("keeps the name it is given"):
        return Conclusion("does not hold", "a thread did not keep the name that it was given")
    if measurements.median("named Thread-N") == 10:
        return Conclusion("holds", "10 of 10 threads were named Thread-1, Thread-2 and so on")
    with_function = written(measurements.median("named Thread-N (function)"), "")
    return Conclusion(
        "holds within a limit" if with_function == "10" else "does not hold",
        f"{with_function} of 10 threads were named Thread-N (function): since Python 3.10 the name "
        "of the target is part of it. `name=` gives a thread another name.",
    )


class Adder(threading.Thread):
    """A thread as a subclass, whose work is its `run`."""

    def __init__(self, ran_in: list[int]) -> None:
        super().__init__()
        self._ran_in = ran_in

    def run(self) -> None:
        """Note the thread in which this runs."""
        self._ran_in.append(threading.get_ident())


def note_thread(ran_in: list[int]) -> None:
    """Note the thread in which this runs, as a function."""
    ran_in.append(threading.get_ident())


def start_in_two_styles(quick: bool) -> Iterator[Measurement]:
    """Start threads of a subclass and threads with a target, and call `run` directly."""
    here = threading.get_ident()
    styles: dict[str, Callable[[list[int]], threading.Thread]] = {
        "target": lambda ran_in: threading.Thread(target=note_thread, args=(ran_in,)),
        "subclass": Adder,
    }
    count = 100
    costs: dict[str, list[float]] = {style: [] for style in styles}
    own = dict.fromkeys(styles, True)
    for _ in range(3 if quick else 10):
        took: dict[str, list[float]] = {style: [] for style in styles}
        ran_in: dict[str, list[int]] = {style: [] for style in styles}
        # One of each in turn, so that whatever else the machine does slows down both.
        for _ in range(count):
            for style, make in styles.items():
                began = time.perf_counter()
                thread = make(ran_in[style])
                thread.start()
                thread.join()
                took[style].append(time.perf_counter() - began)
        for style in styles:
            costs[style].append(statistics.median(took[style]))
            own[style] &= len(ran_in[style]) == count and here not in ran_in[style]
    for style, values in costs.items():
        yield Measurement("start and join", tuple(values), "s", style)
        yield Measurement("ran in a thread of its own", (own[style],), "yes/no", style)
    called: list[int] = []
    Adder(called).run()
    yield Measurement(
        "run() called directly stays in the calling thread", (called == [here],), "yes/no"
    )


def conclude_styles(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if both run in own threads, at costs within 1.5 times."""
    styles = ("target", "subclass")
    target, subclass = (measurements.median("start and join", style) for style in styles)
    own = [style for style in styles if measurements.median("ran in a thread of its own", style)]
    stays = measurements.median("run() called directly stays in the calling thread")
    return Conclusion.when(
        len(own) == 2 and bool(stays) and 1 / 1.5 < target / subclass < 1.5,
        f"ran in a thread of its own: {' and '.join(own) or 'neither'}; a start and a join "
        f"took {written(target, 's')} with a target and {written(subclass, 's')} as a "
        "subclass; "
        "`run()` called directly instead of `start()` "
        + ("starts no thread." if stays else "left the calling thread."),
    )


THREAD_START = Experiment(
    "thread-start",
    "A thousand threads can be started in a loop.",
    "1,000 threads that wait for an event are started by one thread.",
    start_threads,
    conclude_start,
)


THREAD_NAMES = Experiment(
    "thread-names",
    "Threads are named Thread-1, Thread-2 and so on.",
    "The names of ten threads with a target are looked at, and that of one with a name.",
    name_threads,
    conclude_names,
)


THREAD_STYLES = Experiment(
    "thread-styles",
    "A subclass with a run method and a target function are two ways to the same thread.",
    "100 threads of each style are started and joined in turn; `run` is called directly.",
    start_in_two_styles,
    conclude_styles,
)
