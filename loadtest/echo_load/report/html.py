"""The HTML report: one or several results as a single file that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from echo_core.units import format_bytes
from echo_load.plan.bounds import DEFAULT_MARGIN
from echo_load.report import comparison, evidence
from echo_load.report.page import document, rows
from echo_load.report.page.attachments import attachments
from echo_load.report.page.charts import Run, charts
from echo_load.report.page.comparisons import class_of, compared
from echo_load.report.page.guides import numbered_parts
from echo_load.report.page.outages import MOST_ROWS, left_out, longest
from echo_load.report.tables import consequence
from echo_load.report.watching import clock
from echo_load.results.result import Result
from echo_load.results.watch import written_availability

_TEMPLATE = files(__package__) / "page" / "report.html.j2"
_VERDICTS = {
    "passed": "Passed",
    "crossed": "Threshold crossed",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
_FILTERS: Mapping[str, Callable[..., Any]] = {
    "time": rows.time,
    "moment": rows.moment,
    "count": lambda number: f"{number:,.0f}",
    "bytes": format_bytes,
    "verdict": _VERDICTS.__getitem__,
    "checked": rows.checked,
    "latencies": rows.latencies,
    "origin": evidence.origin,
    "span": evidence.span,
    "dump_lines": partial(evidence.dump_lines, bytes_in_line=8),
    "availability": written_availability,
    "description": rows.description,
    "consequence": consequence,
    "bandwidth": rows.bandwidth,
    "counted": comparison.counted,
    "change_class": class_of,
    "longest": partial(longest, most=MOST_ROWS),
    "outages_left_out": left_out,
    "clock": clock,
    "written_change": comparison.written_change,
    "interval_name": comparison.interval_name,
}


def render(results: Sequence[Result], names: Sequence[str]) -> bytes:
    """Render the HTML report.

    Args:
        results: results to show; several are drawn in the same charts, and each is compared with
            the first.
        names: names of the results, shown if there are several.
    """
    runs = [Run.of(result, name) for result, name in zip(results, names, strict=True)]
    drawn = charts(runs)
    attached = attachments(runs)
    return document.render(
        _TEMPLATE.read_text(encoding="utf-8"),
        {one.name: {"data": one.data, "layout": one.layout} for one in drawn if one.data},
        _FILTERS,
        {one.name: one.content for one in attached if one is not None},
        attached=attached,
        compared=compared(runs),
        margin=f"{DEFAULT_MARGIN:.0%}",
        runs=runs,
        charts=drawn,
        parts=numbered_parts(results),
        tables=_tables(results),
        thresholds=rows.thresholds(results),
    )


def _tables(results: Sequence[Result]) -> dict[str, list[rows.Row]]:
    """Return the tables, each with a row per name and a column per run."""
    makers = {
        "figures": rows.figures,
        "errors": rows.errors,
        "reconciled": rows.reconciled,
        "server": rows.server,
        "generator": rows.generator,
        "plan": rows.plan,
        "machine": rows.machine,
    }
    return {name: rows.beside([make(one) for one in results]) for name, make in makers.items()}
