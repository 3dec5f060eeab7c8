"""Results in the formats of other tools: CSV, and the percentiles of HdrHistogram."""

from __future__ import annotations

import csv
import io

from hdrh.histogram import HdrHistogram

from echo_load.results.result import Result

_NS_PER_MS = 1e6
# Percentiles printed for each halving of the distance to 100.
_TICKS_PER_HALF_DISTANCE = 5


def series_csv(result: Result) -> bytes:
    """Return the figures of each second as CSV (RFC 4180, but with line feeds), one row each.

    Times are in microseconds. Errors have a column for their total, and one for each kind that
    occurred.
    """
    kinds = sorted({kind for one in result.series for kind in one.errors})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    counts = ("second", "repeat", "stage", "connections", "messages", "bytes_sent")
    names = (*counts, "bytes_received")
    times = ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us")
    writer.writerow((*names, "errors", *(f"error_{kind}" for kind in kinds), *times))
    for one in result.series:
        writer.writerow(
            (
                *(getattr(one, name) for name in names),
                sum(one.errors.values()),
                *(one.errors.get(kind, 0) for kind in kinds),
                *(getattr(one, name) for name in times),
            )
        )
    return text.getvalue().encode()


def hgrm(result: Result) -> bytes:
    """Return the percentiles of the response time in milliseconds, as HdrHistogram prints them.

    The plotter of HdrHistogram reads this format, which wrk2 prints, too.
    """
    response = result.latency_us.response
    histogram = HdrHistogram.decode(response.histogram)
    # The library prints the deviation in nanoseconds, whatever the unit of the other figures.
    deviation = histogram.get_stddev() / _NS_PER_MS if response.count else 0.0
    histogram.get_stddev = lambda: deviation
    text = io.BytesIO()
    histogram.output_percentile_distribution(text, _NS_PER_MS, _TICKS_PER_HALF_DISTANCE)
    return text.getvalue()
