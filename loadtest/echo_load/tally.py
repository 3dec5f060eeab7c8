"""Adds up what the generators report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from echo_load.engines import Counts
from echo_load.engines.recorder import Measured
from echo_load.generator import Report
from echo_load.latency import LatencyHistogram
from echo_load.pacing import Timeline
from echo_load.plan import Plan, StagePlan
from echo_load.result import Generator, Latencies, Latency, Second, StageResult, Totals
from echo_load.selfcheck import Usage, limits_found

# A generator whose threads keep it busy may report a second so much later.
_LATEST_SECONDS = 30


class Tally:
    """The figures of stages that share their connections, over all generators.

    Args:
        plan: the test.
        stages: those of the plan.
        generators: how many report.

    Attributes:
        states: how far each generator is.
        gate_ns: when the gate opened, on the monotonic clock; None before.
        counts: all that was counted, the warm-up included.
        measured: all that was measured, without the warm-up.
        usages: of each generator.
        messages_by_connection: round trips of each connection, once the generators have ended.
    """

    def __init__(self, plan: Plan, stages: tuple[StagePlan, ...], generators: int) -> None:
        self.plan = plan
        self.stages = stages
        self.timeline = Timeline.of(plan, stages)
        self.states = ["connecting"] * generators
        self.gate_ns: int | None = None
        self.counts = Counts()
        self.measured = Measured()
        self.usages = [Usage()] * generators
        self.messages_by_connection: list[int] = []
        self._by_stage = [(Counts(), Measured()) for _ in stages]
        self._last_counts = [Counts() for _ in range(generators)]
        self._last_reply_ns = 0
        self._seconds: dict[tuple[int, int], LatencyHistogram] = {}
        self._series: list[Second] = []

    def take(self, generator: int, report: Report) -> None:
        """Add what one generator reports."""
        self.states[generator] = report.state
        self.usages[generator] = Usage(report.seconds, report.cpu_seconds, report.waited_seconds)
        self.messages_by_connection += report.messages_by_connection
        snapshot = report.snapshot
        assert snapshot is not None
        gained = snapshot.counts.since(self._last_counts[generator])
        self._last_counts[generator] = snapshot.counts
        self._last_reply_ns = max(self._last_reply_ns, snapshot.last_reply_ns)
        self.counts.add(gained)
        if snapshot.stage < 0:
            # What a stage's connections needed to open is its own; what the warm-up moved is not.
            gained.bytes_sent = gained.bytes_received = 0
            gained.datagrams_sent = gained.datagrams_received = 0
        self._by_stage[max(0, snapshot.stage)][0].add(gained)
        for stage, measured in snapshot.measured.items():
            self._by_stage[stage][1].add(measured)
            self.measured.add(measured)
        for (stage, second), times in snapshot.response.items():
            self._by_stage[stage][1].response.merge(times)
            self.measured.response.merge(times)
            if (second, stage) not in self._seconds:
                self._seconds[second, stage] = LatencyHistogram()
            self._seconds[second, stage].merge(times)
        self._finish_seconds(before=self._latest_second - _LATEST_SECONDS)

    @property
    def _latest_second(self) -> int:
        return max((second for second, _ in self._seconds), default=0)

    @property
    def seconds(self) -> float:
        """From the end of the warm-up to the last reply; 0 if there was none."""
        if self.gate_ns is None:
            return 0.0
        begin_ns = self.gate_ns + int(self.timeline.warmup * 1e9)
        return max(0.0, (self._last_reply_ns - begin_ns) / 1e9)

    def series(self) -> list[Second]:
        """One entry for each second in which a reply came, or more where stages meet in it."""
        self._finish_seconds(before=self._latest_second + 1)
        return self._series

    def stage_results(self) -> list[StageResult]:
        """The figures of each stage."""
        return [
            StageResult(
                name=self.plan.stage_name(stage),
                latency_us=Latencies.of(measured),
                generator=generator([self], measured),
                **_figures(counts, measured, self._seconds_of(number)),
            )
            for number, (stage, (counts, measured)) in enumerate(
                zip(self.stages, self._by_stage, strict=True)
            )
        ]

    def _seconds_of(self, number: int) -> float:
        """How long a stage was, in all its rounds."""
        if len(self.stages) == 1:
            return self.seconds
        ran, begin = 0.0, 0.0
        for segment_number, segment in enumerate(self.timeline.segments()):
            if segment.begin < 0:
                continue
            if segment.begin >= self.seconds:
                break
            begin = segment.begin
            stage = (segment_number - (self.timeline.warmup > 0)) % len(self.stages)
            if stage == number:
                ran += min(segment.seconds, self.seconds - begin)
        return ran

    def _finish_seconds(self, before: int) -> None:
        """Keep a second's percentiles instead of its histogram, once it is over."""
        for second, stage in sorted(key for key in self._seconds if key[0] < before):
            times = self._seconds.pop((second, stage))
            p50, p99 = times.percentiles_us([50, 99])
            self._series.append(
                Second(
                    stage=self.plan.stage_name(self.stages[stage]),
                    second=second,
                    messages=times.count,
                    p50_us=p50,
                    p99_us=p99,
                )
            )


def measured_in(tallies: Sequence[Tally]) -> Measured:
    """The distributions of all of them together."""
    together = Measured()
    for tally in tallies:
        together.add(tally.measured)
    return together


def totals(tallies: Sequence[Tally]) -> Totals:
    """The counts of all of them together."""
    counts = sum((tally.counts for tally in tallies), Counts())
    seconds = sum(tally.seconds for tally in tallies)
    return Totals(**_figures(counts, measured_in(tallies), seconds))


def generator(tallies: Sequence[Tally], measured: Measured) -> Generator:
    """What generating took, and whether it was the limit."""
    usages = [usage for tally in tallies for usage in tally.usages]
    cpu_seconds = sum(usage.cpu_seconds for usage in usages)
    # The generators of one part run side by side, the parts one after the other.
    seconds = sum(max((usage.seconds for usage in tally.usages), default=0) for tally in tallies)
    findings = limits_found(
        tallies[0].plan,
        usages,
        processes=max(len(tally.usages) for tally in tallies),
        response=measured.response,
        lateness=measured.lateness,
        hub_lag=measured.hub_lag,
    )
    return Generator(
        processes=max(len(tally.usages) for tally in tallies),
        cpu_seconds=cpu_seconds,
        cpu_cores=cpu_seconds / seconds if seconds else 0.0,
        waited_seconds=sum(usage.waited_seconds for usage in usages),
        lateness_us=Latency.of(measured.lateness),
        hub_lag_us=Latency.of(measured.hub_lag),
        bound=bool(findings),
        findings=findings,
    )


def _figures(counts: Counts, measured: Measured, seconds: float) -> dict[str, Any]:
    messages = measured.response.count
    return {
        "seconds": seconds,
        "connections_opened": counts.opened,
        "connections_failed": counts.failed,
        "connections_lost": counts.lost,
        "messages": messages,
        "messages_per_second": messages / seconds if seconds else 0.0,
        "bytes_sent": counts.bytes_sent,
        "bytes_received": counts.bytes_received,
        "datagrams_sent": counts.datagrams_sent,
        "datagrams_received": counts.datagrams_received,
        "retransmits": counts.retransmits,
        "errors": {kind: count for kind, count in counts.errors.items() if count},
    }
