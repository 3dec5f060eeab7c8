"""Adds up what the generators of a stage report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from echo_load.engines import Counts, Snapshot
from echo_load.generator import Report
from echo_load.latency import LatencyHistogram
from echo_load.plan import StagePlan
from echo_load.result import Generator, Latencies, Latency, Second, StageResult, Totals


@dataclass(slots=True)
class _SecondTally:
    messages: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    errors: int = 0
    response: LatencyHistogram = field(default_factory=LatencyHistogram)


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
        self._snapshots = [Snapshot() for _ in range(generators)]
        self._cpu_seconds = [0.0] * generators
        self._seconds: dict[int, _SecondTally] = {}
        self._series: list[Second] = []

    def take(self, generator: int, report: Report) -> None:
        """Add what one generator reports."""
        before, now = self._snapshots[generator], report.snapshot
        self.states[generator] = report.state
        self.response.merge(now.response)
        self.connect.merge(now.connect)
        self._snapshots[generator] = now
        self._cpu_seconds[generator] = report.cpu_seconds
        if self.begin_ns is not None:
            number = max(0, report.instant_ns - self.begin_ns) // 1_000_000_000
            second = self._seconds.setdefault(number, _SecondTally())
            second.messages += now.counts.messages - before.counts.messages
            second.bytes_sent += now.counts.bytes_sent - before.counts.bytes_sent
            second.bytes_received += now.counts.bytes_received - before.counts.bytes_received
            second.errors += now.counts.errors.total() - before.counts.errors.total()
            second.response.merge(now.response)
            self._finish_seconds(before=number - 1)

    @property
    def counts(self) -> Counts:
        """What all generators have counted so far."""
        return sum((snapshot.counts for snapshot in self._snapshots), Counts())

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all generators since the gate opened."""
        return sum(self._cpu_seconds)

    @property
    def seconds(self) -> float:
        """From the gate to the last reply; 0 if there was none."""
        last = max(snapshot.last_reply_ns for snapshot in self._snapshots)
        if self.begin_ns is None or last <= self.begin_ns:
            return 0.0
        return (last - self.begin_ns) / 1e9

    def series(self) -> list[Second]:
        """One entry for each second in which something was reported."""
        self._finish_seconds(before=max(self._seconds, default=0) + 1)
        return self._series

    def _finish_seconds(self, before: int) -> None:
        """Keep a second's percentiles instead of its histogram, once it is over."""
        for number in sorted(number for number in self._seconds if number < before):
            tally = self._seconds.pop(number)
            p50, p99 = tally.response.percentiles_us([50, 99])
            self._series.append(
                Second(
                    stage=self.plan.name,
                    second=number,
                    messages=tally.messages,
                    bytes_sent=tally.bytes_sent,
                    bytes_received=tally.bytes_received,
                    errors=tally.errors,
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
