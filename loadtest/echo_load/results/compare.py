"""Compares two results: what is better, what is worse, and what cannot be told.

This is a permutation test: the repeats of both results are assigned to the two sides in every
possible way, as if there were no difference between them, and for each way the largest studentized
difference among all figures is noted. A difference counts if it is larger than 95 % of these
(P. Westfall and S. Young, Resampling-Based Multiple Testing, 1993; A. Janssen, Studentized
permutation tests, 1997). Two equal results are thus called better or worse in at most one of twenty
comparisons, however many figures there are and whatever their noise looks like.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from echo_load.errors import IncomparableError
from echo_load.results.result import Result, StageResult

SCHEMA = "echoswarm/comparison/1"
CONFIDENCE = 0.95
# Ratios closer to 1 than this are of no interest.
DEFAULT_MARGIN = 0.05
# Smaller differences of the share of messages that failed are of no interest.
_SHARE_MARGIN = 0.0001
# Fewer repeats per side than this cannot be assigned in enough ways to show a difference.
LEAST_REPEATS = 4
# Up to this many ways, all are examined; of more, this many are drawn at random.
_MOST_WAYS = 10_000
_SEED = 20_000
# The least standard error: even figures that do not vary at all are rounded.
_LEAST_ERROR = 1e-9

ChangeVerdict = Literal["better", "worse", "no difference", "too noisy", "too few repeats"]
Unit = Literal["per second", "us", "share"]
Matrix = np.ndarray[Any, np.dtype[np.float64]]
Ways = np.ndarray[Any, np.dtype[np.bool_]]

# Fields of the plan that may differ between runs of the same test, or say little about it.
_NOT_THE_TEST = frozenset({"targets", "repeat", "thresholds", "abort_on", "duration", "processes"})


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of two results.

    Attributes:
        stage: the name of its stage.
        figure: its name.
        unit: messages `per second`, microseconds (`us`), or a `share` of all attempts.
        baseline: its geometric mean over the repeats of the first result; for a share, the
            arithmetic mean.
        other: the same for the second result.
        change: by how much the second differs, as a share of the first (0.1 is 10 % more); for
            shares, their difference.
        low: the lower end of the confidence interval of the change, at 95 % for all figures
            together; None if there are too few repeats.
        high: its upper end.
        verdict: `no difference` if the interval is within the margin, otherwise `better` or `worse`
            if it excludes 0, otherwise `too noisy` to tell; or `too few repeats` for an interval.
        repeats_to_tell: how many repeats of each would probably tell, if these do not.
    """

    stage: str
    figure: str
    unit: Unit
    baseline: float
    other: float
    change: float
    low: float | None
    high: float | None
    verdict: ChangeVerdict
    repeats_to_tell: int | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two results, figure by figure.

    Attributes:
        baseline: name of the first result.
        other: name of the second.
        repeats: how many each has.
        changes: of each figure.
        verdict: `worse` if one figure is, otherwise `better` if one is, otherwise `too few
            repeats`, `too noisy` if one is, otherwise `no difference`.
        notes: caveats, a line each.
    """

    schema: str = SCHEMA
    baseline: str
    other: str
    repeats: tuple[int, int]
    changes: list[Change]
    verdict: ChangeVerdict
    notes: list[str]


class Samples(NamedTuple):
    """One figure as it was measured in each repeat.

    Attributes:
        stage: the name of its stage.
        figure: its name.
        unit: that of the values.
        more_is_better: whether larger values are better.
        baseline: a value per repeat of the first result.
        other: the same for the second.
    """

    stage: str
    figure: str
    unit: Unit
    more_is_better: bool
    baseline: Sequence[float]
    other: Sequence[float]


def compare(
    baseline: Result,
    other: Result,
    *,
    names: tuple[str, str] = ("baseline", "other"),
    margin: float = DEFAULT_MARGIN,
) -> Comparison:
    """Compare two results of the same kind of test.

    Args:
        baseline: what to compare with.
        other: what is compared.
        names: what the results are called.
        margin: a smaller change than this share is of no interest.

    Raises:
        IncomparableError: they are results of different commands, or have different stages.
    """
    _check(baseline, other, names)
    repeats = _repeats(baseline, names[0]), _repeats(other, names[1])
    changes = judge(_samples(*repeats), margin)
    verdicts = [change.verdict for change in changes]
    order: tuple[ChangeVerdict, ...] = ("worse", "better", "too few repeats", "too noisy")
    return Comparison(
        baseline=names[0],
        other=names[1],
        repeats=(len(repeats[0]), len(repeats[1])),
        changes=changes,
        verdict=next((one for one in order if one in verdicts), "no difference"),
        notes=_notes(baseline, other, names),
    )


def to_json(comparisons: Sequence[Comparison]) -> bytes:
    """Comparisons as an indented JSON array, with a line feed at its end."""
    return msgspec.json.format(msgspec.json.encode(comparisons), indent=2) + b"\n"


def judge(figures: Sequence[Samples], margin: float = DEFAULT_MARGIN) -> list[Change]:
    """Return what changed in each figure; all of them have the same repeats."""
    if not figures:
        return []
    first, second = len(figures[0].baseline), len(figures[0].other)
    values = np.array([_scaled(one) for one in figures]).T
    observed = np.zeros((1, first + second), dtype=bool)
    observed[0, :first] = True
    means, errors = _differences(values, observed)
    ways = _ways(first, second)
    critical = math.inf
    if min(first, second) > 1:
        critical = _critical(_largest(values, ways))
    return [
        _judged(one, float(mean), float(error), critical, margin)
        for one, mean, error in zip(figures, means[0], errors[0], strict=True)
    ]


def _repeats(result: Result, name: str) -> list[list[StageResult]]:
    """The stages of each complete repeat."""
    repeats = [one.stages for one in result.repeats] or [result.stages]
    if result.verdict == "interrupted":
        repeats = repeats[:-1]
    whole = [stages for stages in repeats if len(stages) == len(result.stages)]
    if not whole:
        raise IncomparableError(
            f"{name} was interrupted, so it is incomplete and cannot be compared"
        )
    return whole


def _check(baseline: Result, other: Result, names: tuple[str, str]) -> None:
    if baseline.command != other.command:
        raise IncomparableError(
            f"{names[0]} is of echo-load {baseline.command} and {names[1]} of echo-load "
            f"{other.command}: compare results of the same command"
        )
    stages = [[stage.name for stage in one.stages] for one in (baseline, other)]
    if len(stages[0]) != len(stages[1]) or (len(stages[0]) > 1 and stages[0] != stages[1]):
        raise IncomparableError(
            f"{names[0]} has the stages {', '.join(stages[0])} and {names[1]} has "
            f"{', '.join(stages[1])}: compare results with the same stages"
        )


def _samples(
    baseline: Sequence[Sequence[StageResult]], other: Sequence[Sequence[StageResult]]
) -> list[Samples]:
    """Each figure that was measured in every repeat of both."""
    found: list[Samples] = []
    for number, stage in enumerate(baseline[0]):
        for figure, unit, more_is_better, read in _FIGURES:
            sides = [[read(repeat[number]) for repeat in side] for side in (baseline, other)]
            if unit == "share" or min(map(min, sides)) > 0:
                found.append(Samples(stage.name, figure, unit, more_is_better, *sides))
    return found


def _service_p99(stage: StageResult) -> float:
    """The p99 of the service time; 0 in a closed loop, where it is the response time."""
    latencies = stage.latency_us
    return latencies.service.p99 if latencies.service != latencies.response else 0.0


def _failed(stage: StageResult) -> float:
    return sum(stage.errors.values()) / stage.attempts if stage.attempts else 0.0


_FIGURES: tuple[tuple[str, Unit, bool, Callable[[StageResult], float]], ...] = (
    ("messages", "per second", True, lambda stage: stage.messages_per_second),
    ("response p50", "us", False, lambda stage: stage.latency_us.response.p50),
    ("response p99", "us", False, lambda stage: stage.latency_us.response.p99),
    ("response p99.9", "us", False, lambda stage: stage.latency_us.response.p99_9),
    ("service p99", "us", False, _service_p99),
    ("connect p50", "us", False, lambda stage: stage.latency_us.connect.p50),
    ("failed", "share", False, _failed),
)


def _scaled(one: Samples) -> list[float]:
    """The values of both sides, other than shares as logarithms: changes become differences."""
    values = [*one.baseline, *one.other]
    return values if one.unit == "share" else [math.log(value) for value in values]


def _ways(first: int, second: int) -> Ways:
    """Ways to assign the repeats to the two sides: a row each, True for those of the first."""
    count = first + second
    if math.comb(count, first) <= _MOST_WAYS:
        chosen = list(combinations(range(count), first))
        ways = np.zeros((len(chosen), count), dtype=bool)
        ways[np.arange(len(chosen))[:, None], chosen] = True
        return ways
    random = np.random.default_rng(_SEED)
    ranks = random.random((_MOST_WAYS, count)).argsort(axis=1)
    # What was observed is one of the ways, too.
    ranks[0] = np.arange(count)
    drawn: Ways = ranks < first
    return drawn


def _differences(values: Matrix, ways: Ways) -> tuple[Matrix, Matrix]:
    """For each way and figure, the difference of the means, and its standard error (Welch's)."""
    # Small numbers near 0 keep their digits when they are squared.
    centred = values - values.mean(axis=0)
    means, errors = [], []
    for side in (ways, ~ways):
        count = side.sum(axis=1, keepdims=True)
        mean = side @ centred / count
        variance = np.maximum(side @ centred**2 / count - mean**2, 0.0)
        means.append(mean)
        errors.append(variance / np.maximum(count - 1, 1))
    return means[1] - means[0], np.sqrt(errors[0] + errors[1])


def _largest(values: Matrix, ways: Ways) -> Matrix:
    """For each way, the largest studentized difference of all figures."""
    means, errors = _differences(values, ways)
    # For figures that do not vary, no difference stays 0, and any other becomes huge.
    studentized = np.abs(means) / np.maximum(errors, _LEAST_ERROR)
    largest: Matrix = studentized.max(axis=1)
    return largest


def _critical(largest: Matrix) -> float:
    """The least studentized difference that at most 5 % of the ways reach."""
    most = int((1 - CONFIDENCE) * len(largest) + 1e-9)
    descending = np.sort(largest)[::-1]
    # Equal differences belong together: rounding must not separate them.
    while most and most < len(largest) and descending[most] > descending[most - 1] * (1 - 1e-9):
        most -= 1
    return float(descending[most - 1]) * (1 - 1e-9) if most else math.inf


def _judged(one: Samples, mean: float, error: float, critical: float, margin: float) -> Change:
    share = one.unit == "share"
    least = _SHARE_MARGIN if share else math.log1p(margin)
    half = critical * max(error, _LEAST_ERROR) if critical < math.inf else math.inf
    low, high = mean - half, mean + half
    verdict: ChangeVerdict = "too few repeats" if half == math.inf else "too noisy"
    repeats_to_tell = None
    if -least <= low and high <= least:
        verdict = "no difference"
    elif low > 0 or high < 0:
        verdict = "better" if (mean > 0) == one.more_is_better else "worse"
    else:
        repeats_to_tell = _repeats_to_tell(one, mean, half, least)
    back: Callable[[float], float] = float if share else math.expm1
    average = statistics.fmean if share else statistics.geometric_mean
    return Change(
        stage=one.stage,
        figure=one.figure,
        unit=one.unit,
        baseline=average(one.baseline),
        other=average(one.other),
        change=back(mean),
        low=None if half == math.inf else back(low),
        high=None if half == math.inf else back(high),
        verdict=verdict,
        repeats_to_tell=repeats_to_tell,
    )


def _repeats_to_tell(one: Samples, mean: float, half: float, least: float) -> int:
    """Return how many repeats would narrow the interval until it excludes 0 or fits the margin."""
    if half == math.inf:
        return LEAST_REPEATS + 1
    wanted = max(abs(mean), least - abs(mean))
    repeats = min(len(one.baseline), len(one.other))
    return max(repeats + 1, math.ceil(repeats * (half / wanted) ** 2))


def _notes(baseline: Result, other: Result, names: tuple[str, str]) -> list[str]:
    """Return caveats of a comparison, a line each."""
    notes = []
    plans = [msgspec.to_builtins(one.plan) for one in (baseline, other)]
    differing = [
        f"{name.replace('_', ' ')} ({plans[0][name]} and {plans[1][name]})"
        for name in plans[0]
        if name not in _NOT_THE_TEST and plans[0][name] != plans[1][name]
    ]
    if differing:
        notes.append(f"the plans differ in {', '.join(differing)}")
    if baseline.machine != other.machine:
        notes.append("they were measured on different machines, or with different versions")
    for name, result in zip(names, (baseline, other), strict=True):
        if result.generator.bound:
            notes.append(f"{name} is generator-bound: it shows the generator, not the target")
        if not result.passed:
            notes.append(f"{name} did not pass: {result.reasons[0]}")
    return notes
