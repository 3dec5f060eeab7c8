from __future__ import annotations

import math
from contextlib import suppress
from itertools import chain, islice
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from echo_core.errors import InvalidValueError
from echo_load.plan.pacing import Schedule, Segment, Timeline
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan, parse_stages

INF = math.inf
# Whole numbers, so that all integrals are exact.
levels = st.integers(0, 40)
some_stages = st.lists(st.tuples(levels, levels, st.integers(1, 6)), min_size=1, max_size=4).map(
    lambda rows: tuple(StagePlan(first=a, last=b, duration=s) for a, b, s in rows)
)


def timeline(text: str, *, loop: bool = False, seconds: float | None = None) -> Timeline:
    """Return a timeline; by default it ends with the stages, or never if they loop."""
    stages = parse_stages(text, rates=True)
    if seconds is None:
        seconds = INF if loop else sum(stage.duration or 0 for stage in stages)
    return Timeline(stages, loop=loop, seconds=seconds)


def schedule(
    line: Timeline,
    arrivals: Literal["constant", "poisson"] = "constant",
    *,
    turns: range = range(1),
    of: int = 1,
    seed: int = 1,
    messages: int | None = None,
) -> Schedule:
    return Schedule(
        line,
        arrivals,
        turns=turns,
        of=of,
        seed=seed,
        messages=messages,
    )


def level_at(stages: tuple[StagePlan, ...], instant: float) -> float:
    """Return the level at an instant, by its definition."""
    for stage in stages:
        assert stage.duration is not None
        if instant < stage.duration:
            return stage.first + (stage.last - stage.first) * instant / stage.duration
        instant -= stage.duration
    return stages[-1].last


def total_until(stages: tuple[StagePlan, ...], instant: float) -> float:
    """Return the integral of the level until an instant, by its definition."""
    total = 0.0
    for stage in stages:
        assert stage.duration is not None
        part = min(max(instant, 0), stage.duration)
        middle = stage.first + (stage.last - stage.first) * part / stage.duration / 2
        total += middle * part
        instant -= stage.duration
    return total


# The grammar of stages.


@pytest.mark.parametrize(
    ("text", "rates", "stages"),
    [
        ("100/30s", False, [(100, 100, 30)]),
        ("0-100/10s,100/30s,100-1k/1m", False, [(0, 100, 10), (100, 100, 30), (100, 1000, 60)]),
        (" 5/250ms , 5-0/1m30s ", False, [(5, 5, 0.25), (5, 0, 90)]),
        ("0/1s,5/1", False, [(0, 0, 1), (5, 5, 1)]),
        ("0.5/10s,2.5k-10k/1s", True, [(0.5, 0.5, 10), (2500, 10000, 1)]),
    ],
)
def test_stages_are_parsed(
    text: str, rates: bool, stages: list[tuple[float, float, float]]
) -> None:
    read = parse_stages(text, rates=rates)
    assert [(stage.first, stage.last, stage.duration) for stage in read] == stages


@pytest.mark.parametrize("rates", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "'' is not a stage; write it as in 100/30s or 0-100/10s"),
        ("100", "'100' is not a stage"),
        ("100/", "'100/' is not a stage"),
        ("/10s", "'/10s' is not a stage"),
        ("100/10s,", "'' is not a stage"),
        ("5/1s,,5/1s", "'' is not a stage"),
        ("5/1s,-5/10s", "'-5/10s' is not a stage"),
        ("0-/10s", "'0-/10s' is not a stage"),
        ("1-2-3/10s", "'1-2-3/10s' is not a stage"),
        ("100/10s/5", "'100/10s/5' is not a stage"),
        ("100:10s", "'100:10s' is not a stage"),
        ("2k/s/10s", "'2k/s/10s' is not a stage"),
        ("many/10s", "stage 'many/10s': 'many' is not a"),
        ("1-many/10s", "stage '1-many/10s': 'many' is not a"),
        ("5/1s,5/soon", "stage '5/soon': 'soon' is not a duration"),
        ("5/0s", "stage '5/0s' has a duration of 0"),
        ("0/10s,0-0/5s", "'0/10s,0-0/5s': all stages are 0"),
        ("5/1s\nx/2s", "is not a"),
    ],
)
def test_invalid_stages_are_refused(text: str, expected: str, rates: bool) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_stages(text, rates=rates)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_connections_are_whole_numbers_and_rates_need_not_be() -> None:
    with pytest.raises(InvalidValueError, match=r"stage '1\.5/1s': '1\.5' is not a whole number"):
        parse_stages("1.5/1s", rates=False)
    with pytest.raises(InvalidValueError, match="stage 'x/1s': 'x' is not a rate"):
        parse_stages("x/1s", rates=True)


