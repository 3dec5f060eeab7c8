"""Results in the formats of other tools: CSV, and the percentiles of HdrHistogram."""

from __future__ import annotations

import csv
import io

from hdrh.histogram import HdrHistogram

from echo_load.results.result import Result

_COUNTS = ("connections", "messages", "bytes_sent", "bytes_received")
_TIMES = ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us")
_GENERATOR = ("generator_cores", "late_p99_us", "lag_p99_us")
_NS_PER_MS = 1e6
# Percentiles printed for each halving of the distance to 100.
_TICKS_PER_HALF_DISTANCE = 5


def series_csv(result: Result) -> bytes:
    """Return the figures of each second as CSV (RFC 4180, but with line feeds), one row each.

    Times are in microseconds. Errors have a column for their total, and one for each kind that
    occurred. Tests over UDP have a column for the jitter, which is empty for a second without
    replies. The last columns are how busy and how late the generators were, and are empty where
    that was not measured. With several targets there is a column `target`, in which the rows of all
    targets together are empty; the rows of each target follow.
    """
    kinds = sorted({kind for one in result.series for kind in one.errors})
    several = bool(result.by_target)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("second", "repeat", "stage", *_COUNTS)
    jitter = ("jitter_us",) if result.totals.jitter_us is not None else ()
    last = (*_TIMES, *jitter, *_GENERATOR)
    first = ("target", *names) if several else names
    writer.writerow((*first, "errors", *(f"error_{kind}" for kind in kinds), *last))
    rows = [("", one) for one in result.series]
    rows += [(of.target, one) for of in result.by_target for one in of.series]
    for target, one in rows:
        cells = (*(getattr(one, name) for name in names), sum(one.errors.values()))
        writer.writerow(
            (
                *((target,) if several else ()),
                *cells,
                *(one.errors.get(kind, 0) for kind in kinds),
                *(getattr(one, name) for name in last),
            )
        )
    return text.getvalue().encode()


def hgrm(result: Result) -> bytes:
    """Return the percentiles of the response time in milliseconds, in HdrHistogram's text format.

    HdrHistogram's plotter reads this format, and wrk2 also prints it.
    """
    response = result.latency_us.response
    histogram = HdrHistogram.decode(response.histogram)
    # The library prints the deviation in nanoseconds, whatever the unit of the other figures.
    deviation = histogram.get_stddev() / _NS_PER_MS if response.count else 0.0
    histogram.get_stddev = lambda: deviation
    text = io.BytesIO()
    histogram.output_percentile_distribution(text, _NS_PER_MS, _TICKS_PER_HALF_DISTANCE)
    return text.getvalue()
