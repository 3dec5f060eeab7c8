"""The figures on the live screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from echo_load.plan.plan import Plan
from echo_load.report.live_figures import LiveFigures, Speed, time_or_dash
from echo_load.runner.generator import Update
from echo_load.runner.tally import Tally
from support.updates import snapshot


def tally_of(generators: int = 1, duration: float = 30) -> Tally:
    plan = Plan(rate=1000, duration=duration)
    tally = Tally(plan, plan.run_stages, generators, 1)
    tally.begin(0)
    return tally


def report(
    tally: Tally,
    elapsed: float,
    seconds: Sequence[Sequence[int]] = (),
    *,
    generator: int = 0,
    first: int = 0,
    **counts: Any,
) -> None:
    """Report measurements of a generator to a tally; see `snapshot`."""
    update = Update("running", {0: snapshot(elapsed, seconds, first=first, **counts)})
    tally.take(generator, update)


def test_figures_are_those_of_the_last_complete_second() -> None:
    tally = tally_of()
    figures = LiveFigures(tally)
    report(tally, 0.99, [[100] * 99 + [3000]], bytes_received=6400, messages=100)
    report(tally, 1.99, [[200] * 50], first=1, bytes_received=9600, messages=150)
    report(tally, 2.24, [[9000] * 30], first=2, bytes_received=11520, messages=180)
    first, second = figures.update(2.3)
    assert list(first) == pytest.approx([100, 6400, 100e-6, 100e-6], rel=1e-3)
    assert list(second) == pytest.approx([50, 3200, 200e-6, 200e-6], rel=1e-3)
    assert figures.speed == second
    # Further draws within the same second change nothing.
    assert figures.update(2.9) == []
    assert figures.speed == second
    assert figures.seconds == 2


def test_before_a_second_is_complete_figures_are_those_since_the_beginning() -> None:
    tally = tally_of()
    figures = LiveFigures(tally)
    assert figures.update(0) == []
    assert figures.speed == Speed()
    report(tally, 0.5, [[100] * 500], bytes_received=32000, messages=500)
    assert figures.update(0.6) == []
    assert list(figures.speed) == pytest.approx([1000, 64000, 1e-4, 1e-4], rel=1e-3)


def test_a_second_is_complete_when_every_generator_has_reported_it() -> None:
    tally = tally_of(generators=2)
    figures = LiveFigures(tally)
    report(tally, 1.24, [[100] * 100])
    report(tally, 0.99, [[100] * 90], generator=1)
    assert figures.update(1.3) == []
    report(tally, 1.24, [[100] * 10], generator=1)
    assert [speed.messages for speed in figures.update(1.4)] == [200]


def test_a_generator_that_has_ended_reports_nothing_more() -> None:
    tally = tally_of(generators=2)
    figures = LiveFigures(tally)
    tally.take(1, Update("ended", {0: snapshot(0.5, [[100] * 50])}))
    report(tally, 1.24, [[100] * 100])
    assert [speed.messages for speed in figures.update(1.3)] == [150]


def test_a_generator_that_is_silent_is_not_waited_for_forever() -> None:
    tally = tally_of()
    figures = LiveFigures(tally)
    report(tally, 0.75, [[100] * 75])
    assert figures.update(5.9) == []
    assert [speed.messages for speed in figures.update(6.1)] == [75]
    assert figures.update(7.1) == [Speed()]


def test_at_the_end_figures_are_those_of_the_last_whole_second_of_the_test() -> None:
    tally = tally_of(duration=2.5)
    figures = LiveFigures(tally)
    report(tally, 3.74, [[100] * 100, [100] * 110, [100] * 50, [100] * 5])
    assert [speed.messages for speed in figures.update(3.8)] == [100, 110]
    assert figures.update(9.8) == []
    assert figures.speed.messages == 110


def test_a_second_without_replies_has_no_response_time() -> None:
    tally = tally_of()
    figures = LiveFigures(tally)
    report(tally, 0.99, [[100]], bytes_sent=64, bytes_received=64)
    report(tally, 2.01, bytes_sent=64, bytes_received=64)
    assert [one.p99 for one in figures.update(2.1)] == [pytest.approx(1e-4, 1e-3), None]
    assert not figures.waits
    report(tally, 2.25, bytes_sent=128, bytes_received=64)
    assert figures.waits
    assert (time_or_dash(None), time_or_dash(0.0015)) == ("-", "1.5 ms")