@given(st.text("0159kM./-,smh \n\u0661", max_size=20), st.booleans())
def test_any_text_is_parsed_or_refused(text: str, rates: bool) -> None:
    with suppress(InvalidValueError):
        stages = parse_stages(text, rates=rates)
        assert len(stages) == text.count(",") + 1
        assert all(stage.duration for stage in stages)


@pytest.mark.parametrize(
    ("first", "last", "duration"),
    [(-1, 1, 1), (1, -1, 1), (math.nan, 1, 1), (1, INF, 1), (1, 1, 0), (1, 1, INF), (1, 1, -1)],
)
def test_impossible_stages_are_refused(first: float, last: float, duration: float) -> None:
    with pytest.raises(InvalidValueError, match="a stage cannot"):
        StagePlan(first=first, last=last, duration=duration)


@pytest.mark.parametrize(
    ("plan", "names", "description"),
    [
        (Plan(connections=1), ["1 connection"], "1 connection, 10s"),
        (Plan(connections=10**6), ["1,000,000 connections"], "1,000,000 connections, 10s"),
        (
            Plan(rate=0.5, connections=1, messages=3, arrivals="poisson"),
            ["0.5 msg/s on 1 connection"],
            "0.5 msg/s on 1 connection; poisson arrivals; 3 messages",
        ),
        (
            Plan(stages=parse_stages("0-1k/1s,2-1/1s", rates=False), repeat=3),
            ["0-1,000 connections", "2-1 connections"],
            "0-1,000, then 2-1 connections, 1s each; 3 times",
        ),
        (
            Plan(stages=parse_stages("0-1k/1s,5/2s", rates=True), staged_rate=True),
            ["0-1,000 msg/s on 100 connections", "5 msg/s on 100 connections"],
            "0-1,000, then 5 msg/s on 100 connections, 3s; constant arrivals",
        ),
    ],
)
def test_plans_and_stages_have_descriptions(plan: Plan, names: list[str], description: str) -> None:
    assert [plan.stage_name(stage) for stage in plan.run_stages] == names
    assert plan.description == description


# Stages over time.


@pytest.mark.parametrize(
    ("loop", "instants", "stages"),
    [
        (False, [-0.5, 0, 1.999, 2, 5.999, 6, 100], [-1, 0, 0, 1, 1, 1, 1]),
        (True, [-0.5, 0, 1.999, 2, 5.999, 6, 7.9, 8, 6002], [-1, 0, 0, 1, 1, 0, 0, 1, 1]),
    ],
)
def test_the_stage_at_an_instant_is_found(
    loop: bool, instants: list[float], stages: list[int]
) -> None:
    line = timeline("10/2s,10-30/4s", loop=loop)
    assert line.round_seconds == 6
    assert line.stages_at(np.array(instants, dtype=np.float64)).tolist() == stages
    assert [line.stage_at(instant) for instant in instants] == stages


