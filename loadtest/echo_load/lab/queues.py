"""Queues, through which threads pass work to one another."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence

from echo_load.lab.experiment import Chapter, Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written

# The longest wait in seconds.
_DEADLINE = 10.0


def order_in_queues(_quick: bool) -> Iterator[Measurement]:
    """Put ten numbers into each kind of queue, and take them out."""
    put = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    orders: dict[str, tuple[queue.Queue[int], Sequence[int]]] = {
        "Queue": (queue.Queue(), put),
        "LifoQueue": (queue.LifoQueue(), put[::-1]),
        "PriorityQueue": (queue.PriorityQueue(), sorted(put)),
    }
    for kind, (items, expected) in orders.items():
        for number in put:
            items.put(number)
        taken = [items.get(timeout=_DEADLINE) for _ in put]
        in_order = sum(one == other for one, other in zip(taken, expected, strict=True))
        yield Measurement("of ten in the order claimed", (in_order,), "", kind)


def conclude_orders(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if all items came out in the claimed order."""
    found = list(measurements)
    said = ", ".join(f"{one.of} {written(one.median, '')} of 10" for one in found)
    return Conclusion.when(
        all(one.median == 10 for one in found), f"items that came out in the claimed order: {said}."
    )


def bound_a_queue(_quick: bool) -> Iterator[Measurement]:
    """Fill Queue(maxsize=2), put once more, and get from an empty one, with deadlines of 50 ms."""
    items: queue.Queue[int] = queue.Queue(maxsize=2)
    items.put(1)
    items.put(2)
    began = time.perf_counter()
    try:
        items.put(3, timeout=0.05)
    except queue.Full:
        yield Measurement("Full after", (time.perf_counter() - began,), "s")
    put = threading.Thread(target=items.put, args=(3,), kwargs={"timeout": _DEADLINE})
    put.start()
    taken = [items.get() for _ in range(3)]
    put.join()
    yield Measurement("a put went on once an item had been taken", (taken == [1, 2, 3],), "yes/no")
    began = time.perf_counter()
    try:
        items.get(timeout=0.05)
    except queue.Empty:
        yield Measurement("Empty after", (time.perf_counter() - began,), "s")


def conclude_bounds(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if both exceptions were raised, and not too early."""
    raised = {one.name: one.median for one in measurements}
    full, empty = raised.get("Full after"), raised.get("Empty after")
    if full is None or empty is None:
        missing = "Full" if full is None else "Empty"
        return Conclusion("does not hold", f"{missing} was not raised within its timeout of 50 ms")
    return Conclusion.when(
        full >= 0.049
        and empty >= 0.049
        and bool(raised["a put went on once an item had been taken"]),
        f"a put into a full queue raised Full after {written(full, 's')}, a get from an empty one "
        f"Empty after {written(empty, 's')}; without a timeout they wait.",
    )


def join_a_queue(_quick: bool) -> Iterator[Measurement]:
    """Let five daemon threads do 50 tasks, join the queue, and call task_done once more."""
    tasks: queue.Queue[int] = queue.Queue()
    done: list[int] = []

    def work() -> None:
        while True:
            task = tasks.get()
            time.sleep(0.001)
            done.append(task)
            tasks.task_done()

    for number in range(50):
        tasks.put(number)
    for _ in range(5):
        threading.Thread(target=work, daemon=True).start()
    tasks.join()
    yield Measurement("tasks", (50,))
    yield Measurement("done when join returned", (len(done),))
    raised = False
    try:
        tasks.task_done()
    except ValueError:
        raised = True
    yield Measurement("ValueError at one task_done too many", (raised,), "yes/no")


def conclude_queue_join(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if all tasks were done when join returned."""
    done, tasks = measurements.median("done when join returned"), measurements.median("tasks")
    raised = measurements.median("ValueError at one task_done too many")
    return Conclusion.when(
        done == tasks and bool(raised),
        f"{written(done, '')} of {written(tasks, '')} tasks were done when `join` returned; one "
        "`task_done` too many " + ("raised ValueError." if raised else "went unnoticed."),
    )


CHAPTER = Chapter(
    name="queues",
    title="Queues",
    experiments=(
        Experiment(
            "queue-orders",
            "A Queue is first in, first out, a LifoQueue last in, first out, and a PriorityQueue "
            "gives the lowest first.",
            "Ten numbers are put into each, and taken out.",
            order_in_queues,
            conclude_orders,
        ),
        Experiment(
            "queue-bounds",
            "A full queue blocks put and an empty one get, until a timeout raises Full or Empty.",
            "A third item is put into Queue(maxsize=2), and one taken from an empty queue, with "
            "timeouts of 50 ms.",
            bound_a_queue,
            conclude_bounds,
        ),
        Experiment(
            "queue-join",
            "Join on a queue returns once task_done was called for each item; once more raises "
            "ValueError.",
            "Five daemon threads work off 50 tasks of 1 ms.",
            join_a_queue,
            conclude_queue_join,
        ),
    ),
)
