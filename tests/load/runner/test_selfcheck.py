from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pytest

from echo_core.units import format_count
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.engine_name import EngineName
from echo_load.plan.plan import Plan
from echo_load.runner.selfcheck import Usage, bottlenecks

CORES = os.cpu_count() or 1


def times(*microseconds: float) -> LatencyHistogram:
    """Return a histogram in which two times of a hundred are the last one."""
    histogram = LatencyHistogram()
    values = [*microseconds[:1]] * 98 + [*microseconds[-1:]] * 2
    histogram.record_values((np.array(values) * 1e3).astype(np.int64))
    return histogram


def found(
    usages: Sequence[Usage] = (),
    *,
    processes: int = CORES,
    engine: EngineName = "hub",
    response: LatencyHistogram | None = None,
    lateness: LatencyHistogram | None = None,
    hub_lag: LatencyHistogram | None = None,
    targets: tuple[str, ...] = ("h:1",),
) -> list[str]:
    return bottlenecks(
        Plan(engine=engine, targets=targets),
        usages,
        processes=processes,
        response=response or LatencyHistogram(),
        lateness=lateness or LatencyHistogram(),
        hub_lag=hub_lag or LatencyHistogram(),
    )


MORE_MACHINES = (
    f"generate from more machines: this one has {format_count(CORES, 'core')} for "
    f"{format_count(CORES, 'process')}"
)
# Busy, but not all of the time.
BUSY = [Usage(10, 8, 0)]


def test_an_unused_generator_has_no_findings() -> None:
    assert found() == []
    assert found([Usage()]) == []


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        ([Usage(10, 9.4, 0)], []),
        ([Usage(10, 9.5, 0)], ["a generator was busy 95% of the time"]),
        (
            [Usage(10, 9, 0.5)],
            ["a generator was busy 90% of the time and waited for a processor 5% of it"],
        ),
        # The clocks are read one after the other, so that it may be more than 100 %.
        ([Usage(10, 10.2, 0)], ["a generator was busy 100% of the time"]),
        # A busy generator and an idle one.
        ([Usage(10, 1, 0), Usage(10, 9.9, 0)], ["a generator was busy 99% of the time"]),
        ([Usage(10, 1, 0.99)], []),
    ],
)
def test_a_busy_generator_is_found(usages: list[Usage], expected: list[str]) -> None:
    assert found(usages) == (expected and [*expected, MORE_MACHINES])


WAITED = [Usage(10, 1, 0), Usage(10, 1, 1)]
OTHERS = "other programs used the processors: stop them, or generate from another machine"


def test_waiting_does_not_advise_more_generators() -> None:
    waited = "a generator waited for a processor 10% of the time"
    assert found(WAITED, processes=1) == [waited, OTHERS]
    assert found(WAITED, processes=1, engine="threads") == [waited, OTHERS]
    # The local server used the processor, or too many generators did.
    own = found(WAITED, processes=1, targets=())
    assert own[-1].startswith("test an echo-server on another machine: here it shares ")
    assert found(WAITED, processes=CORES + 1)[-1].startswith(
        f"lower --processes from {CORES + 1}; this machine has "
    )
    # Busy all the time, but mostly waiting.
    assert found([Usage(10, 3, 7)]) == [
        "a generator was busy 30% of the time and waited for a processor 70% of it",
        OTHERS,
    ]


def test_lateness_without_work_does_not_advise_more_generators() -> None:
    """Another engine is not advised, either."""
    woken_late = (
        "the generators had processor time to spare but were woken late, as happens on virtual or "
        "busy machines; generate from another machine"
    )
    for engine in ("hub", "threads"):
        assert found([Usage(10, 1.7, 0.1)], engine=engine, lateness=times(2000))[-1] == woken_late
    assert found([Usage(10, 1.7, 0.3)], lateness=times(2000))[-1] == OTHERS
    assert found([Usage(10, 6, 0.1)], lateness=times(2000))[-1] == MORE_MACHINES


@pytest.mark.parametrize(
    ("late", "slow", "expected"),
    [
        (950, 100, []),
        (1050, 100, ["messages were sent late, 1 % of them by 1.05ms or more"]),
        # This does not distort response times that are so much longer.
        (1050, 20_000, []),
        (3000, 20_000, ["messages were sent late, 1 % of them by 3ms or more"]),
    ],
)
def test_late_messages_are_found(late: float, slow: float, expected: list[str]) -> None:
    findings = found(BUSY, response=times(50, slow), lateness=times(1, late))
    assert [finding.split(" by ")[0] for finding in findings[:-1]] == [
        finding.split(" by ")[0] for finding in expected
    ]
    assert findings[-1:] == ([MORE_MACHINES] if expected else [])


def test_a_late_event_loop_is_found() -> None:
    assert found(BUSY, hub_lag=times(100, 19_000)) == []
    finding, advice = found(BUSY, hub_lag=times(100, 21_000))
    assert finding.startswith("an event loop was late, 1 % of the time by 21")
    assert advice == MORE_MACHINES


def test_the_advice_fits_the_cause() -> None:
    busy = [Usage(10, 10, 0)]
    assert found(busy, engine="threads", processes=1)[-1] == (
        "use --engine hub: the threads of a process share one interpreter lock"
    )
    assert found(busy, processes=CORES)[-1] == MORE_MACHINES
    if CORES > 1:
        assert found(busy, processes=1)[-1] == (
            f"raise --processes from 1; this machine has {CORES} cores"
        )


def test_all_findings_share_one_line_of_advice() -> None:
    findings = found([Usage(10, 8, 2)], lateness=times(2000), hub_lag=times(30_000))
    assert len(findings) == 4
