"""Axes with readable tick marks, in the format of plotly.js."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from echo_core.units import format_byte_rate, format_duration
from echo_load.plan.thresholds import written_time

Axis = dict[str, Any]
Number = float | int | None

# More tick labels do not fit below a chart on a phone.
_MOST_TICKS = 6
# The marks of times within a decade, in every n-th decade, and the most decades on which their
# labels are apart: beside a chart, and below it on a phone, where an axis has 240 pixels and a
# label takes 45.
_BESIDE = (((1, 2, 5), 1, 3.0), ((1,), 1, math.inf))
_BELOW = (
    ((1, 2, 5), 1, 1.5),
    ((1, 3), 1, 2.4),
    ((1,), 1, 5.0),
    ((1,), 2, 10.0),
    ((1,), 4, math.inf),
)
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)


def of_times(values: Sequence[Number], *, extra: float = 0.0, below: bool = False) -> Axis:
    """Return a logarithmic axis of times, with marks such as 50 µs, 1 ms and 2 s.

    Args:
        values: values in seconds that the axis has to cover; zeros are ignored.
        extra: space to add at its upper end, as a share of its length.
        below: whether the axis is below the chart, where there is space for fewer labels.
    """
    known = [value for value in values if value]
    if not known:
        return {"type": "log"}
    decades = range(math.floor(math.log10(min(known))) - 1, math.ceil(math.log10(max(known))) + 2)
    ends = _time_marks(decades, (1, 2, 5))
    # From the mark below the lowest value to the one above the highest: at least two marks.
    low = max(mark for mark in ends if mark <= min(known))
    high = min(mark for mark in ends if mark > max(known))
    length = math.log10(high / low)
    steps, every = next(
        (steps, every) for steps, every, most in (_BELOW if below else _BESIDE) if length <= most
    )
    marks = _time_marks((decade for decade in decades if decade % every == 0), steps)
    shown = [mark for mark in marks if low <= mark <= high]
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high) + extra * length],
        "tickangle": 0,
        "tickvals": shown,
        "ticktext": [written_time(mark) for mark in shown],
    }


def _time_marks(decades: Iterable[int], steps: Sequence[int]) -> list[float]:
    return [float(f"{step}e{decade}") for decade in decades for step in steps]


def of_counts(values: Sequence[Number], *, extra: float = 0.08) -> Axis:
    """Return an axis from 0, with marks such as 500, 20k and 1.5M; small ones are whole numbers.

    Args:
        values: values that the axis has to cover.
        extra: space at its upper end, as a share of the highest value.
    """
    highest = max((value for value in values if value), default=1)
    whole = {"tickformat": "d", "dtick": 1} if highest <= 4 else {"tickformat": "~s"}
    return {"range": [0, highest * (1 + extra)], **whole}


def of_seconds(last: int, begin: datetime | None = None) -> Axis:
    """Return an axis of the seconds from 0 to the last one, with space on either side.

    Args:
        last: number of the last second.
        begin: time on the clock at second 0, to be shown below the seconds; None for no clock.
    """
    step = next((step for step in _STEPS if last / step < _MOST_TICKS), None)
    if step is None:
        step = math.ceil(last / _MOST_TICKS / _STEPS[-1]) * _STEPS[-1]
    shown = list(range(0, last + 1, step))
    marks = [f"{second} s" if step < 60 else format_duration(second) for second in shown]
    if begin is not None:
        marks = [
            f"{mark}<br>{_clock(begin + timedelta(seconds=second), last)}"
            for mark, second in zip(marks, shown, strict=True)
        ]
    return {
        "range": [-0.6, last + 0.6],
        "tickangle": 0,
        "tickvals": shown,
        "ticktext": marks,
        "showgrid": False,
        "unifiedhovertitle": {"text": "second %{x:,.0f}"},
    }


def _clock(at: datetime, last: int) -> str:
    """Return a time on the clock, with the day if the test lasts longer than one."""
    text = f"{at:%-d %b %H:%M}" if last >= _STEPS[-1] else f"{at:%H:%M:%S}"
    return f'<span style="font-size:10px">{text}</span>'


def of_nines(nines: float) -> Axis:
    """Return an axis of percentiles on which each further nine takes the same space.

    Args:
        nines: number of nines at its end: 3 for 99.9 %.
    """
    shown = [2, *(10**nine for nine in range(1, max(1, math.floor(nines)) + 1))]
    if len(shown) > _MOST_TICKS:
        del shown[0]
    unit = " %" if len(shown) < _MOST_TICKS else ""
    return {
        "type": "log",
        "range": [0, max(nines, 1.0) * 1.02],
        "tickangle": 0,
        "tickvals": shown,
        "ticktext": [f"{100 * (1 - 1 / point):.10g}{unit}" for point in shown],
    }


def of_bytes(values: Sequence[Number], highest: float) -> Axis:
    """Return an axis of bytes per second from 0, with marks such as 500 kB/s and 20 MB/s.

    Args:
        values: values that the axis has to cover.
        highest: its end.
    """
    most = max((value for value in values if value), default=1)
    decade = 10 ** math.floor(math.log10(most))
    step = next(step for step in (decade / 5, decade / 2, decade, 2 * decade) if most / step < 6)
    shown = [number * step for number in range(math.floor(highest / step) + 1)]
    return {
        "range": [0, highest],
        "tickvals": shown,
        "ticktext": [format_byte_rate(mark) for mark in shown],
    }


def of_cores(values: Sequence[Number], most: int, *, extra: float) -> Axis:
    """Return an axis of processor cores from 0.

    Args:
        values: values that the axis has to cover.
        most: number of cores that it has to cover.
        extra: space at its upper end, as a share of the highest value.
    """
    highest = max([most, *(value for value in values if value)])
    return {"range": [0, highest * (1 + extra)], "tickformat": "~g", "nticks": 6}


def of_kinds(count: int) -> Axis:
    """Return an axis of kinds of errors, on which few bars are not wider than many."""
    spare = max(0.0, (6 - count) / 2)
    return {"type": "category", "range": [-0.5 - spare, count - 0.5 + spare]}


def of_connections() -> Axis:
    """Return an axis of 0 to 100 percent of the connections."""
    shown = (0, 25, 50, 75, 100)
    return {
        "range": [0, 101],
        "tickvals": list(shown),
        "ticktext": [f"{share} %" for share in shown],
    }


def of_shares(values: Sequence[Number]) -> Axis:
    """Return an axis in percent from 0, with space for labels at its top."""
    highest = max((value for value in values if value), default=1)
    return {"ticksuffix": " %", "range": [0, highest * 1.12]}
