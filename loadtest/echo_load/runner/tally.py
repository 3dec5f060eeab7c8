"""The tally of a test: the sums of the measurements of all its generators."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import msgspec

from echo_load.engines.evidence import Found
from echo_load.engines.recorder import SOON_SECONDS, Snapshot
from echo_load.measure.counts import Counts
from echo_load.measure.distributions import Measured
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.pacing import Timeline
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan
from echo_load.plan.thresholds import Figures
from echo_load.results.evidence import Evidence, evidence_of
from echo_load.results.result import (
    GeneratorResult,
    Latencies,
    Latency,
    Second,
    StageResult,
    TargetResult,
    Totals,
)
from echo_load.runner.generator import Update
from echo_load.runner.generator_seconds import GeneratorSeconds
from echo_load.runner.selfcheck import Usage, bottlenecks

# A busy generator with many threads may send the figures of a second this much later.
_LATEST_SECONDS = 30
# The resolution of the clock.
_LEAST_SECONDS = 1e-9


class Tally:
    """The figures of one part of a test, over all of its generators.

    Args:
        plan: the test.
        stages: stages of the plan that share their connections.
        generators: number of generators.
        repeat: number of the repeat, from 1.
        targets: number of targets.

    Attributes:
        timeline: the stages over time.
        states: state of each generator.
        gate_ns: instant at which the first stage begins, in nanoseconds of the monotonic clock;
            None as long as it is not known.
        stopped_ns: instant at which the test was stopped early, likewise; None if it was not.
        counts: counts over all stages.
        measured: distributions over all stages.
        usages: processor usage of each generator.
        messages_by_connection: round trips of each connection, once the generators have ended.
        by_stage: counts and distributions of each stage; see `counts_of`.
        found: the first failures of each kind.
        by_target: the figures of each target; empty unless there are several.
    """

    def __init__(
        self,
        plan: Plan,
        stages: tuple[StagePlan, ...],
        generators: int,
        repeat: int,
        targets: int = 1,
    ) -> None:
        self.plan = plan
        self.stages = stages
        self.repeat = repeat
        self.timeline = Timeline.of(plan, stages)
        self.states = ["connecting"] * generators
        self.gate_ns: int | None = None
        self.stopped_ns: int | None = None
        self.counts = Counts()
        self.measured = Measured()
        self.usages = [Usage()] * generators
        self.messages_by_connection: list[int] = []
        self.by_stage = [(Counts(), Measured()) for _ in stages]
        self.found = Found()
        self.by_target = (
            [Tally(plan, stages, generators, repeat) for _ in range(targets)] if targets > 1 else []
        )
        self._whole = self
        for tally in self.by_target:
            tally._whole = self  # noqa: SLF001  # it is a tally, too
        self._last_counts: defaultdict[tuple[int, int], Counts] = defaultdict(Counts)
        self._last_elapsed = [-math.inf] * generators
        self._last_replies: dict[int, float] = {}
        self._last_failure = 0.0
        self._times: defaultdict[int, LatencyHistogram] = defaultdict(LatencyHistogram)
        self._counted: defaultdict[int, Counts] = defaultdict(Counts)
        self._generators = GeneratorSeconds()
        self._open_before = 0
        self._series: list[Second] = []

    def begin(self, gate_ns: int) -> None:
        """Note when the first stage begins, in nanoseconds of the monotonic clock."""
        for tally in (self, *self.by_target):
            tally.gate_ns = gate_ns

    def stop(self, now_ns: int) -> None:
        """Note that the generators are told to stop, in nanoseconds of the monotonic clock."""
        for tally in (self, *self.by_target):
            tally.stopped_ns = now_ns

    def take(self, generator: int, update: Update) -> None:
        """Add an update of one generator."""
        self._take(generator, update, update.snapshots)
        for target, tally in enumerate(self.by_target):
            of_target = {
                one: snapshot for one, snapshot in update.snapshots.items() if one == target
            }
            tally._take(generator, update, of_target)  # noqa: SLF001  # it is a tally, too

    def _take(self, generator: int, update: Update, snapshots: Mapping[int, Snapshot]) -> None:
        self.states[generator] = update.state
        self.usages[generator] = Usage(update.seconds, update.cpu_seconds, update.waited_seconds)
        self.messages_by_connection += update.messages_by_connection
        together = Counts()
        elapsed = min(snapshot.elapsed for snapshot in update.snapshots.values())
        for target, snapshot in snapshots.items():
            gained = snapshot.counts.since(self._last_counts[generator, target])
            self._last_counts[generator, target] = snapshot.counts
            together.add(gained)
            self._add(snapshot, gained)
        self.counts.add(together)
        second = self._count_in_second(generator, elapsed, together)
        measured = [one for snapshot in snapshots.values() for one in snapshot.measured.values()]
        self._generators.add(second, generator, self.usages[generator], measured)
        self._finish_seconds(before=self._latest_second - _LATEST_SECONDS)

    def _add(self, snapshot: Snapshot, gained: Counts) -> None:
        """Add the measurements of one generator, and what it has counted since the last ones."""
        for stage, instant in snapshot.last_reply.items():
            self._last_replies[stage] = max(self._last_replies.get(stage, 0.0), instant)
        if gained.errors:
            self._last_failure = max(self._last_failure, snapshot.elapsed)
        self.found.add(snapshot.found)
        # Counts from before the first stage are added to it.
        self.by_stage[max(0, snapshot.stage)][0].add(gained)
        for stage, measured in snapshot.measured.items():
            self.by_stage[stage][1].add(measured)
            self.measured.add(measured)
        for (stage, second), times in snapshot.response.items():
            self.by_stage[stage][1].response.merge(times)
            self.measured.response.merge(times)
            self._times[max(second, len(self._series))].merge(times)

    def _count_in_second(self, generator: int, elapsed: float, gained: Counts) -> int | None:
        """Attribute the increase of a generator's counts since its last update to a second.

        Generators send an update shortly before each second ends, so that the middle of the
        interval between two updates is within the right second.

        Returns:
            The second; None before the first stage.
        """
        before, self._last_elapsed[generator] = self._last_elapsed[generator], elapsed
        if elapsed <= 0:
            self._open_before += gained.open
            return None
        second = int(max(0.0, elapsed + max(before, -elapsed)) / 2)
        if elapsed >= self.timeline.seconds - SOON_SECONDS or self.states[generator] == "ended":
            # Connections that are closed because the test ends count as open until its end; an
            # open loop closes them as soon as the last reply has arrived.
            gained.opened = gained.closed = 0
            if elapsed < self.timeline.seconds + SOON_SECONDS:
                second = int(min(second, self.timeline.seconds - _LEAST_SECONDS))
        second = max(second, len(self._series))
        if gained != Counts():
            self._counted[second].add(gained)
        return second

    @property
    def _latest_second(self) -> int:
        return max([-1, *self._times, *self._counted])

    @property
    def reported_until(self) -> float:
        """The seconds of which all generators have sent their measurements; negative before."""
        return min(
            math.inf if state == "ended" else elapsed
            for elapsed, state in zip(self._last_elapsed, self.states, strict=True)
        )

    def times_of(self, second: int) -> LatencyHistogram:
        """Return the response times of a recent second; none if its percentiles are in `series`."""
        return self._times.get(second) or LatencyHistogram()

    def counted_in(self, second: int) -> Counts:
        """Return what was counted in a recent second; nothing if it is in `series`."""
        return self._counted.get(second) or Counts()

    @property
    def seconds(self) -> float:
        """Seconds in which messages could be sent, or until the last reply if that was later."""
        return max([self._sent_until, *self._last_replies.values()])

    def seconds_of(self, number: int) -> float:
        """Return the seconds of a stage, in all rounds of a loop.

        As for `seconds`, the last round lasts until the last reply if that arrived after its end.
        """
        sent_until = self._sent_until
        took = ended = 0.0
        for segment_number, segment in enumerate(self.timeline.segments()):
            if segment.begin >= sent_until:
                break
            if segment_number % len(self.stages) == number:
                ended = min(segment.begin + segment.seconds, sent_until)
                took += ended - segment.begin
        return took + max(0.0, self._last_replies.get(number, 0.0) - ended)

    def counts_of(self, number: int) -> Counts:
        """Return the counts of a stage, with the bytes of the messages that were due in it.

        Bytes are counted when they are sent and received, which is in a later stage if the target
        is behind. Divided by the seconds of `seconds_of`, they would be the rate of neither, so
        that a stage has the share of all bytes that it has of all round trips. That is exact
        if messages are of one size.
        """
        counts = self.by_stage[number][0].copy()
        ends = list(accumulate(measured.response.count for _, measured in self.by_stage))
        if len(ends) == 1 or not ends[-1]:
            return counts
        begin, end = (ends[number - 1] if number else 0), ends[number]
        # What was sent and did not come back was sent in about this stage.
        missing = counts.bytes_sent - counts.bytes_received
        if self.counts.bytes_sent == self.counts.bytes_received:
            missing = 0
        whole = self.counts.bytes_received
        counts.bytes_received = whole * end // ends[-1] - whole * begin // ends[-1]
        counts.bytes_sent = max(0, counts.bytes_received + missing)
        return counts

    @property
    def _sent_until(self) -> float:
        """The seconds in which messages could be sent so far.

        They last until the end of the last stage, or until the test was stopped, even if the target
        stopped answering or all connections were lost long before. If all messages of the plan were
        sent earlier, they last until the last of these was answered or failed.
        """
        if self.gate_ns is None:
            return 0.0
        end = self.timeline.seconds
        if self.stopped_ns is not None:
            end = min(end, (self.stopped_ns - self.gate_ns) / 1e9)
        running = [
            elapsed
            for elapsed, state in zip(self._last_elapsed, self.states, strict=True)
            if state != "ended"
        ]
        if running:
            end = min(end, statistics.fmean(running))
        elif self._all_messages_done or end == math.inf:
            end = min(end, max([self._last_failure, *self._last_replies.values()]))
        return max(0.0, end)

    @property
    def _all_messages_done(self) -> bool:
        """True if as many messages as the plan allows were answered or have failed."""
        # A target has a part of the messages.
        messages, attempts = self.plan.messages, self._whole.counts.attempts
        return messages is not None and attempts >= messages

    def series(self) -> list[Second]:
        """Return one entry per second, from the first stage to the end of the last."""
        seconds = math.ceil(self._sent_until - _LEAST_SECONDS)
        self._finish_seconds(before=max(self._latest_second + 1, seconds))
        return self._series

    def _finish_seconds(self, before: int) -> None:
        """Replace the histograms of seconds before this one by entries of the series."""
        for second in range(len(self._series), before):
            times = self._times.pop(second, LatencyHistogram())
            counts = self._counted.pop(second, Counts())
            self._open_before += counts.open
            p50, p90, p99, p99_9 = times.percentiles_us([50, 90, 99, 99.9])
            generators = self._generators.take(second)
            if self._whole is not self:
                # The generators' processor time is that of all targets.
                generators["generator_cores"] = None
            self._series.append(
                Second(
                    second=second,
                    repeat=self.repeat,
                    stage=self.plan.stage_name(self.stages[self.timeline.stage_at(second)]),
                    connections=self._open_before,
                    messages=times.count,
                    bytes_sent=counts.bytes_sent,
                    bytes_received=counts.bytes_received,
                    errors={kind: count for kind, count in counts.errors.items() if count},
                    p50_us=p50,
                    p90_us=p90,
                    p99_us=p99,
                    p99_9_us=p99_9,
                    max_us=times.max_us,
                    jitter_us=counts.jitter_us,
                    **generators,
                )
            )


def stage_results(tallies: Sequence[Tally]) -> list[StageResult]:
    """Return the result of each stage, over several tallies of the same stages."""
    results = []
    for number, stage in enumerate(tallies[0].stages):
        counts = sum((tally.counts_of(number) for tally in tallies), Counts())
        measured = _together(tally.by_stage[number][1] for tally in tallies)
        seconds = sum(tally.seconds_of(number) for tally in tallies)
        results.append(
            StageResult(
                name=tallies[0].plan.stage_name(stage),
                latency_us=Latencies.of(measured),
                generator=generator_result(tallies, measured),
                **_total_fields(tallies, counts, measured, seconds),
            )
        )
    return results


def series(tallies: Sequence[Tally]) -> list[Second]:
    """Return one entry per second since the first tally began.

    Each tally begins with a new second.
    """
    together: list[Second] = []
    begun = [tally for tally in tallies if tally.gate_ns is not None]
    for tally in begun:
        begin = math.ceil((_gate(tally) - _gate(begun[0])) / 1e9)
        if together:
            begin = max(begin, together[-1].second + 1)
        together += [
            msgspec.structs.replace(one, second=begin + one.second) for one in tally.series()
        ]
    return together


def series_started_at(tallies: Sequence[Tally]) -> str | None:
    """Return when the first second of the series began (ISO 8601, UTC); None if it never did."""
    gates = [tally.gate_ns for tally in tallies if tally.gate_ns is not None]
    if not gates:
        return None
    wall_clock_ns = time.time_ns() - time.monotonic_ns()
    at = datetime.fromtimestamp((wall_clock_ns + gates[0]) / 1e9, UTC)
    return at.isoformat(timespec="milliseconds")


def _gate(tally: Tally) -> int:
    assert tally.gate_ns is not None
    return tally.gate_ns


def _together(several: Iterable[Measured]) -> Measured:
    together = Measured()
    for measured in several:
        together.add(measured)
    return together


def figures(
    tallies: Sequence[Tally], *, target: int | None = None, stage: int | None = None
) -> Figures:
    """Return the figures of all tallies together, to which thresholds apply.

    Args:
        tallies: the tallies; none if no part was run that has the stage.
        target: index of the only target whose figures they are, of several; None for all.
        stage: index of the only stage whose figures they are; None for all.
    """
    own = tallies if target is None else [tally.by_target[target] for tally in tallies]
    if stage is None:
        parts = [(tally.counts, tally.measured) for tally in own]
        seconds = sum(tally.seconds for tally in tallies)
    else:
        parts = [(tally.counts_of(stage), tally.by_stage[stage][1]) for tally in own]
        seconds = sum(tally.seconds_of(stage) for tally in tallies)
    counts = sum((counted for counted, _ in parts), Counts())
    measured = _together(measured for _, measured in parts)
    return Figures(
        seconds=seconds,
        latencies=measured.by_name(),
        counts={
            "messages": measured.response.count,
            "bytes_received": counts.bytes_received,
            "connections_opened": counts.opened,
            "connections_failed": counts.failed,
            "connections_lost": counts.lost,
            "retransmits": _retransmits(tallies, counts) if tallies else None,
            "loss_burst": _loss_burst(tallies, counts) if tallies else None,
        },
        jitter_us=counts.jitter_us,
        errors=counts.errors,
        attempts=counts.attempts,
    )


def measured_in(tallies: Sequence[Tally]) -> Measured:
    """Return the distributions of all tallies together."""
    return _together(tally.measured for tally in tallies)


def totals(tallies: Sequence[Tally]) -> Totals:
    """Return the totals of all tallies together."""
    counts = sum((tally.counts for tally in tallies), Counts())
    seconds = sum(tally.seconds for tally in tallies)
    return Totals(**_total_fields(tallies, counts, measured_in(tallies), seconds))


def generator_result(tallies: Sequence[Tally], measured: Measured) -> GeneratorResult:
    """Return the processor usage and the delays of the generators, with the self-check's findings.

    Args:
        tallies: tallies of all parts.
        measured: the distributions to check, of a stage or of all.
    """
    usages = [usage for tally in tallies for usage in tally.usages]
    cpu_seconds = sum(usage.cpu_seconds for usage in usages)
    # The generators of one part run at the same time, the parts one after the other.
    seconds = sum(max((usage.seconds for usage in tally.usages), default=0) for tally in tallies)
    findings = generator_findings(tallies, measured)
    return GeneratorResult(
        processes=max(len(tally.usages) for tally in tallies),
        cpu_seconds=cpu_seconds,
        cpu_cores=cpu_seconds / seconds if seconds else 0.0,
        waited_seconds=sum(usage.waited_seconds for usage in usages),
        lateness_us=Latency.of(measured.lateness),
        hub_lag_us=Latency.of(measured.hub_lag),
        bound=bool(findings),
        findings=findings,
    )


def generator_findings(tallies: Sequence[Tally], measured: Measured) -> list[str]:
    """Return the findings of the self-check; empty if the generators were not the bottleneck."""
    return bottlenecks(
        tallies[0].plan,
        [usage for tally in tallies for usage in tally.usages],
        processes=max(len(tally.usages) for tally in tallies),
        response=measured.response,
        lateness=measured.lateness,
        hub_lag=measured.hub_lag,
    )


def evidence(tallies: Sequence[Tally], targets: Sequence[str]) -> Evidence:
    """Return the first failures of each kind that the tallies counted.

    Args:
        tallies: the tallies, in the order in which they were run.
        targets: URLs of the targets, which connections use in turn.
    """
    counts = sum((tally.counts for tally in tallies), Counts())
    found = Found()
    for tally in tallies:
        found.add(tally.found)
    gates = [tally.gate_ns for tally in tallies if tally.gate_ns is not None]
    return evidence_of(found, counts.errors, targets, gates[0] if gates else None)


def target_results(tallies: Sequence[Tally], targets: Sequence[str]) -> list[TargetResult]:
    """Return the result of each target, over all tallies; empty unless there are several.

    Args:
        tallies: the tallies, in the order in which they were run.
        targets: URLs of the targets.
    """
    results = []
    for number, target in enumerate(targets if len(targets) > 1 else ()):
        own = [tally.by_target[number] for tally in tallies]
        counts = sum((tally.counts for tally in own), Counts())
        measured = measured_in(own)
        seconds = sum(tally.seconds for tally in tallies)
        fields = _total_fields(own, counts, measured, seconds)
        scheme, _, _ = target.partition("://")
        fields["retransmits"] = counts.retransmits if scheme in {"tcp", "tls"} else None
        fields["loss_burst"] = counts.longest_burst if scheme == "udp" else None
        fields["tls_handshakes"] = dict(counts.ciphers) if scheme == "tls" else None
        results.append(
            TargetResult(
                target=target,
                latency_us=Latencies.of(measured),
                series=series(own),
                **fields,
            )
        )
    return results


def _retransmits(tallies: Sequence[Tally], counts: Counts) -> int | None:
    return counts.retransmits if tallies[0].plan.uses_tcp else None


def _loss_burst(tallies: Sequence[Tally], counts: Counts) -> int | None:
    return counts.longest_burst if tallies[0].plan.speaks("udp") else None


def _tls_handshakes(tallies: Sequence[Tally], counts: Counts) -> dict[str, int] | None:
    return dict(counts.ciphers) if tallies[0].plan.speaks("tls") else None


def _total_fields(
    tallies: Sequence[Tally], counts: Counts, measured: Measured, seconds: float
) -> dict[str, Any]:
    """Return the fields that `Totals` and `StageResult` have in common."""
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
        "bytes_per_second": counts.bytes_received / seconds if seconds else 0.0,
        "datagrams_sent": counts.datagrams_sent,
        "datagrams_received": counts.datagrams_received,
        "retransmits": _retransmits(tallies, counts),
        "errors": {kind: count for kind, count in counts.errors.items() if count},
        "attempts": counts.attempts,
        "jitter_us": counts.jitter_us,
        "loss_burst": _loss_burst(tallies, counts),
        "tls_handshakes": _tls_handshakes(tallies, counts),
        "handshakes_resumed": counts.resumed if tallies[0].plan.tls_resume else None,
    }
