"""The charts of an experiment, as data for plotly.js without colours."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from echo_load.lab.experiment import Measurement, Measurements, Unit
from echo_load.lab.notation import spread, written
from echo_load.report.page.traces import COLOURS, SYMBOLS, Trace

# Beyond this ratio of the largest to the smallest an axis is logarithmic.
_WIDEST_LINEAR = 12.0
_MARKS = (1, 2, 5)


class Chart(NamedTuple):
    """A chart.

    Attributes:
        name: of its element in the page.
        title: what it shows.
        data: traces as plotly.js takes them.
        layout: its layout, likewise.
    """

    name: str
    title: str
    data: list[Trace]
    layout: dict[str, Any]


def charts(experiment: str, measurements: Measurements) -> list[Chart]:
    """Return a chart for each name of which there are several variants or sizes.

    Args:
        experiment: its name.
        measurements: what was measured.
    """
    drawn = []
    for name in dict.fromkeys(one.name for one in measurements):
        same = [one for one in measurements.named(name) if one.median > 0]
        sizes = {one.at for one in same}
        make = _over_sizes if len(sizes) > 1 and None not in sizes else _beside
        if len({(one.of, one.at) for one in same}) > 1 and len({one.median for one in same}) > 1:
            identifier = f"{experiment}-{name}".replace(" ", "-")
            drawn.append(Chart(identifier, name, *make(same)))
    return drawn


def _over_sizes(measurements: Sequence[Measurement]) -> tuple[list[Trace], dict[str, Any]]:
    """Return a line over the sizes for each variant."""
    data = []
    for number, of in enumerate(dict.fromkeys(one.of for one in measurements)):
        same = [one for one in measurements if one.of == of]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": _plain(of),
                "line": {"width": 2},
                "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 7},
                "x": [one.at for one in same],
                "y": [one.median for one in same],
                "error_y": _spreads(same),
                "text": [_hover(one) for one in same],
                "hovertemplate": "%{text}<extra></extra>",
                "meta": {"colour": f"run-{number % COLOURS}"},
            }
        )
    sizes = sorted({one.at for one in measurements if one.at is not None})
    xaxis = {
        "type": "log",
        "tickvals": sizes,
        "ticktext": [f"{size:,}" for size in sizes],
        "showgrid": False,
    }
    return data, _layout(xaxis, _axis(measurements, beyond=0.1), legend=len(data) > 1)


def _beside(measurements: Sequence[Measurement]) -> tuple[list[Trace], dict[str, Any]]:
    """Return a point with its spread for each variant and size, one below the other."""
    labels = [_plain(_variant(one)) for one in measurements]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "",
        "marker": {"size": 11},
        "x": [one.median for one in measurements],
        "y": labels,
        "error_x": _spreads(measurements),
        "text": [_hover(one) for one in measurements],
        "hovertemplate": "%{text}<extra></extra>",
        "meta": {"colour": "run-0"},
    }
    # Space above the first row and below the last one.
    yaxis = {"type": "category", "range": [len(labels) - 0.4, -0.6], "showgrid": True}
    return [trace], _layout(_axis(measurements, beyond=0.05), yaxis, legend=False)


def _plain(text: str) -> str:
    """Escape a text that plotly.js would take for markup."""
    return html.escape(text, quote=False)


def _variant(measurement: Measurement) -> str:
    size = "" if measurement.at is None else f"{measurement.at:,}"
    return (
        f"{measurement.of}, {size}"
        if measurement.of and size
        else measurement.of or size or measurement.name
    )


def _hover(measurement: Measurement) -> str:
    between = spread(measurement)
    value = written(measurement.median, measurement.unit)
    return _plain(f"{_variant(measurement)}: {value}") + (f" ({between})" if between else "")


def _spreads(measurements: Sequence[Measurement]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [one.high - one.median for one in measurements],
        "arrayminus": [one.median - one.low for one in measurements],
        "thickness": 1.4,
        "width": 4,
    }


def _axis(measurements: Sequence[Measurement], beyond: float) -> dict[str, Any]:
    """Return an axis for some measurements and their spreads, with readable marks.

    Args:
        measurements: of one unit, all above 0.
        beyond: the share of its length that is added at its ends.
    """
    unit = measurements[0].unit
    low = min(one.low or one.median for one in measurements)
    high = max(one.high for one in measurements)
    if high / low > _WIDEST_LINEAR:
        first, last = math.log10(low), math.log10(high)
        extra = (last - first) * beyond
        marks = [mark for mark in _log_marks(unit, low, high) if mark <= high * 10**extra]
        scale = {"type": "log", "range": [first - extra, last + extra]}
    else:
        marks = list(_linear_marks(unit, high))
        scale = {"type": "linear", "range": [0, high * (1 + beyond)]}
    return {**scale, "tickvals": marks, "ticktext": [written(mark, unit) for mark in marks]}


def _base(unit: Unit) -> int:
    """Return the factor between the prefixes of a unit."""
    return 1024 if unit in {"B", "B/s"} else 1000


def _log_marks(unit: Unit, low: float, high: float) -> list[float]:
    """Return round values in a range: one per decade, or more where there are few decades."""
    base = _base(unit)
    exponents = range(math.floor(math.log(low, base)) - 1, math.ceil(math.log(high, base)) + 1)
    steps = _MARKS if high / low < 200 else _MARKS[:1]
    marks = [
        float(step * ten) * float(base) ** exponent
        for exponent in exponents
        for ten in (1, 10, 100)
        for step in steps
    ]
    return [mark for mark in marks if low / 1.5 <= mark <= high * 2]


def _linear_marks(unit: Unit, high: float) -> Iterator[float]:
    """Yield zero and three to six round values up to the highest."""
    base = float(_base(unit))
    power = base ** math.floor(math.log(high, base))
    decade = 10.0 ** math.floor(math.log10(high / power))
    step = next(
        step * decade * power
        for step in (0.2, 0.5, 1.0, 2.0, 5.0)
        if high / (step * decade * power) <= 5
    )
    for number in range(math.floor(high / step) + 1):
        yield number * step


def _layout(xaxis: dict[str, Any], yaxis: dict[str, Any], *, legend: bool) -> dict[str, Any]:
    return {"xaxis": xaxis, "yaxis": yaxis, "showlegend": legend, "hovermode": "closest"}
