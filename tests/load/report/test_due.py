"""The messages that are due in each second, against the schedule that sends them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import pytest

from echo_load.measure.distributions import Measured
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.pacing import Schedule, Timeline
from echo_load.plan.plan import Plan
from echo_load.report.page.due import due_by_second
from echo_load.results.result import (
    GeneratorResult,
    Latencies,
    Latency,
    Machine,
    Result,
    Second,
    Spread,
    Totals,
)

NOTHING = Latency.of(LatencyHistogram())
STAGES = [
    {"first": 0, "last": 400, "duration": 2.0},
    {"first": 100, "last": 100, "duration": 1.5},
    {"first": 300, "last": 0, "duration": 1.0},
]


def second(number: int, repeat: int = 1) -> Second:
    counts = ("connections", "messages", "bytes_sent", "bytes_received")
    times = ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us")
    zeros: dict[str, Any] = dict.fromkeys((*counts, *times), 0)
    return Second(second=number, repeat=repeat, stage="", errors={}, **zeros)


def result(seconds: list[Second], plan: dict[str, Any], **changes: Any) -> Result:
    others = {"errors", "seconds", "tls_handshakes"}
    numbers = [name for name in Totals.__struct_fields__ if name not in others]
    counts: dict[str, Any] = dict.fromkeys(numbers, 0)
    return Result(
        **{
            "command": "run",
            "plan": msgspec.convert(plan, Plan),
            "targets": [],
            "machine": Machine.here(),
            "started_at": "",
            "stages": [],
            "totals": Totals(errors={}, seconds=0.0, **counts),
            "latency_us": Latencies.of(Measured()),
            "series": seconds,
            "repeats": [],
            "generator": GeneratorResult(
                processes=1,
                cpu_seconds=0,
                cpu_cores=0,
                waited_seconds=0,
                lateness_us=NOTHING,
                hub_lag_us=NOTHING,
                bound=False,
                findings=[],
            ),
            "spread": Spread.of([]),
            "reconciliation": None,
            "thresholds": [],
            "verdict": "passed",
            "passed": True,
            "reasons": [],
            **changes,
        }
    )


@pytest.mark.parametrize("loop", [False, True])
def test_as_many_are_due_as_the_schedule_sends(loop: bool) -> None:
    plan = {"stages": STAGES, "staged_rate": True, "loop": loop}
    if loop:
        plan["duration"] = 11.25
    parsed = msgspec.convert(plan, Plan)
    timeline = Timeline.of(parsed, parsed.run_stages)
    seconds = math.ceil(timeline.seconds)
    schedule = Schedule(timeline, "constant", turns=range(1), of=1, seed=1)
    sent = Counter(instant // 10**9 for instant in schedule)
    due = due_by_second(result([second(number) for number in range(seconds)], plan))
    assert list(due) == list(range(seconds))
    # A message between two seconds may be on either side.
    assert [due[number] for number in range(seconds)] == [
        pytest.approx(sent[number], abs=1.01) for number in range(seconds)
    ]
    assert sum(due.values()) == pytest.approx(sent.total(), abs=1)


def test_no_more_messages_are_due_than_the_plan_has() -> None:
    found = due_by_second(result([second(0), second(1), second(2)], {"rate": 100, "messages": 230}))
    assert found == {0: 100, 1: 100, 2: pytest.approx(30)}


def test_each_repeat_begins_anew() -> None:
    plan = {"stages": STAGES[:1], "staged_rate": True, "repeat": 2}
    seconds = [second(0), second(1), second(3, repeat=2), second(4, repeat=2)]
    assert due_by_second(result(seconds, plan)) == {0: 100, 1: 300, 3: 100, 4: 300}


@pytest.mark.parametrize("verdict", ["interrupted", "failed"])
def test_the_second_in_which_a_test_was_stopped_is_left_out(verdict: str) -> None:
    seconds = [second(0), second(1)]
    found = due_by_second(result(seconds, {"rate": 100, "duration": 10.0}, verdict=verdict))
    assert found == {0: 100}


def test_nothing_is_due_in_a_closed_loop_or_without_a_second() -> None:
    assert due_by_second(result([second(0)], {})) == {}
    assert due_by_second(result([], {"rate": 100})) == {}


def test_random_arrivals_are_due_as_expected_on_average() -> None:
    plan = {"rate": 100, "arrivals": "poisson", "duration": 2.0}
    found = due_by_second(result([second(0), second(1)], plan))
    assert found == {0: 100, 1: 100}
