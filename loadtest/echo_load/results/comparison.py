"""A comparison of two results: the change of each figure, a verdict, and caveats."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from echo_load.results.result import Result
from echo_load.results.short import shortened

SCHEMA = "echoswarm/comparison/1"
# The only figure of a comparison of capacities.
CAPACITY = "capacity"

ChangeVerdict = Literal["better", "worse", "no difference", "too noisy", "too few repeats"]
Unit = Literal["per second", "bytes per second", "us", "share", "count"]

# Fields of the plan that may differ between runs of the same test, or hardly affect it.
_NOT_THE_TEST = frozenset(
    {"targets", "repeat", "thresholds", "abort_on", "duration", "processes", "bytes_per_message"}
)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The change of one figure from one result to another.

    Attributes:
        stage: name of the stage.
        figure: name of the figure, such as `response p99`.
        unit: unit of the figure: messages `per second`, payload `bytes per second` in one
            direction, microseconds (`us`), a `share` of all attempts, or a `count` of connections.
        baseline: geometric mean of the figure over the repeats of the first result; for a share,
            the arithmetic mean.
        other: the same mean for the second result.
        change: relative change from the first to the second (0.1 is 10 % more); for shares, their
            difference.
        low: lower bound of the confidence interval of the change, at 95 % for all figures
            together; None if there are too few repeats.
        high: upper bound of that interval; None also if it is too large a number. For capacities
            it is not an interval of confidence: each is between the answer and the level above it
            that failed. A bound is None if a capacity was not reached.
        verdict: `no difference` if the interval is within the margin; otherwise `better` or `worse`
            if it excludes 0; otherwise `too noisy`. Without an interval it is `too few repeats`.
        repeats_to_tell: estimated number of repeats of each result that would give another
            verdict, if these are too noisy or too few; None otherwise, and for capacities.
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
    """The comparison of two results, figure by figure.

    Attributes:
        schema: name and version of this format.
        baseline: name of the first result.
        other: name of the second result.
        repeats: number of complete repeats of the first and of the second result.
        changes: change of each figure of each stage.
        verdict: first of `worse`, `better`, `too few repeats` and `too noisy` that is the verdict
            on one of the figures; otherwise `no difference`.
        notes: caveats, one line each.
    """

    schema: str = SCHEMA
    baseline: str
    other: str
    repeats: tuple[int, int]
    changes: list[Change]
    verdict: ChangeVerdict
    notes: list[str]

    def __repr__(self) -> str:
        """Return the verdict, and the figures that are better or worse, in one line."""
        changed = [
            f"{one.stage}, {one.figure} {one.verdict} by {abs(one.change):.1%}"
            for wanted in ("worse", "better")
            for one in self.changes
            if one.verdict == wanted
        ]
        heading = f"Comparison of {self.baseline} and {self.other}: {self.verdict}"
        return shortened("; ".join([heading, *changed]))


def caveats(
    baseline: Result, other: Result, names: tuple[str, str], answers: Collection[str] = ()
) -> list[str]:
    """Return the caveats of a comparison, one line each.

    Args:
        baseline: first result.
        other: second result.
        names: their names.
        answers: fields of the plan that the test chose by itself.
    """
    notes = []
    plans = [msgspec.to_builtins(one.plan) for one in (baseline, other)]
    differing = [
        f"{name.replace('_', ' ')} ({plans[0][name]} and {plans[1][name]})"
        for name in plans[0]
        if name not in {*_NOT_THE_TEST, *answers} and plans[0][name] != plans[1][name]
    ]
    if differing:
        notes.append(f"the plans differ in {', '.join(differing)}")
    if baseline.machine != other.machine:
        notes.append("they were measured on different machines, or with different versions")
    for name, result in zip(names, (baseline, other), strict=True):
        # The bounds of a capacity account for the generator.
        if result.generator.bound and result.capacity is None:
            notes.append(f"{name} is generator-bound: it shows the generator, not the target")
        if not result.passed:
            notes.append(f"{name} did not pass: {result.reasons[0]}")
    return notes
