"""Updates by greenlets, with a switch in between and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
from gevent.lock import BoundedSemaphore

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written


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
    """Conclude that the claim holds if nothing is lost without a switch within.

    That updates with a switch within are lost is a limit.
    """
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


NO_LOCK = Experiment(
    "no-lock",
    "Coroutines need no lock: what runs is not interrupted.",
    "100 greenlets read a number and write it back one higher, with a switch in between, "
    "without, and with a semaphore around.",
    add_without_locks,
    conclude_atomic,
)