@pytest.mark.parametrize(
    ("seconds", "last"),
    [(12, 1), (14, 0), (13, 0), (7, 0), (5, 1), (0.3, 0)],
)
def test_after_the_end_of_a_loop_the_stage_is_still_the_last_one(seconds: float, last: int) -> None:
    line = timeline("10/2s,10-30/4s", loop=True, seconds=seconds)
    instants = [math.nextafter(seconds, 0), seconds, seconds + 0.02, seconds + 5]
    assert [line.stage_at(instant) for instant in instants] == [last] * 4
    assert line.stage_at(-0.1) == -1


def test_a_stage_may_have_no_end() -> None:
    stages = (StagePlan(first=5, last=5, duration=None),)
    line = Timeline(stages, loop=False, seconds=INF)
    assert list(line.segments()) == [Segment(0, INF, 5, 5)]
    assert line.stage_at(1e9) == 0
    assert list(line.lifetimes(5)) == [(-INF, INF)]


@pytest.mark.parametrize(
    ("line", "segments"),
    [
        (timeline("10/2s,10-30/4s"), [(0, 2, 10, 10), (2, 4, 10, 30)]),
        (timeline("1/2s,2/1s", seconds=2), [(0, 2, 1, 1)]),
        (
            timeline("1/2s,2/1s", loop=True, seconds=5.5),
            [(0, 2, 1, 1), (2, 1, 2, 2), (3, 2, 1, 1), (5, 1, 2, 2)],
        ),
    ],
)
def test_segments_follow_the_stages(
    line: Timeline, segments: list[tuple[float, float, float, float]]
) -> None:
    assert list(line.segments()) == [Segment(*segment) for segment in segments]


def test_an_endless_loop_yields_segments_without_end() -> None:
    begins = [segment.begin for segment in islice(timeline("1/2s,2/1s", loop=True).segments(), 5)]
    assert begins == [0, 2, 3, 5, 6]


@pytest.mark.parametrize(
    ("plan", "seconds"),
    [
        (Plan(), 10),
        (Plan(duration=3), 3),
        (Plan(messages=5), INF),
        (Plan(stages=parse_stages("1/2s,2/1s", rates=False)), 3),
        (Plan(stages=parse_stages("1/2s,2/1s", rates=False), loop=True), INF),
        (Plan(stages=parse_stages("1/2s,2/1s", rates=False), loop=True, duration=20), 20),
    ],
)
def test_a_plan_determines_the_end_of_its_timeline(plan: Plan, seconds: float) -> None:
    assert Timeline.of(plan, plan.run_stages).seconds == seconds


def test_reopened_stages_have_ends_of_their_own() -> None:
    plan = Plan(stages=parse_stages("1/2s,2/1s", rates=False), reopen=True)
    parts = [Timeline.of(plan, (stage,)) for stage in plan.stages]
    assert [part.seconds for part in parts] == [2, 1]


# Lifetimes of connections.


@pytest.mark.parametrize(
    ("line", "number", "lifetimes"),
    [
        (timeline("0-10/10s,10/5s,10-4/6s"), 5, [(5, 20)]),
        (timeline("0-10/10s,10/5s,10-4/6s"), 4, [(4, INF)]),
        (timeline("0-10/10s,10/5s,10-4/6s"), 10, [(10, 15)]),
        (timeline("2/1s,5/1s,1/1s"), 1, [(-INF, INF)]),
        (timeline("2/1s,5/1s,1/1s"), 2, [(-INF, 2)]),
        (timeline("2/1s,5/1s,1/1s"), 4, [(1, 2)]),
        (timeline("2/1s,5/1s,1/1s"), 6, []),
        (timeline("2/1s,5/1s"), 2, [(-INF, INF)]),
        (timeline("0-10/10s,10-0/10s", loop=True, seconds=40), 5, [(5, 15), (25, 35)]),
        (timeline("0-10/10s,10-0/10s", loop=True, seconds=45), 5, [(5, 15), (25, 35), (45, INF)]),
    ],
)
def test_lifetimes_follow_the_levels(
    line: Timeline, number: int, lifetimes: list[tuple[float, float]]
) -> None:
    assert list(line.lifetimes(number)) == lifetimes


