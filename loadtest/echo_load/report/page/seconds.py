"""The series of a result as points of a chart: downsampled, with the gaps of the series."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from echo_load.report.page.axes import Number
from echo_load.results.result import Result, Second

# A chart has hardly more columns than this.
MOST_POINTS = 1000

Aggregate = Literal["mean", "highest", "last"]


class Points(NamedTuple):
    """The points of a chart of one figure over time.

    Attributes:
        x: time of each point in seconds.
        y: value at each point; None to interrupt the line.
        widths: number of seconds that each point represents.
    """

    x: list[Number]
    y: list[Number]
    widths: list[int]

    @property
    def alone(self) -> bool:
        """True if a point has no neighbour to which a line could be drawn."""
        around = [None, *self.y, None]
        return any(
            one is not None and before is None and after is None
            for before, one, after in zip(around, around[1:], around[2:], strict=False)
        )


class Part(NamedTuple):
    """A stage of a repeat in the series of a result.

    Attributes:
        label: its number: `2`, or `1.2` if there are several repeats of several stages.
        name: name of the stage; empty if the test has a single one.
        first: number of its first second.
        last: number of its last second.
    """

    label: str
    name: str
    first: int
    last: int


def points(
    result: Result,
    read: Callable[[Second], Number],
    keep: Aggregate = "mean",
    *,
    most: int = MOST_POINTS,
) -> Points:
    """Return the points of one figure of a series.

    Args:
        result: the result with the series.
        read: function that returns the figure of a second; None if it has none.
        keep: the value that represents several seconds at one point.
        most: number of points that are not worth exceeding.
    """
    size = math.ceil(len(result.series) / most) or 1
    found = Points([], [], [])
    for piece in pieces(result):
        if found.x:
            _add(found, piece[0].second - 0.5, None, 1)
        for begin in range(0, len(piece), size):
            group = piece[begin : begin + size]
            middle = (group[0].second + group[-1].second) / 2
            values = [value for one in group if (value := read(one)) is not None]
            _add(found, middle, _aggregated(values, keep), len(group))
    return found


def parts(result: Result) -> list[Part]:
    """Return the stages and repeats of a series in their order."""
    several_stages = len(result.stages) > 1
    found: list[Part] = []
    before: Second | None = None
    stage = 0
    for one in result.series:
        if before is None or one.repeat != before.repeat:
            stage = 1
        elif one.stage != before.stage:
            stage += 1
        else:
            found[-1] = found[-1]._replace(last=one.second)
            before = one
            continue
        repeat = f"{one.repeat}" if result.plan.repeat > 1 else ""
        label = ".".join(filter(None, (repeat, f"{stage}" if several_stages else "")))
        found.append(Part(label, one.stage if several_stages else "", one.second, one.second))
        before = one
    return found


def _add(to: Points, x: float, y: Number, width: int) -> None:
    to.x.append(int(x) if x == int(x) else x)
    to.y.append(y)
    to.widths.append(width)


def _aggregated(values: Sequence[float], keep: Aggregate) -> Number:
    if not values:
        return None
    if keep == "last":
        return values[-1]
    value = sum(values) / len(values) if keep == "mean" else max(values)
    return int(value) if value == int(value) else float(f"{value:.6g}")


def pieces(result: Result) -> list[list[Second]]:
    """Return the sequences of seconds without a gap or a replacement of the connections."""
    pieces: list[list[Second]] = [list(result.series[:1])] if result.series else []
    for before, one in pairwise(result.series):
        reopened = result.plan.reopen and one.stage != before.stage
        if one.second != before.second + 1 or one.repeat != before.repeat or reopened:
            pieces.append([])
        pieces[-1].append(one)
    return pieces
