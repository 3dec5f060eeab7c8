"""The comparison of two results: figures that are better, worse, or too noisy to compare.

This is a permutation test: the repeats of both results are assigned to the two sides in every
possible way, as if there were no difference between them, and for each way the largest studentized
difference among all figures is noted. A difference counts if it is larger than 95 % of these
(P. Westfall and S. Young, Resampling-Based Multiple Testing, 1993; A. Janssen, Studentized
permutation tests, 1997). Two equal results are thus called better or worse in at most one of twenty
comparisons, for any number of figures and any distribution of their noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import msgspec
import numpy as np

from echo_load.errors import IncomparableError
from echo_load.plan import fields
from echo_load.plan.bounds import DEFAULT_MARGIN
from echo_load.results.compare_capacities import compare_capacities
from echo_load.results.comparison import Change, ChangeVerdict, Comparison, Unit, caveats
from echo_load.results.result import Result, StageResult

CONFIDENCE = 0.95
# Differences between shares of failed messages up to this count as unchanged.
_SHARE_MARGIN = 0.0001
# With fewer repeats per side, there are too few assignments to show a difference.
LEAST_REPEATS = 4
# Up to this many assignments, all are examined; of more, this many are drawn at random.
_MOST_ASSIGNMENTS = 10_000
_SEED = 20_000
# Smallest standard error: a figure that does not vary has rounding errors.
_LEAST_ERROR = 1e-9
# The exponential of a larger number is infinite, or close to it.
_LARGEST_EXPONENT = 700.0

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Assignments = np.ndarray[Any, np.dtype[np.bool_]]

_ASKED = {"rate": "messages per second", "connections": "connections"}


class Samples(NamedTuple):
    """The values of one figure in the repeats of two results.

    Attributes:
        stage: name of the stage.
        figure: name of the figure.
        unit: unit of the values.
        more_is_better: whether larger values are better.
        baseline: values of the first result, one per repeat.
        other: values of the second result.
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
        baseline: result to compare with.
        other: result that is compared.
        names: names of the two results.
        margin: largest relative change that counts as no difference (0.05 is 5 %).

    Raises:
        IncomparableError: the results are of different commands or have different stages, or one
            has no complete repeat; or they are searches for a capacity with different SLOs, or
            without an answer.
        InvalidValueError: `baseline` or `other` is not a result.
    """
    for name, result in (("baseline", baseline), ("other", other)):
        fields.instance_of(Result)(name, result)
    _check(baseline, other, names)
    if baseline.capacity is not None and other.capacity is not None:
        return compare_capacities(
            (baseline, baseline.capacity), (other, other.capacity), names, margin
        )
    repeats = _repeats(baseline, names[0]), _repeats(other, names[1])
    changes = compare_figures(_samples(*repeats), margin)
    verdicts = [change.verdict for change in changes]
    order: tuple[ChangeVerdict, ...] = ("worse", "better", "too few repeats", "too noisy")
    return Comparison(
        baseline=names[0],
        other=names[1],
        repeats=(len(repeats[0]), len(repeats[1])),
        changes=changes,
        verdict=next((one for one in order if one in verdicts), "no difference"),
        notes=caveats(baseline, other, names),
    )


def to_json(comparisons: Sequence[Comparison]) -> bytes:
    """Return comparisons as an indented JSON array that ends with a line feed."""
    return msgspec.json.format(msgspec.json.encode(comparisons), indent=2) + b"\n"


def compare_figures(figures: Sequence[Samples], margin: float = DEFAULT_MARGIN) -> list[Change]:
    """Return the change of each figure; all figures must have the same numbers of repeats."""
    if not figures:
        return []
    first, second = len(figures[0].baseline), len(figures[0].other)
    values = np.array([_scaled(one) for one in figures]).T
    observed = np.zeros((1, first + second), dtype=bool)
    observed[0, :first] = True
    means, errors = _differences(values, observed)
    assignments = _assignments(first, second)
    critical = math.inf
    if min(first, second) > 1:
        critical = _critical(_largest(values, assignments))
    return [
        _change(one, float(mean), float(error), critical, margin)
        for one, mean, error in zip(figures, means[0], errors[0], strict=True)
    ]


def _repeats(result: Result, name: str) -> list[list[StageResult]]:
    """Return the stages of each complete repeat.

    Raises:
        IncomparableError: there is none.
    """
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
    if baseline.idle is not None:
        raise IncomparableError(
            f"{names[0]} is of echo-load idle, whose figures are not those of a load; compare the "
            "answers that `echo-load report` prints"
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
    """Return the figures that were measured in every complete repeat of both results."""
    found: list[Samples] = []
    for number, stage in enumerate(baseline[0]):
        for figure, unit, more_is_better, read in _FIGURES:
            sides = [[read(repeat[number]) for repeat in side] for side in (baseline, other)]
            if unit == "share" or min(map(min, sides)) > 0:
                found.append(Samples(stage.name, figure, unit, more_is_better, *sides))
    return found


def _service_p99(stage: StageResult) -> float:
    """Return the p99 of the service time; 0 in a closed loop, where it is the response time."""
    latencies = stage.latency_us
    return latencies.service.p99 if latencies.service != latencies.response else 0.0


def _bandwidth(stage: StageResult) -> float:
    """Return the payload bytes per second that came back."""
    return stage.bytes_received / stage.seconds if stage.seconds else 0.0


def _failed(stage: StageResult) -> float:
    """Return the share of attempts that failed."""
    return sum(stage.errors.values()) / stage.attempts if stage.attempts else 0.0


_FIGURES: tuple[tuple[str, Unit, bool, Callable[[StageResult], float]], ...] = (
    ("messages", "per second", True, lambda stage: stage.messages_per_second),
    ("bandwidth", "bytes per second", True, _bandwidth),
    ("response p50", "us", False, lambda stage: stage.latency_us.response.p50),
    ("response p99", "us", False, lambda stage: stage.latency_us.response.p99),
    ("response p99.9", "us", False, lambda stage: stage.latency_us.response.p99_9),
    ("service p99", "us", False, _service_p99),
    ("jitter", "us", False, lambda stage: stage.jitter_us or 0.0),
    ("connect p50", "us", False, lambda stage: stage.latency_us.connect.p50),
    ("failed", "share", False, _failed),
)


def _scaled(one: Samples) -> list[float]:
    """Return the values of both sides, on a scale on which a change is a difference.

    Shares stay as they are; all other values are replaced by their logarithms.
    """
    values = [*one.baseline, *one.other]
    return values if one.unit == "share" else [math.log(value) for value in values]


def _assignments(first: int, second: int) -> Assignments:
    """Return assignments of the repeats to the two sides.

    Each row is one of them: True for the repeats that are assigned to the first side.
    """
    count = first + second
    if math.comb(count, first) <= _MOST_ASSIGNMENTS:
        chosen = list(combinations(range(count), first))
        assignments = np.zeros((len(chosen), count), dtype=bool)
        assignments[np.arange(len(chosen))[:, None], chosen] = True
        return assignments
    random = np.random.default_rng(_SEED)
    ranks = random.random((_MOST_ASSIGNMENTS, count)).argsort(axis=1)
    # The observed assignment has to be among them.
    ranks[0] = np.arange(count)
    drawn: Assignments = ranks < first
    return drawn


def _differences(values: Matrix, assignments: Assignments) -> tuple[Matrix, Matrix]:
    """Return the differences of the means, and their standard errors (Welch's).

    Both have a row per assignment and a column per figure.
    """
    # Centred, because squares of large numbers would lose the digits in which they differ.
    centred = values - values.mean(axis=0)
    means, errors = [], []
    for side in (assignments, ~assignments):
        count = side.sum(axis=1, keepdims=True)
        mean = side @ centred / count
        variance = np.maximum(side @ centred**2 / count - mean**2, 0.0)
        means.append(mean)
        errors.append(variance / np.maximum(count - 1, 1))
    return means[1] - means[0], np.sqrt(errors[0] + errors[1])


def _largest(values: Matrix, assignments: Assignments) -> Matrix:
    """Return the largest studentized difference of all figures, for each assignment."""
    means, errors = _differences(values, assignments)
    # If a figure does not vary, a difference of 0 stays 0, and any other becomes huge.
    studentized = np.abs(means) / np.maximum(errors, _LEAST_ERROR)
    largest: Matrix = studentized.max(axis=1)
    return largest


def _critical(largest: Matrix) -> float:
    """Return the least studentized difference that at most 5 % of the assignments reach."""
    most = int((1 - CONFIDENCE) * len(largest) + 1e-9)
    descending = np.sort(largest)[::-1]
    # Equal differences must stay on one side, in spite of rounding errors.
    while most and most < len(largest) and descending[most] > descending[most - 1] * (1 - 1e-9):
        most -= 1
    # Not the value of the last assignment that counts: if that is of a figure that does not vary,
    # it is huge, and no difference of another figure would count.
    return float(descending[most]) * (1 + 1e-9) if most else math.inf


def _change(one: Samples, mean: float, error: float, critical: float, margin: float) -> Change:
    """Return the change of a figure.

    Args:
        one: values of the figure.
        mean: difference of the means, on the scale of `_scaled`.
        error: standard error of the difference.
        critical: smallest studentized difference that counts.
        margin: largest relative change that counts as no difference.
    """
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
        repeats_to_tell = _estimated_repeats(one, mean, half, least)
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
        high=None if half == math.inf or high > _LARGEST_EXPONENT else back(high),
        verdict=verdict,
        repeats_to_tell=repeats_to_tell,
    )


def _estimated_repeats(one: Samples, mean: float, half: float, least: float) -> int:
    """Return the estimated number of repeats that makes the interval narrow enough.

    It is narrow enough if it excludes 0 or is within the margin.
    """
    if half == math.inf:
        return LEAST_REPEATS + 1
    wanted = max(abs(mean), least - abs(mean))
    repeats = min(len(one.baseline), len(one.other))
    return max(repeats + 1, math.ceil(repeats * (half / wanted) ** 2))
