"""Threads: starting, naming and joining them, daemons, and timers."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from echo_core.units import format_count
from echo_load.lab.experiment import Chapter, Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written

# Nothing here waits longer: what has not happened by then does not happen.
_DEADLINE = 10.0


# Start.


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
    """All must have been alive together, and have taken less than 50 s to start."""
    cost, alive = measurements.median("a start"), measurements.median("alive at once")
    return Conclusion.when(
        alive == measurements.median("started") and cost < 0.05,
        f"{written(alive, '')} threads were alive at once; a start costs {written(cost, 's')}, so "
        f"one thread can start {written(1 / cost, '1/s')}.",
    )


# Names.


def name_threads(_quick: bool) -> Iterator[Measurement]:
    """Look at the names that threads have by default, and at one that was given."""
    threads = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(10)]
    plain = sum(bool(re.fullmatch(r"Thread-\d+", thread.name)) for thread in threads)
    with_function = sum(bool(re.fullmatch(r"Thread-\d+ \(.+\)", one.name)) for one in threads)
    named = threading.Thread(name="reader")
    yield Measurement("named Thread-N", (plain,))
    yield Measurement("named Thread-N (function)", (with_function,))
    yield Measurement("keeps the name it is given", (named.name == "reader",), "yes/no")


def conclude_names(measurements: Measurements) -> Conclusion:
    """All names must be of the claimed form; with the function's they are nearly."""
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


# Join.


def join_with_deadline(_quick: bool) -> Iterator[Measurement]:
    """Join a thread for 50 ms that is not done by then, and look what becomes of it."""
    release, finished = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(_DEADLINE)
        finished.set()

    thread = threading.Thread(target=work)
    thread.start()
    began = time.perf_counter()
    thread.join(timeout=0.05)
    yield Measurement("join(0.05) returned after", (time.perf_counter() - began,), "s")
    yield Measurement("alive after that", (thread.is_alive(),), "yes/no")
    release.set()
    thread.join(_DEADLINE)
    yield Measurement("finished its work later", (finished.is_set(),), "yes/no")


def conclude_join(measurements: Measurements) -> Conclusion:
    """The thread must have outlived the join, and have done its work."""
    waited = measurements.median("join(0.05) returned after")
    went_on = measurements.median("alive after that") and measurements.median(
        "finished its work later"
    )
    return Conclusion.when(
        bool(went_on) and waited >= 0.049,
        f"`join(0.05)` returned after {written(waited, 's')}; the thread "
        + ("went on and finished its work." if went_on else "did not go on."),
    )


def join_in_two_orders(quick: bool) -> Iterator[Measurement]:
    """Let 10 threads sleep 50 ms: start all and then join all, or join each before the next."""
    together, in_turn = [], []
    for _ in range(1 if quick else 5):
        threads = [threading.Thread(target=time.sleep, args=(0.05,)) for _ in range(10)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together.append(time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(10):
            thread = threading.Thread(target=time.sleep, args=(0.05,))
            thread.start()
            thread.join()
        in_turn.append(time.perf_counter() - began)
    yield Measurement("ten threads took", tuple(together), "s", "all started, then joined")
    yield Measurement("ten threads took", tuple(in_turn), "s", "each joined before the next")


def conclude_join_order(measurements: Measurements) -> Conclusion:
    """Joining must not have made the threads run one after the other."""
    together = measurements.median("ten threads took", "all started, then joined")
    in_turn = measurements.median("ten threads took", "each joined before the next")
    return Conclusion.when(
        together > in_turn / 2,
        f"ten threads that sleep 50 ms took {written(together, 's')} when all were started before "
        f"the first was joined, and {written(in_turn, 's')} when each was joined before the next "
        "was started: `join` only waits, and threads that have been started keep running.",
    )


# The two styles.


class Adder(threading.Thread):
    """A thread as a subclass: what it does is its `run`."""

    def __init__(self, ran_in: list[int]) -> None:
        super().__init__()
        self._ran_in = ran_in

    def run(self) -> None:
        """Note the thread in which this runs."""
        self._ran_in.append(threading.get_ident())


def note_thread(ran_in: list[int]) -> None:
    """Do the same as a function."""
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
    """Both must run in a thread of their own, and cost the same, within a factor of 1.5."""
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


# Daemon threads.

_PROGRAM = """
import threading, time
begun = threading.Event()
def work():
    begun.set()
    time.sleep(0.3)
    print("finished", flush=True)
threading.Thread(target=work, daemon={daemon}).start()
begun.wait()
"""


def end_with_threads(quick: bool) -> Iterator[Measurement]:
    """End a program whose thread has 300 ms of work left."""
    for kind, daemon in (("daemon", True), ("not a daemon", False)):
        finished, lasted = [], []
        for _ in range(1 if quick else 5):
            began = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, "-I", "-c", _PROGRAM.format(daemon=daemon)],
                stdout=subprocess.PIPE,
                check=True,
                timeout=_DEADLINE,
            )
            lasted.append(time.perf_counter() - began)
            finished.append(ended.stdout == b"finished\n")
        yield Measurement(
            "the thread finished its work", tuple(map(float, finished)), "share", kind
        )
        yield Measurement("the program lasted", tuple(lasted), "s", kind)


