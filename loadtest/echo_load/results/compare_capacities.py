"""Comparison of two capacities: which is higher, and by how much.

The true capacity is between the answer of a search and the level above it that failed. One capacity
is higher than another if these intervals do not overlap.
"""

from __future__ import annotations

import math

import msgspec

from echo_load.errors import IncomparableError
from echo_load.results.capacity import CapacityResult
from echo_load.results.comparison import CAPACITY, Change, ChangeVerdict, Comparison, caveats
from echo_load.results.result import Result

# A lower bound, and an upper bound or None.
Interval = tuple[float, float | None]
_ROUNDING = 1e-9
_ASKED = {"rate": "messages per second", "connections": "connections"}


def compare_capacities(
    baseline: tuple[Result, CapacityResult],
    other: tuple[Result, CapacityResult],
    names: tuple[str, str],
    margin: float,
) -> Comparison:
    """Compare the answers of two searches; the figures of their last steps are at other rates."""
    _check_capacities(baseline, other, names)
    first, second = baseline[1], other[1]
    change = compare_intervals(first.interval, second.interval, margin)
    return Comparison(
        baseline=names[0],
        other=names[1],
        repeats=(1, 1),
        changes=[
            msgspec.structs.replace(
                change,
                figure=CAPACITY,
                unit="per second" if first.asked == "rate" else "count",
            )
        ],
        verdict=change.verdict,
        notes=[
            *caveats(baseline[0], other[0], names, {"rate", first.asked}),
            *(
                f"{name} is a lower bound: {one.answer}"
                for name, one in zip(names, (first, second), strict=True)
                if one.interval[1] is None
            ),
            *(
                ["the answers are within their precision: a smaller --precision may tell more"]
                if change.verdict == "too noisy" and None not in {change.low, change.high}
                else []
            ),
        ],
    )


def _check_capacities(
    baseline: tuple[Result, CapacityResult],
    other: tuple[Result, CapacityResult],
    names: tuple[str, str],
) -> None:
    for name, (_, one) in zip(names, (baseline, other), strict=True):
        if one.level is None:
            raise IncomparableError(f"{name} has no capacity to compare: {one.answer}")
    asked = [one.asked for _, one in (baseline, other)]
    if asked[0] != asked[1]:
        raise IncomparableError(
            f"{names[0]} is the capacity in {_ASKED[asked[0]]} and {names[1]} that in "
            f"{_ASKED[asked[1]]}: compare results of the same question"
        )
    slos = [" and ".join(sorted(one.plan.thresholds)) or "no error" for one, _ in (baseline, other)]
    if slos[0] != slos[1]:
        raise IncomparableError(
            f"{names[0]} is the capacity for {slos[0]} and {names[1]} that for {slos[1]}: compare "
            "results with the same --slo"
        )


def compare_intervals(baseline: Interval, other: Interval, margin: float) -> Change:
    """Return the change between two figures, of each of which bounds are known.

    Args:
        baseline: lower bound, and upper bound if there is one, of the first figure.
        other: the same for the second figure.
        margin: largest relative change that counts as no difference.
    """
    low = other[0] / baseline[1] - 1 if baseline[1] is not None else None
    high = other[1] / baseline[0] - 1 if other[1] is not None else None
    # Searches with the default precision that find the same are just within the default margin.
    least = math.log1p(margin) + _ROUNDING
    verdict: ChangeVerdict = "too noisy"
    if low is not None and high is not None and -least <= math.log1p(low):
        verdict = "no difference" if math.log1p(high) <= least else verdict
    if verdict != "no difference":
        verdict = "better" if low is not None and low >= 0 else verdict
        verdict = "worse" if high is not None and high <= 0 else verdict
    return Change(
        stage="",
        figure="",
        unit="count",
        baseline=baseline[0],
        other=other[0],
        change=other[0] / baseline[0] - 1,
        low=low,
        high=high,
        verdict=verdict,
        repeats_to_tell=None,
    )