def test_lifetimes_in_an_endless_loop_are_yielded_one_by_one() -> None:
    line = timeline("10/1s,20/1s", loop=True)
    assert list(islice(line.lifetimes(15), 3)) == [(1, 2), (3, 4), (5, 6)]


@pytest.mark.parametrize("stages", ["10/1s,20/1s", "20-10/1s,10-20/1s", "10/1s"])
def test_a_connection_below_every_level_of_an_endless_loop_stays_open(stages: str) -> None:
    assert list(timeline(stages, loop=True).lifetimes(10)) == [(-INF, INF)]


@given(some_stages, st.integers(1, 40), st.floats(0, 24))
def test_a_connection_is_open_while_the_level_is_its_number_or_more(
    stages: tuple[StagePlan, ...], number: int, instant: float
) -> None:
    seconds = sum(stage.duration or 0 for stage in stages)
    assume(instant < seconds)
    lifetimes = list(Timeline(stages, loop=False, seconds=seconds).lifetimes(number))
    bounds = [bound for life in lifetimes for bound in life]
    assert bounds == sorted(bounds)
    assume(all(abs(bound - instant) > 1e-6 for bound in bounds))
    level = level_at(stages, instant)
    assert any(begin <= instant < end for begin, end in lifetimes) == (level >= number)


# Messages that are due.


@given(st.integers(1, 100_000), st.integers(1, 3000))
def test_messages_at_a_constant_rate_are_equidistant(rate: int, count: int) -> None:
    stages = (StagePlan(first=rate, last=rate, duration=None),)
    line = Timeline(stages, loop=False, seconds=INF)
    instants = list(islice(schedule(line), count))
    # To the nanosecond: rounding errors do not accumulate.
    assert all(abs(due - n * 1_000_000_000 / rate) <= 1 for n, due in enumerate(instants))


@given(some_stages)
def test_the_number_and_times_of_due_messages_follow_the_rates(
    stages: tuple[StagePlan, ...],
) -> None:
    seconds = sum(stage.duration or 0 for stage in stages)
    line = Timeline(stages, loop=False, seconds=seconds)
    instants = list(schedule(line))
    assert len(instants) == math.ceil(total_until(stages, seconds))
    assert instants == sorted(instants)
    for number, instant in enumerate(instants):
        assert 0 <= instant < seconds * 1e9
        assert total_until(stages, instant / 1e9) == pytest.approx(number, abs=1e-3)


@given(
    some_stages,
    st.integers(1, 7),
    st.integers(1, 20),
    st.booleans(),
)
def test_generators_share_a_schedule_as_they_share_the_connections(
    stages: tuple[StagePlan, ...], generators: int, connections: int, loop: bool
) -> None:
    seconds = 2.5 * sum(stage.duration or 0 for stage in stages) if loop else INF
    line = Timeline(stages, loop=loop, seconds=seconds)
    turns = [range(n, connections, generators) for n in range(generators)]
    parts = [list(schedule(line, turns=own, of=connections)) for own in turns]
    everything = list(schedule(line))
    assert sorted(chain(*parts)) == everything
    # The connections take turns.
    for own, part in zip(turns, parts, strict=True):
        assert part == [due for n, due in enumerate(everything) if n % connections in own]


@pytest.mark.parametrize(("seconds", "count"), [(0.5, 5), (2, 20), (2.5, 30), (3, 40), (4.55, 56)])
def test_nothing_is_due_after_the_end(seconds: float, count: int) -> None:
    instants = list(schedule(timeline("10/2s,20/1s", loop=True, seconds=seconds)))
    assert (len(instants), instants[-1] < seconds * 1e9) == (count, True)


