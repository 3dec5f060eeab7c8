"""A result, or several, as one page that opens in a browser without a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import jinja2
from plotly.offline import get_plotlyjs

from echo_core.units import format_bytes
from echo_load.report.page import rows
from echo_load.report.page.charts import Run, charts
from echo_load.report.page.guides import numbered_parts
from echo_load.results.result import Result

_PAGE = files(__package__) / "page"
_VERDICTS = {
    "passed": "Passed",
    "crossed": "Threshold crossed",
    "failed": "Failed",
    "interrupted": "Interrupted",
}


def render(results: Sequence[Result], names: Sequence[str]) -> bytes:
    """Make the page.

    Args:
        results: what it shows; several are laid over one another in its charts.
        names: what they are called, where there are several.
    """
    runs = [Run.of(result, name) for result, name in zip(results, names, strict=True)]
    drawn = charts(runs)
    plotly, script = get_plotlyjs(), _read("report.js")
    template = _environment().get_template("report.html.j2")
    page: str = template.render(
        runs=runs,
        charts=drawn,
        parts=numbered_parts(results),
        figures={one.name: {"data": one.data, "layout": one.layout} for one in drawn if one.data},
        tables=_tables(results),
        thresholds=rows.thresholds(results),
        policy=_policy(plotly, script),
        plotly=plotly,
        style=_read("report.css"),
        script=script,
    )
    return page.lstrip().encode(errors="backslashreplace")


def _tables(results: Sequence[Result]) -> dict[str, list[rows.Row]]:
    """The tables with a row a name and a column a run."""
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


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy under which nothing is loaded, and only these scripts run.

    What plotly.js draws has styles of its own.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "time": rows.time,
        "moment": rows.moment,
        "count": lambda number: f"{number:,.0f}",
        "bytes": format_bytes,
        "verdict": _VERDICTS.__getitem__,
        "checked": rows.checked,
        "latencies": rows.latencies,
    }
    return environment