def conclude_daemon(measurements: Measurements) -> Conclusion:
    """A daemon must never have finished, another thread always."""
    daemon = measurements.find("the thread finished its work", "daemon")
    other = measurements.find("the thread finished its work", "not a daemon")
    lasted = measurements.median("the program lasted", "not a daemon")
    return Conclusion.when(
        daemon.high == 0 and other.low == 1,
        f"daemon threads finished their work in {written(daemon.median, 'share')} of the programs, "
        f"others in {written(other.median, 'share')}; these kept the program running, for "
        f"{written(lasted, 's')}.",
    )


# Timers.


def run_timers(quick: bool) -> Iterator[Measurement]:
    """Start timers of 50 ms, and cancel another before its time."""
    after, fired = [], []
    for _ in range(3 if quick else 20):
        instants: list[float] = []
        began = time.perf_counter()
        timer = threading.Timer(0.05, lambda: instants.append(time.perf_counter()))  # noqa: B023
        timer.start()
        timer.join()
        fired.append(len(instants))
        after += [instant - began for instant in instants]
    if after:
        yield Measurement("fired after", tuple(after), "s")
    yield Measurement("times that each fired", tuple(fired))
    cancelled: list[float] = []
    timer = threading.Timer(0.05, lambda: cancelled.append(time.perf_counter()))
    timer.start()
    timer.cancel()
    timer.join()
    yield Measurement("times that a cancelled one fired", (len(cancelled),))


def conclude_timers(measurements: Measurements) -> Conclusion:
    """Each must have fired once, neither early nor ten times too late; the cancelled one never."""
    fired = measurements.find("times that each fired")
    if not fired.high:
        return Conclusion("does not hold", "none of the timers of 50 ms fired")
    after = measurements.find("fired after")
    cancelled = measurements.median("times that a cancelled one fired")
    return Conclusion.when(
        fired.low == fired.high == 1
        and after.low >= 0.0499
        and after.median < 0.5
        and not cancelled,
        f"timers of 50 ms fired after {written(after.median, 's')}, the earliest after "
        f"{written(after.low, 's')}; a cancelled one fired "
        f"{format_count(int(cancelled), 'time')}.",
    )


CHAPTER = Chapter(
    name="threads",
    title="Threads",
    experiments=(
        Experiment(
            "thread-start",
            "A thousand threads can be started in a loop.",
            "1,000 threads that wait for an event are started by one thread.",
            start_threads,
            conclude_start,
        ),
        Experiment(
            "thread-names",
            "Threads are named Thread-1, Thread-2 and so on.",
            "The names of ten threads with a target are looked at, and that of one with a name.",
            name_threads,
            conclude_names,
        ),
        Experiment(
            "thread-join",
            "A join with a timeout stops waiting; it does not stop the thread.",
            "A thread that waits for an event is joined for 50 ms; then the event is set.",
            join_with_deadline,
            conclude_join,
        ),
        Experiment(
            "thread-join-order",
            "Join runs threads one after the other, and makes them pointless.",
            "Ten threads sleep 50 ms each; all are started before the first is joined, or each is "
            "joined before the next is started.",
            join_in_two_orders,
            conclude_join_order,
        ),
        Experiment(
            "thread-styles",
            "A subclass with a run method and a target function are two ways to the same thread.",
            "100 threads of each style are started and joined in turn; `run` is called directly.",
            start_in_two_styles,
            conclude_styles,
        ),
        Experiment(
            "thread-daemon",
            "Daemon threads end with the main program, done or not; others hold it until they are "
            "done.",
            "A program ends while a thread of its own has 300 ms of work left.",
            end_with_threads,
            conclude_daemon,
        ),
        Experiment(
            "timer",
            "A Timer calls a function once, after its time.",
            "Timers of 50 ms are started and joined; one is cancelled at once.",
            run_timers,
            conclude_timers,
        ),
    ),
)
