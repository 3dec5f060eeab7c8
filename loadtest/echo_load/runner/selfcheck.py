"""The self-check: it detects that the generators were the bottleneck instead of the target."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from echo_core.units import format_count, format_duration
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.plan import Plan

# Usage over a shorter time is not significant.
_LEAST_SECONDS = 0.1
# A generator that was busy or waiting for a processor for this share of the time is a bottleneck.
BUSY_SHARE = 0.95
# A generator that waited for a processor for this share of the time was disturbed by others.
WAITING_SHARE = 0.10
# Messages that are sent this late, in microseconds and relative to the response time, distort it.
LATENESS_US = 1000.0
LATENESS_SHARE = 0.10
# An event loop that is this late distorts the times of replies.
HUB_LAG_US = 20_000.0
# Below this share of the time in which a generator used a processor, its own work did not delay it.
COMPUTING_SHARE = 0.50
# Below this share of the time in which a generator waited for a processor, that did not delay it.
NOTABLE_WAITING_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Usage:
    """The processor time that one generator used.

    Attributes:
        seconds: duration of the measurement.
        cpu_seconds: processor time used.
        waited_seconds: time in which it was ready to run and waited for a processor.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    waited_seconds: float = 0.0

    @property
    def busy(self) -> float:
        """The share of the time in which it used a processor or waited for one."""
        return self._share(self.cpu_seconds + self.waited_seconds)

    @property
    def computing(self) -> float:
        """The share of the time in which it used a processor, at most 1."""
        return min(1.0, self._share(self.cpu_seconds))

    @property
    def waiting(self) -> float:
        """The share of the time in which it waited for a processor."""
        return self._share(self.waited_seconds)

    def _share(self, seconds: float) -> float:
        return seconds / self.seconds if self.seconds >= _LEAST_SECONDS else 0.0


def bottlenecks(
    plan: Plan,
    usages: Sequence[Usage],
    *,
    processes: int,
    response: LatencyHistogram,
    lateness: LatencyHistogram,
    hub_lag: LatencyHistogram,
) -> list[str]:
    """Return the signs that the generators were the bottleneck, followed by advice; empty if none.

    Args:
        plan: the test.
        usages: usage of each generator.
        processes: number of generators that ran at the same time.
        response: measured response times.
        lateness: delays in sending messages that were due and had a free connection.
        hub_lag: delays of the generators' event loops.
    """
    found = []
    busiest = max(usages, key=lambda usage: usage.busy, default=Usage())
    most_waiting = max((usage.waiting for usage in usages), default=0.0)
    if busiest.busy >= BUSY_SHARE:
        busy = f"a generator was busy {busiest.computing:.0%} of the time"
        if busiest.waiting >= NOTABLE_WAITING_SHARE:
            busy += f" and waited for a processor {busiest.waiting:.0%} of it"
        found.append(busy)
    elif most_waiting >= WAITING_SHARE:
        found.append(f"a generator waited for a processor {most_waiting:.0%} of the time")
    (late,) = lateness.percentiles_us([99])
    (slow,) = response.percentiles_us([99])
    if late >= LATENESS_US and late >= LATENESS_SHARE * slow:
        found.append(f"messages were sent late, 1 % of them by {_written(late)} or more")
    (lag,) = hub_lag.percentiles_us([99])
    if lag >= HUB_LAG_US:
        found.append(f"an event loop was late, 1 % of the time by {_written(lag)} or more")
    if found:
        found.append(_advice(plan, busiest, most_waiting, processes))
    return found


def _advice(plan: Plan, busiest: Usage, waiting: float, processes: int) -> str:
    """Return advice on how to remove the bottleneck.

    Args:
        plan: the test.
        busiest: usage of the busiest generator.
        waiting: largest share of the time in which a generator waited for a processor.
        processes: number of generators that ran at the same time.
    """
    cores = os.cpu_count() or 1
    if waiting >= WAITING_SHARE or (
        waiting >= NOTABLE_WAITING_SHARE and busiest.computing < COMPUTING_SHARE
    ):
        return _advice_on_processors(plan, processes, cores)
    if busiest.computing < COMPUTING_SHARE:
        return (
            "the generators had processor time to spare but were woken late, as happens on "
            "virtual or busy machines; generate from another machine"
        )
    if plan.driven_by == "threads":
        return "use --engine hub: the threads of a process share one interpreter lock"
    if processes < cores:
        return f"raise --processes from {processes}; this machine has {_cores(cores)}"
    return (
        f"generate from more machines: this one has {_cores(cores)} for "
        f"{format_count(processes, 'process')}"
    )


def _advice_on_processors(plan: Plan, processes: int, cores: int) -> str:
    if processes > cores:
        return f"lower --processes from {processes}; this machine has {_cores(cores)}"
    if not plan.targets:
        return (
            f"test an echo-server on another machine: here it shares {_cores(cores)} with the "
            "generators"
        )
    return "other programs used the processors: stop them, or generate from another machine"


def _cores(number: int) -> str:
    return format_count(number, "core")


def _written(microseconds: float) -> str:
    return format_duration(round(microseconds / 1e6, 5))
