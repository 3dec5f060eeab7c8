"""Semaphores, which limit how many threads are in a section."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from echo_load.lab.experiment import (
    Conclusion,
    Experiment,
    Measurement,
    Measurements,
)
from echo_load.lab.notation import written


def limit_with_a_semaphore(_quick: bool) -> Iterator[Measurement]:
    """Let 20 threads into a section that BoundedSemaphore(5) guards, for 20 ms each."""
    semaphore = threading.BoundedSemaphore(5)
    lock = threading.Lock()
    inside = most = 0

    def enter() -> None:
        nonlocal inside, most
        with semaphore:
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield Measurement("most inside at once", (most,))
    raised = False
    try:
        semaphore.release()
    except ValueError:
        raised = True
    yield Measurement("ValueError at one release too many", (raised,), "yes/no")


def conclude_semaphore(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if there were never more than five inside."""
    most = measurements.median("most inside at once")
    raised = measurements.median("ValueError at one release too many")
    return Conclusion.when(
        1 < most <= 5 and bool(raised),
        f"at most {written(most, '')} of 20 threads were inside at once; one release too many "
        + ("raised ValueError." if raised else "went unnoticed."),
    )


SEMAPHORE = Experiment(
    "semaphore",
    "A semaphore lets a certain number of threads in at once.",
    "20 threads enter a section for 20 ms that a BoundedSemaphore(5) guards; then it is "
    "released once too often.",
    limit_with_a_semaphore,
    conclude_semaphore,
)
