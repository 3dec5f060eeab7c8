"""The tally of a test that this process runs itself, without generator processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from echo_client.socket_options import BufferSizes
from echo_load.engines.recorder import Recorder, Snapshot
from echo_load.plan.payload import Payload
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import ThresholdResult
from echo_load.results.result import Latencies, Machine, Result, Spread, Verdict
from echo_load.runner.generator import Update
from echo_load.runner.tally import (
    Tally,
    evidence,
    generator_result,
    measured_in,
    series,
    series_started_at,
    stage_results,
    totals,
)


class LocalTally:
    """The figures and the times of a test that this process runs itself.

    Args:
        plan: the test; its duration is an upper bound.
        payload: its messages, whose stamps identify wrong replies.

    Attributes:
        tally: figures so far.
        recorder: recorder of round trips and of times to connect.
        begin: instant at which the test began, in seconds of the monotonic clock.
        started: date and time at which it began, in UTC.
    """

    def __init__(self, plan: Plan, payload: Payload) -> None:
        self.tally = Tally(plan, plan.run_stages, 1, 1)
        self.recorder = Recorder(self.tally.timeline, payload)
        self.begin = 0.0
        self.started = datetime.now(UTC)
        self._cpu_seconds = 0.0

    def start(self) -> None:
        """Mark the beginning of the test."""
        begin_ns = time.monotonic_ns()
        self.begin = begin_ns / 1e9
        self.started = datetime.now(UTC)
        self._cpu_seconds = time.process_time()
        self.tally.gate_ns = begin_ns
        self.recorder.start(begin_ns)
        self.recorder.stage = 0

    def stop(self, instant: float) -> None:
        """Mark the end of sending.

        Args:
            instant: when the last message could be sent, in seconds of the monotonic clock.
        """
        self.tally.stopped_ns = int(instant * 1e9)

    @property
    def elapsed(self) -> float:
        """Seconds since the test began."""
        return time.monotonic() - self.begin

    def take(self, snapshot: Snapshot, *, ended: bool, messages: Sequence[int] = ()) -> None:
        """Add the measurements since the last snapshot.

        Args:
            snapshot: snapshot of the recorder.
            ended: whether it is the last one.
            messages: round trips of each connection, to be given with the last snapshot.
        """
        self.tally.take(
            0,
            Update(
                "ended" if ended else "running",
                {0: snapshot},
                self.elapsed,
                time.process_time() - self._cpu_seconds,
                0.0,
                list(messages),
            ),
        )

    def result(
        self,
        command: str,
        plan: Plan,
        targets: Sequence[str],
        verdict: Verdict,
        *,
        reasons: list[str],
        thresholds: list[ThresholdResult],
        **answer: Any,
    ) -> Result:
        """Return the result of the test.

        Args:
            command: name of the command.
            plan: the plan as it was carried out.
            targets: URLs of the targets.
            verdict: the verdict.
            reasons: reasons for it.
            thresholds: thresholds and whether they were kept.
            answer: the command's own field of the result, such as `watch`.
        """
        measured = measured_in([self.tally])
        return Result(
            command=command,
            plan=plan,
            targets=list(targets),
            machine=Machine.here(),
            started_at=self.started.isoformat(timespec="seconds"),
            stages=stage_results([self.tally]),
            totals=totals([self.tally]),
            latency_us=Latencies.of(measured),
            series=series([self.tally]),
            repeats=[],
            generator=generator_result([self.tally], measured),
            spread=Spread.of(self.tally.messages_by_connection),
            reconciliation=None,
            thresholds=thresholds,
            verdict=verdict,
            passed=verdict == "passed",
            reasons=reasons,
            buffers=BufferSizes.granted(plan.buffer_size),
            series_started_at=series_started_at([self.tally]),
            evidence=evidence([self.tally], targets),
            **answer,
        )
