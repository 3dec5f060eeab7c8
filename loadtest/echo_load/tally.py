"""Adds up what the generators of a stage report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from echo_load.engines import Counts, Snapshot
from echo_load.generator import Report
from echo_load.latency import LatencyHistogram
from echo_load.plan import StagePlan
from echo_load.result import Generator, Latencies, Latency, Second, StageResult, Totals

# A generator whose threads keep it busy may report a second so much later.
_LATEST_SECONDS = 30


class StageTally:
    """The figures of one stage over all its generators, while it runs and afterwards.

    Args:
        plan: the stage.
        generators: how many report.

    Attributes:
        states: how far each generator is.
        begin_ns: when the gate opened, on the monotonic clock; None before.
        response: all round trips so far.
        connect: all times to connect so far.
    """

    def __init__(self, plan: StagePlan, generators: int) -> None:
        self.plan = plan
        self.states = ["connecting"] * generators
        self.begin_ns: int | None = None
        self.response = LatencyHistogram()
        self.connect = LatencyHistogram()
        self._snapshots: list[Snapshot | None] = [None] * generators
        self._cpu_seconds = [0.0] * generators
        self._seconds: dict[int, LatencyHistogram] = {}
        self._series: list[Second] = []

    def take(self, generator: int, report: Report) -> None:
        """Add what one generator reports."""
        snapshot = report.snapshot
        self.states[generator] = report.state
        self._snapshots[generator] = snapshot
        self._cpu_seconds[generator] = report.cpu_seconds
        self.connect.merge(snapshot.connect)
        for number, trips in snapshot.response.items():
            self.response.merge(trips)
            self._seconds.setdefault(number, LatencyHistogram()).merge(trips)
        self._finish_seconds(before=max(self._seconds, default=0) - _LATEST_SECONDS)

    @property
    def counts(self) -> Counts:
        """What all generators have counted so far."""
        return sum((snapshot.counts for snapshot in self._snapshots if snapshot), Counts())

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all generators since the gate opened."""
        return sum(self._cpu_seconds)

    @property
    def seconds(self) -> float:
        """From the gate to the last reply; 0 if there was none."""
        last = max(snapshot.last_reply_ns if snapshot else 0 for snapshot in self._snapshots)
        if self.begin_ns is None or last <= self.begin_ns:
            return 0.0
        return (last - self.begin_ns) / 1e9

    def series(self) -> list[Second]:
        """One entry for each second in which a reply came."""
        self._finish_seconds(before=max(self._seconds, default=0) + 1)
        return self._series

    def _finish_seconds(self, before: int) -> None:
        """Keep a second's percentiles instead of its histogram, once it is over."""
        for number in sorted(number for number in self._seconds if number < before):
            trips = self._seconds.pop(number)
            p50, p99 = trips.percentiles_us([50, 99])
            self._series.append(
                Second(
                    stage=self.plan.name,
                    second=number,
                    messages=trips.count,
                    p50_us=p50,
                    p99_us=p99,
                )
            )


def stage_result(tally: StageTally) -> StageResult:
    """The figures of one stage."""
    return StageResult(
        name=tally.plan.name,
        latency_us=latencies([tally]),
        generator=generator([tally]),
        **_sums([tally]),
    )


def totals(tallies: Sequence[StageTally]) -> Totals:
    """The counts of several stages together."""
    return Totals(**_sums(tallies))


def latencies(tallies: Sequence[StageTally]) -> Latencies:
    """The latencies of several stages together."""
    response, connect = LatencyHistogram(), LatencyHistogram()
    for tally in tallies:
        response.merge(tally.response)
        connect.merge(tally.connect)
    # In a closed loop a message is meant to leave when it leaves.
    summed = Latency.of(response)
    return Latencies(response=summed, service=summed, connect=Latency.of(connect))


def generator(tallies: Sequence[StageTally]) -> Generator:
    """What generating took."""
    seconds = sum(tally.seconds for tally in tallies)
    cpu_seconds = sum(tally.cpu_seconds for tally in tallies)
    return Generator(
        processes=max((len(tally.states) for tally in tallies), default=0),
        cpu_seconds=cpu_seconds,
        cpu_cores=cpu_seconds / seconds if seconds else 0.0,
    )


def _sums(tallies: Sequence[StageTally]) -> dict[str, Any]:
    seconds = sum(tally.seconds for tally in tallies)
    counts = sum((tally.counts for tally in tallies), Counts())
    return {
        "seconds": seconds,
        "connections_opened": counts.opened,
        "connections_failed": counts.failed,
        "connections_lost": counts.lost,
        "messages": counts.messages,
        "messages_per_second": counts.messages / seconds if seconds else 0.0,
        "bytes_sent": counts.bytes_sent,
        "bytes_received": counts.bytes_received,
        "retransmits": counts.retransmits,
        "errors": dict(counts.errors),
    }
