"""The outcomes of experiments as one page that opens in a browser without a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape

from echo_core.units import format_bytes
from echo_load.lab.charts import charts
from echo_load.lab.notation import names_by_size, rows, sentence, spread, written
from echo_load.lab.outcome import Outcome, Status, summary
from echo_load.report.page import document
from echo_load.report.page.rows import moment
from echo_load.results.result import Machine

_FILES = files(__package__)
# The classes that the style sheet has for verdicts.
_CLASSES: dict[Status, str] = {
    "holds": "passed",
    "holds within a limit": "limited",
    "does not hold": "failed",
    "cannot run here": "unknown",
    "broke": "failed",
    "interrupted": "interrupted",
}
_FILTERS: Mapping[str, Callable[..., Any]] = {
    "moment": moment,
    "bytes": format_bytes,
    "prose": lambda text: _with_code(sentence(text)),
    "class": _CLASSES.__getitem__,
    "written": lambda measurement: written(measurement.median, measurement.unit),
    "spread": spread,
}


def render(outcomes: Sequence[Outcome], started_at: str, *, quick: bool) -> bytes:
    """Render the page.

    Args:
        outcomes: outcomes to show.
        started_at: when the first began, in ISO 8601.
        quick: whether the experiments were.
    """
    drawn = {
        outcome.experiment.name: charts(outcome.experiment.name, outcome.measurements)
        for outcome in outcomes
    }
    return document.render(
        _read("page.html.j2"),
        {
            chart.name: {"data": chart.data, "layout": chart.layout}
            for some in drawn.values()
            for chart in some
        },
        _FILTERS,
        chapters=list(dict.fromkeys(outcome.chapter for outcome in outcomes)),
        outcomes=outcomes,
        charts=drawn,
        machine=Machine.here(),
        started_at=started_at,
        summary=summary(outcomes),
        quick=quick,
        names_by_size=names_by_size,
        rows=rows,
        own_style=_read("page.css"),
    )


def _with_code(text: str) -> Markup:
    """Return a text for the page, with the parts between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped


def _read(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")