def test_nothing_is_due_at_rate_0() -> None:
    instants = list(schedule(timeline("0/1s,4/1s,0/5s,4/1s,0/1s")))
    assert instants == [1_000_000_000 + n * 250_000_000 for n in range(4)] + [
        7_000_000_000 + n * 250_000_000 for n in range(4)
    ]


@given(st.sampled_from(["constant", "poisson"]), st.integers(0, 5000))
def test_no_more_messages_are_due_than_the_limit(
    arrivals: Literal["constant", "poisson"], messages: int
) -> None:
    line = timeline("1000/1s,0/1s,1000-3000/1s")
    everything = list(schedule(line, arrivals))
    assert list(schedule(line, arrivals, messages=messages)) == everything[:messages]


@given(
    st.sampled_from(["constant", "poisson"]),
    st.sampled_from([None, 0, 1, 1500, 9000]),
    st.integers(0, 4000),
)
def test_the_rest_is_counted_and_discarded(
    arrivals: Literal["constant", "poisson"], messages: int | None, taken: int
) -> None:
    line = timeline("1000/1s,0/1s,1000-3000/1s")
    everything = len(list(schedule(line, arrivals, messages=messages)))
    due = schedule(line, arrivals, messages=messages)
    taken = len(list(islice(due, taken)))
    assert due.rest(10**18) == everything - taken
    assert due.rest(10**18) == 0
    assert next(due, None) is None


def test_the_rest_of_an_endless_loop_is_counted_up_to_an_instant() -> None:
    due = schedule(timeline("100/1s,0/1s", loop=True))
    assert len(list(islice(due, 10))) == 10
    assert due.rest(int(4.5e9)) == 240
    assert next(due, None) is None


def test_an_endless_loop_is_computed_only_as_far_as_needed() -> None:
    due = schedule(timeline("100/1s,0-200/1s", loop=True))
    instants = list(islice(due, 10_000))
    one_round = instants[:200]
    assert instants[-1] == pytest.approx(100e9, rel=0.01)
    assert instants[9800:] == pytest.approx([instant + 98e9 for instant in one_round], abs=100)


# Random arrivals.


def test_random_arrivals_are_determined_by_the_seed() -> None:
    line = timeline("1000/2s,1000-5000/1s")
    first = list(schedule(line, "poisson", seed=5))
    assert list(schedule(line, "poisson", seed=5)) == first
    assert list(schedule(line, "poisson", seed=6)) != first
    shared = [list(schedule(line, "poisson", turns=range(n, 2, 2), of=2, seed=5)) for n in (0, 1)]
    assert not set(shared[0]) & set(shared[1])


@pytest.mark.parametrize("generators", [1, 3])
def test_random_arrivals_have_the_rate_and_intervals_of_a_poisson_process(
    generators: int,
) -> None:
    line = timeline("1000/50s,1000-3000/25s")
    parts = [
        list(schedule(line, "poisson", turns=range(n, 5, generators), of=5))
        for n in range(generators)
    ]
    assert all(part == sorted(part) for part in parts)
    everything = np.array(sorted(chain(*parts)))
    steady = everything[everything < 50e9]
    # Within four standard deviations, which are the square root of the mean. The seed is fixed.
    assert abs(len(steady) - 50_000) < 4 * 50_000**0.5
    assert abs(len(everything) - 100_000) < 4 * 100_000**0.5
    # Exponential: the deviation is the mean, and one interval in e**e exceeds e times the mean.
    gaps = np.diff(steady)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.03)
    assert (gaps > math.e * gaps.mean()).mean() == pytest.approx(math.exp(-math.e), rel=0.1)


def test_random_arrivals_end_with_the_stages() -> None:
    instants = list(schedule(timeline("1000/1s,0/1s,1000/1s"), "poisson"))
    assert instants[0] > 0
    assert instants[-1] < 3_000_000_000
    assert not [instant for instant in instants if 1e9 < instant < 2e9]
