"""An engine's measurements: times in nanoseconds, appended on the hot path and sorted later."""

from __future__ import annotations

import math
import time
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from echo_load.engines.evidence import Evidence, Found
from echo_load.measure.counts import Counts
from echo_load.measure.distributions import Measured
from echo_load.measure.histogram import Integers, LatencyHistogram
from echo_load.plan.pacing import Timeline
from echo_load.plan.payload import Payload

# Number of replies after which the times are sorted: sorting delays the next messages by 0.2 ms.
FOLD_AT = 1024
# Replies that arrive within these seconds after the end of a test belong to its last second.
SOON_SECONDS = 0.25


@dataclass(slots=True)
class Snapshot:
    """The measurements of one generator since its last snapshot.

    Attributes:
        stage: index of the current stage; -1 before the first.
        elapsed: seconds since the first stage began; negative before.
        counts: counts since the generator started.
        response: response times, by the stage in which the message was due and the second in which
            the reply arrived.
        measured: the other distributions, by stage.
        last_reply: instant of the last reply since the beginning, in seconds since the first stage
            began, by the stage in which its message was due.
        found: the failures that were kept since the last snapshot.
    """

    stage: int
    elapsed: float
    counts: Counts
    response: dict[tuple[int, int], LatencyHistogram]
    measured: dict[int, Measured]
    last_reply: dict[int, float]
    found: Found


def _times() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Times:
    """Times as an engine records them, in nanoseconds; see `Measured` for those not listed here.

    Attributes:
        service: service time of each round trip.
        response: response time of each round trip; empty in a closed loop, where it is the service
            time.
        replies: instant at which each reply arrived, on the monotonic clock.
        counts: number of round trips that each entry of `service` and `replies` represents; empty
            if each represents one.
    """

    service: array[int] = field(default_factory=_times)
    response: array[int] = field(default_factory=_times)
    replies: array[int] = field(default_factory=_times)
    counts: array[int] = field(default_factory=_times)
    first_byte: array[int] = field(default_factory=_times)
    connect: array[int] = field(default_factory=_times)
    handshake: array[int] = field(default_factory=_times)
    kernel: array[int] = field(default_factory=_times)
    lateness: array[int] = field(default_factory=_times)
    hub_lag: array[int] = field(default_factory=_times)

    def move_to(self, other: Times) -> int:
        """Move all times to another object; another thread may append to these meanwhile.

        That thread must append to `replies` last, when the times of the reply are in the other
        arrays.

        Returns:
            The number of round trips whose times were moved.
        """
        complete = len(self.replies)
        replies = sum(self.counts[:complete]) if self.counts else complete
        for name in ("service", "response", "counts", "replies"):
            times: array[int] = getattr(self, name)
            getattr(other, name).extend(times[:complete])
            del times[:complete]
        for name in (*_ONCE_PER_CONNECTION, "lateness", "hub_lag"):
            times = getattr(self, name)
            taken = times[:]
            getattr(other, name).extend(taken)
            del times[: len(taken)]
        return replies


# Times that belong to the stage in which they are sorted.
_ONCE_PER_CONNECTION = ("first_byte", "connect", "handshake", "kernel")


