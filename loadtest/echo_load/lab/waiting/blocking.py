"""Calls that block all greenlets."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import gevent.events
from gevent.hub import get_hub

from echo_core.units import format_count
from echo_load.lab.experiment import (
    Conclusion,
    Experiment,
    Measurement,
    Measurements,
)

_BLOCKED_SECONDS = 0.3


def block(seconds: float) -> None:
    """Block the whole thread, as any call does that gevent has not patched."""
    time.sleep(seconds)


def block_the_hub(_quick: bool) -> Iterator[Measurement]:
    """Count a greenlet's ticks while another blocks, and while a thread of gevent's pool does."""
    reports: list[str] = []

    def on_event(event: object) -> None:
        if isinstance(event, gevent.events.EventLoopBlocked):
            reports.append("".join(event.info))

    gevent.events.subscribers.append(on_event)
    gevent.config.monitor_thread = True
    gevent.config.max_blocking_time = 0.1
    hub = get_hub()
    hub.start_periodic_monitoring_thread()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.005)
            ticks += 1

    ticking = gevent.spawn(tick)
    gevent.sleep(0.02)
    before = ticks
    gevent.spawn(block, _BLOCKED_SECONDS).join()
    yield Measurement("ticks meanwhile", (ticks - before,), "", "blocking call")
    before = ticks
    hub.threadpool.apply(block, (_BLOCKED_SECONDS,))
    yield Measurement("ticks meanwhile", (ticks - before,), "", "in gevent's thread pool")
    ticking.kill()
    named = sum("in block" in report for report in reports)
    yield Measurement("the monitor thread names the function", (named > 0,), "yes/no")


def conclude_blocking(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if ticks came while the pool blocked, not the call."""
    blocked = measurements.median("ticks meanwhile", "blocking call")
    pooled = measurements.median("ticks meanwhile", "in gevent's thread pool")
    named = measurements.median("the monitor thread names the function")
    return Conclusion.when(
        blocked <= 2 and pooled > 5,
        f"while a call blocked for 300 ms another greenlet that ticks every 5 ms ticked "
        f"{format_count(int(blocked), 'time')}; in gevent's thread pool the same call let it tick "
        f"{format_count(int(pooled), 'time')}. GEVENT_MONITOR_THREAD_ENABLE=1 finds such calls: "
        f"its report {'named' if named else 'did not name'} the function.",
    )


BLOCKING = Experiment(
    "blocking",
    "A blocking call stops the whole program.",
    "A greenlet ticks every 5 ms while another makes a blocking call of 300 ms, and while "
    "a thread of gevent's pool does; gevent's monitor thread looks for calls of 100 ms.",
    block_the_hub,
    conclude_blocking,
)
