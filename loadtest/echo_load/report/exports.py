"""A result in the forms of other tools: CSV by the second, and HdrHistogram's percentiles."""

from __future__ import annotations

import csv
import io

from hdrh.histogram import HdrHistogram

from echo_load.results.result import Result

_NS_PER_MS = 1e6
# What a percentile and what lies twice as near to 100 have between them.
_TICKS_PER_HALF_DISTANCE = 5


def series_csv(result: Result) -> bytes:
    """The figures of each second as CSV (RFC 4180, but with line feeds), a row a second.

    Times are in microseconds, and so are the names of their columns; errors have a column in all,
    and one for each kind that there were.
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
    """The percentiles of the response time as HdrHistogram prints them, in milliseconds.

    That is what HdrHistogram's plotters and those who use wrk2 read.
    """
    response = result.latency_us.response
    histogram = HdrHistogram.decode(response.histogram)
    # The library prints this one in nanoseconds whatever the unit of the others is.
    deviation = histogram.get_stddev() / _NS_PER_MS if response.count else 0.0
    histogram.get_stddev = lambda: deviation
    text = io.BytesIO()
    histogram.output_percentile_distribution(text, _NS_PER_MS, _TICKS_PER_HALF_DISTANCE)
    return text.getvalue()
