"""The response times of a swarm in microseconds, as tables."""

from __future__ import annotations

import csv
from typing import Any, TextIO

from locust.stats import RequestStats

from echo_load.measure.histogram import LatencyHistogram
from echo_load.swarm.histograms import Histograms

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
COLUMNS = ("method", "name", "count", "mean_us", *(f"p{one:g}_us" for one in PERCENTILES), "max_us")
# Method and name of the row for all requests in locust's tables.
AGGREGATED = ("", "Aggregated")

Row = tuple[Any, ...]


def rows(histograms: Histograms) -> list[Row]:
    """Return a row of `COLUMNS` per method and name, and one for all requests together.

    Without requests there are no rows.
    """
    items = list(histograms.items())
    together = LatencyHistogram()
    for _, times in items:
        together.merge(times)
    if items:
        items.append((AGGREGATED, together))
    return [
        (
            *key,
            times.count,
            round(times.mean_us, 3),
            *times.percentiles_us(PERCENTILES),
            times.max_us,
        )
        for key, times in items
    ]


def rounded_rows(histograms: Histograms) -> list[tuple[str, ...]]:
    """Return the rows as text, in whole microseconds."""
    return [
        (method, name, *(f"{figure:,.0f}" for figure in figures))
        for method, name, *figures in rows(histograms)
    ]


def add_microseconds(stats: RequestStats, histograms: Histograms) -> None:
    """Add a field `microseconds` to the entries of locust's JSON output."""
    serialize = stats.serialize_stats

    def with_microseconds() -> list[Any]:
        figures = {
            (method, name): dict(zip(COLUMNS[2:], values, strict=True))
            for method, name, *values in rows(histograms)
        }
        return [
            {**entry, "microseconds": figures.get((entry["method"], entry["name"]))}
            for entry in serialize()
        ]

    stats.serialize_stats = with_microseconds  # type: ignore[method-assign]


def text_table(histograms: Histograms) -> str:
    """Return the rows as a table of text."""
    lines = [
        ("method", "name", "count", "mean", *(f"p{one:g}" for one in PERCENTILES), "max"),
        *rounded_rows(histograms),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_csv(histograms: Histograms, file: TextIO) -> None:
    """Write the rows as CSV."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows(histograms))
