"""Guides in charts: stages and repeats, thresholds, and percentiles."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from echo_load.plan.thresholds import Threshold
from echo_load.report.page.seconds import Part, parts
from echo_load.results.result import Result

# Largest number of parts whose numbers fit in a chart, and of parts that fit without numbers.
_MOST_LABELS = 14
_MOST_PARTS = 60
# Width of the label of a percentile on a phone, as a share of the axis.
_LABEL_WIDTH = 0.16

Shape = dict[str, Any]


class Guide(NamedTuple):
    """A line across a chart.

    Attributes:
        label: text at the line.
        at: position of the line in the unit of the axis.
    """

    label: str
    at: float


def rates(result: Result) -> list[Guide]:
    """Return guides at the thresholds of the throughput."""
    return [
        Guide(limit.text, limit.limit)
        for limit in result.plan.limits
        if limit.metric == "messages_per_second" and limit.scope.is_whole
    ]


def times(result: Result) -> list[Guide]:
    """Return guides at the thresholds of the response time, except for its mean."""
    return [Guide(limit.text, limit.limit) for limit in result.plan.limits if _of_response(limit)]


def percentiles(result: Result) -> list[Guide]:
    """Return guides at the percentiles that the top of the page shows."""
    response = result.latency_us.response
    found = (("p50", response.p50), ("p99", response.p99), ("p99.9", response.p99_9))
    return [Guide(name, microseconds / 1e6) for name, microseconds in found if microseconds]


def shared_parts(results: Sequence[Result]) -> list[Part]:
    """Return the stages and repeats, if there are several and they are the same in all results."""
    found = parts(results[0])
    if not 1 < len(found) <= _MOST_PARTS or any(parts(one) != found for one in results[1:]):
        return []
    return found


def numbered_parts(results: Sequence[Result]) -> list[Part]:
    """Return the shared parts if there is space for their numbers."""
    found = shared_parts(results)
    return found if len(found) <= _MOST_LABELS else []


def drawn_over_time(results: Sequence[Result], limits: Sequence[Guide]) -> dict[str, Any]:
    """Return shapes: a rectangle for each part, alternately shaded, and a line per threshold."""
    found = shared_parts(results)
    shapes = [_shaded(part, number % 2 == 1) for number, part in enumerate(found)]
    if len(found) > _MOST_LABELS:
        for shape in shapes:
            del shape["label"]
    return {"shapes": shapes + drawn_limits(limits)}


def drawn_limits(limits: Sequence[Guide]) -> list[Shape]:
    """Return a horizontal line with its label for each threshold."""
    return [
        _line("y", limit.at)
        | {
            "label": {
                # Escaped, because plotly.js interprets markup.
                "text": html.escape(limit.label, quote=False),
                "textposition": "start",
                "yanchor": "bottom",
                "padding": 4,
            }
        }
        for limit in limits
    ]


def drawn_across(guides: Sequence[Guide], xaxis: dict[str, Any]) -> dict[str, Any]:
    """Return shapes: a vertical line for each guide, with its label if there is space."""
    if "range" not in xaxis:
        return {}
    low, high = xaxis["range"]
    shapes: list[Shape] = []
    free_from = -math.inf
    for guide in guides:
        shape = _line("x", guide.at)
        position = (math.log10(guide.at) - low) / (high - low)
        # The label is on the side of the line that has space.
        at_end = position > 1 - _LABEL_WIDTH
        begin = position - at_end * _LABEL_WIDTH
        if begin >= free_from:
            label = {"text": guide.label, "textposition": "end", "textangle": 0}
            anchor = "right" if at_end else "left"
            shape["label"] = label | {"xanchor": anchor, "yanchor": "top", "padding": 3}
            free_from = begin + _LABEL_WIDTH
        shapes.append(shape)
    return {"shapes": shapes}


def _of_response(limit: Threshold) -> bool:
    # The charts are those of all targets and stages together.
    of_all = limit.scope.is_whole
    return of_all and limit.metric.startswith("response.") and not limit.metric.endswith(".mean")


def _line(axis: str, at: float) -> Shape:
    """Return a line across the whole chart, at a position on an axis."""
    other = "y" if axis == "x" else "x"
    ends = {f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1}
    return {"type": "line", "name": "guide", f"{axis}0": at, f"{axis}1": at, **ends}


def _shaded(part: Part, shaded: bool) -> Shape:
    return {
        "type": "rect",
        "yref": "paper",
        "x0": part.first - 0.5,
        "x1": part.last + 0.5,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "name": "shaded" if shaded else "plain",
        "label": {"text": part.label, "textposition": "top center"},
    }