class Recorder:
    """A recorder of an engine's times by stages and seconds.

    Args:
        timeline: timeline of the stages.
        payload: messages of the test, whose stamps identify wrong replies; None if not known.

    Attributes:
        times: the times recorded by the engine; another object after they have been sorted.
        evidence: the failures found by the engine.
        stage: index of the generator's current stage; -1 before the first.
    """

    def __init__(self, timeline: Timeline, payload: Payload | None = None) -> None:
        self.times = Times()
        self.evidence = Evidence(payload)
        self._timeline = timeline
        self._begin_ns = 0
        self.stage = -1
        self._measured: dict[int, Measured] = {}
        self._response: dict[tuple[int, int], LatencyHistogram] = {}
        self._last_reply: dict[int, float] = {}

    def start(self, gate_ns: int) -> None:
        """Set the beginning of the first stage, in nanoseconds of the monotonic clock."""
        self._begin_ns = gate_ns

    def elapsed_at(self, now_ns: int) -> float:
        """Return the seconds since the first stage began; negative before."""
        return (now_ns - self._begin_ns) / 1e9 if self._begin_ns else -math.inf

    def stage_at(self, now_ns: int) -> int:
        """Return the index of the stage at an instant; -1 before the first."""
        return self._timeline.stage_at(self.elapsed_at(now_ns)) if self._begin_ns else -1

    def fold(self) -> None:
        """Sort the recorded times; `times` is another object afterwards."""
        times = self.times
        self.times = Times()
        once = self._of(max(self.stage, 0))
        for name in _ONCE_PER_CONNECTION:
            getattr(once, name).record(getattr(times, name))
        if self.stage >= 0:
            once.lateness.record(times.lateness)
            once.hub_lag.record(times.hub_lag)
        if times.replies:
            self._fold_round_trips(times)

    def take(self, counts: Counts) -> Snapshot:
        """Sort the recorded times, and return the measurements since the last call.

        Args:
            counts: counts of the engine since the generator started.
        """
        self.fold()
        measured, self._measured = self._measured, {}
        response, self._response = self._response, {}
        elapsed = self.elapsed_at(time.monotonic_ns())
        last_reply, found = dict(self._last_reply), self.evidence.take()
        return Snapshot(self.stage, elapsed, counts, response, measured, last_reply, found)

    def _fold_round_trips(self, times: Times) -> None:
        """Add round trips to the distributions of their stages and seconds."""
        replies = np.frombuffer(times.replies, dtype=np.int64)
        service = np.frombuffer(times.service, dtype=np.int64)
        # In a closed loop a message is due when it is sent.
        response = np.frombuffer(times.response, dtype=np.int64) if times.response else service
        counts = np.frombuffer(times.counts, dtype=np.int64) if times.counts else None
        stages = self._timeline.stages_at((replies - response - self._begin_ns) / 1e9)
        seconds = self._seconds_of(replies)
        for stage in _span(stages):
            if stage < 0:
                continue
            of_stage = stages == stage
            if of_stage.any():
                last = self.elapsed_at(int(replies[of_stage].max()))
                self._last_reply[stage] = max(self._last_reply.get(stage, 0.0), last)
            if times.response:
                self._of(stage).service.record_values(*_chosen(of_stage, service, counts))
            for second in _span(seconds[of_stage]):
                chosen = of_stage & (seconds == second)
                if not chosen.any():
                    continue
                if (histogram := self._response.get((stage, second))) is None:
                    histogram = self._response[stage, second] = LatencyHistogram()
                histogram.record_values(*_chosen(chosen, response, counts))

    def _seconds_of(self, replies: Integers) -> Integers:
        """Return the second of each reply; replies just after the end belong to the last one."""
        since_begin = replies - self._begin_ns
        if self._timeline.seconds < math.inf:
            end_ns = int(self._timeline.seconds * 1e9)
            soon = (since_begin >= end_ns) & (since_begin < end_ns + SOON_SECONDS * 1e9)
            since_begin[soon] = end_ns - 1
        seconds: Integers = since_begin // 1_000_000_000
        return seconds

    def _of(self, stage: int) -> Measured:
        """Return the distributions of a stage."""
        if (measured := self._measured.get(stage)) is None:
            measured = self._measured[stage] = Measured()
        return measured


def _chosen(
    which: np.ndarray[Any, np.dtype[np.bool_]], values: Integers, counts: Integers | None
) -> tuple[Integers, Integers | None]:
    return values[which], None if counts is None else counts[which]


def _span(values: Integers) -> range:
    """Return the range from the smallest to the largest value; it is assumed to be short."""
    return range(int(values.min()), int(values.max()) + 1) if len(values) else range(0)
