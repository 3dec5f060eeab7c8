"""The notation of measurements for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from echo_core.units import format_bytes
from echo_load.lab.experiment import Measurement, Measurements, Unit
from echo_load.plan.thresholds import written_rate, written_time


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


_WRITERS: dict[Unit, Callable[[float], str]] = {
    "s": lambda value: written_time(value) if value else "0 s",
    "B": format_bytes,
    "1/s": lambda value: f"{written_rate(value)}/s",
    "B/s": lambda value: f"{format_bytes(value)}/s",
    "share": lambda value: f"{value * 100:.3g} %",
    "yes/no": lambda value: "yes" if value else "no",
    "": _number,
}


def written(value: float, unit: Unit) -> str:
    """Write a value with its unit: `41.3 µs`, `9.6 KiB`, `12,300/s`, `97 %`, `10,000`."""
    return _WRITERS[unit](value)


def spread(measurement: Measurement) -> str:
    """Write the lowest and the highest value of a measurement; return "" if they are the same."""
    if measurement.low == measurement.high:
        return ""
    low, high = (written(value, measurement.unit) for value in (measurement.low, measurement.high))
    return f"{low} to {high}"


def relative_spread(measurement: Measurement) -> str:
    """Write the lowest and the highest value relative to the median: `-4 % +11 %`.

    If the median is 0, the values are written as they are; if all are the same, the result is "".
    """
    median = measurement.median
    if not median or measurement.low == measurement.high:
        return spread(measurement)
    low, high = (value / median - 1 for value in (measurement.low, measurement.high))
    return f"{low * 100:+,.0f} % {high * 100:+,.0f} %"


def sentence(text: str) -> str:
    """Write a text as a sentence: with a capital at its beginning and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def names_by_size(measurements: Measurements) -> list[str]:
    """Return the names of measurements taken at several sizes, and none of others.

    They are shown as a table with a row for each variant and size, and a column for each name.
    """
    sizes = {one.at for one in measurements}
    several = len(sizes) > 1 and None not in sizes
    return list(dict.fromkeys(one.name for one in measurements)) if several else []


def rows(measurements: Measurements, names: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield a row for each size and variant: the variant, the size, and the medians by name."""
    found = {(one.of, one.at, one.name): one for one in measurements}
    for of, at in dict.fromkeys((one.of, one.at) for one in measurements):
        cells = [found.get((of, at, name)) for name in names]
        written_cells = ["" if one is None else written(one.median, one.unit) for one in cells]
        yield of, "" if at is None else f"{at:,}", written_cells
