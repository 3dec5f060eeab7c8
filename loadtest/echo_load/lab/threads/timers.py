"""Threads that call a function after some time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from echo_core.units import format_count
from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written


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
    """Conclude that the claim holds if each fired once and in time, and the cancelled one never."""
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


TIMER = Experiment(
    "timer",
    "A Timer calls a function once, after its time.",
    "Timers of 50 ms are started and joined; one is cancelled at once.",
    run_timers,
    conclude_timers,
)
