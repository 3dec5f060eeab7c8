"""A result, or several, as one page that opens in a browser without a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import msgspec
from plotly.offline import get_plotlyjs

from echo_core.units import format_bytes, format_duration
from echo_load.report.charts import Run, charts
from echo_load.result import Result, Totals
from echo_load.thresholds import written_time

_PAGE = files(__package__) / "page"
_VERDICTS = {
    "passed": "Passed",
    "crossed": "Threshold crossed",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
# Of the plan, what is shown elsewhere, or as text of its own.
_SHOWN_ELSEWHERE = frozenset({"targets", "thresholds", "abort_on", "stages", "tls"})
_TIMES = frozenset({"duration", "warmup", "timeout", "connect_timeout"})


def render(results: Sequence[Result], names: Sequence[str]) -> bytes:
    """Make the page.

    Args:
        results: what it shows; several are laid over one another in its charts.
        names: what they are called, where there are several.
    """
    runs = [Run.of(result, name) for result, name in zip(results, names, strict=True)]
    drawn = charts(runs)
    template = _environment().get_template("report.html.j2")
    page: str = template.render(
        runs=runs,
        charts=drawn,
        figures={one.name: {"data": one.data, "layout": one.layout} for one in drawn if one.data},
        plans=_rows([_plan(run.result) for run in runs]),
        machines=_rows([_machine(run.result) for run in runs]),
        generators=_rows([_generator(run.result) for run in runs]),
        server=_rows([_server(run.result) for run in runs]),
        errors=_rows([_counts(run.result.totals) for run in runs]),
        plotly=get_plotlyjs(),
        style=(_PAGE / "report.css").read_text(encoding="utf-8"),
        script=(_PAGE / "report.js").read_text(encoding="utf-8"),
    )
    return page.lstrip().encode()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_PAGE / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "time": lambda microseconds: written_time(microseconds / 1e6),
        "count": lambda number: f"{number:,.0f}",
        "rate": lambda number: f"{number:,.0f}",
        "bytes": format_bytes,
        "duration": format_duration,
        "verdict": _VERDICTS.__getitem__,
    }
    return environment


def _rows(columns: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """A table with a row a name and a column a run."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "-") for column in columns]) for name in names]


def _plan(result: Result) -> dict[str, str]:
    """What a plan says, as far as it says anything."""
    plan = result.plan
    rows = {
        "command": f"echo-load {result.command}",
        "targets": ", ".join(result.targets),
        "engine": plan.driven_by,
        "stages": ", ".join(
            plan.stage_name(stage)
            + (f" for {format_duration(stage.duration)}" if stage.duration is not None else "")
            for stage in plan.run_stages
        ),
        "pacing": f"open loop, {plan.arrivals} arrivals" if plan.open_loop else "closed loop",
    }
    for name in plan.__struct_fields__:
        value = getattr(plan, name)
        if name in _SHOWN_ELSEWHERE or value in (None, False, ()):
            continue
        rows.setdefault(name.replace("_", " "), _written(name, value))
    return rows


def _written(name: str, value: Any) -> str:
    if name in _TIMES:
        return format_duration(value)
    if name == "payload_size":
        least, most = value
        return (
            format_bytes(least)
            if least == most
            else f"{format_bytes(least)} to {format_bytes(most)}"
        )
    if value is True:
        return "yes"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:,.10g}" if isinstance(value, (int, float)) else str(value)


def _machine(result: Result) -> dict[str, str]:
    machine = msgspec.to_builtins(result.machine)
    machine["memory"] = format_bytes(machine.pop("memory_bytes"))
    return {"started": result.started_at} | {name: str(value) for name, value in machine.items()}


def _generator(result: Result) -> dict[str, str]:
    generator = result.generator
    rows = {
        "processes": f"{generator.processes}",
        "cores busy": f"{generator.cpu_cores:.2f}",
        "waited for a processor": f"{generator.waited_seconds:.2f} s",
    }
    for name, late in (
        ("lateness", generator.lateness_us),
        ("event loop lag", generator.hub_lag_us),
    ):
        if late.count:
            p50, p99 = written_time(late.p50 / 1e6), written_time(late.p99 / 1e6)
            rows[name] = f"p50 {p50}, p99 {p99}"
    rows["bound"] = "; ".join(generator.findings) if generator.bound else "no"
    return rows


def _server(result: Result) -> dict[str, str]:
    """What the server counted, where it was read."""
    found = result.reconciliation
    if found is None:
        return {}
    balance = {
        "balanced": "yes" if found.balanced else "; ".join(found.differences),
        f"{found.unit} sent": f"{found.sent:,}",
        f"{found.unit} received by the server": f"{found.received_by_server:,}",
        f"{found.unit} sent by the server": f"{found.sent_by_server:,}",
        f"{found.unit} received back": f"{found.received:,}",
    }
    counted = {f"echo_server_{name}": f"{count:,}" for name, count in found.server.items()}
    return balance | counted


def _counts(totals: Totals) -> dict[str, str]:
    return {kind: f"{count:,}" for kind, count in sorted(totals.errors.items())}
