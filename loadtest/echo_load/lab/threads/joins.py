"""The ways to wait for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written

# The longest wait in seconds.
_DEADLINE = 10.0


def join_with_deadline(_quick: bool) -> Iterator[Measurement]:
    """Join a thread for 50 ms that is not done by then, and check that it continues."""
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
    """Conclude that the claim holds if the thread outlived the join, and finished its work."""
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
    """Conclude that the claim holds if joining made the threads run one after the other."""
    together = measurements.median("ten threads took", "all started, then joined")
    in_turn = measurements.median("ten threads took", "each joined before the next")
    return Conclusion.when(
        together > in_turn / 2,
        f"ten threads that sleep 50 ms took {written(together, 's')} when all were started before "
        f"the first was joined, and {written(in_turn, 's')} when each was joined before the next "
        "was started: `join` only waits, and threads that have been started keep running.",
    )


THREAD_JOIN = Experiment(
    "thread-join",
    "A join with a timeout stops waiting; it does not stop the thread.",
    "A thread that waits for an event is joined for 50 ms; then the event is set.",
    join_with_deadline,
    conclude_join,
)


THREAD_JOIN_ORDER = Experiment(
    "thread-join-order",
    "Join runs threads one after the other, and makes them pointless.",
    "Ten threads sleep 50 ms each; all are started before the first is joined, or each is "
    "joined before the next is started.",
    join_in_two_orders,
    conclude_join_order,
)
