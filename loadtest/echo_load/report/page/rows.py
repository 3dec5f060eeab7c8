"""Rows of the tables of the HTML report: a name, and a column for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple

from echo_client.socket_options import format_dscp
from echo_core.units import format_bandwidth, format_bytes, format_count, format_duration
from echo_load.measure.names import DISTRIBUTIONS
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import written_rate, written_time
from echo_load.report.checks import checks
from echo_load.results.idle import IdleResult
from echo_load.results.result import Latencies, Latency, Result, Totals
from echo_load.results.watch import WatchResult

NOTHING = "–"  # noqa: RUF001  # an en dash

Row = tuple[str, list[str]]

# Fields of the plan that are shown elsewhere or in another form.
_SHOWN_ELSEWHERE = frozenset(
    {"targets", "thresholds", "abort_on", "stages", "tls", "engine"}
    | {"send_proxy", "send_proxy_source", "dscp", "nodelay", "keepalive", "buffer_size"}
)
_TIMES = frozenset({"duration", "warmup", "timeout", "connect_timeout"})
_UNITS = {"connect_rate": "connections/s", "bytes_per_message": "bytes"}


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: its text.
        good: True if the text reports a success, False for a failure; None for neither.
    """

    text: str
    good: bool | None = None


def beside(columns: Sequence[Mapping[str, str]]) -> list[Row]:
    """Return a table with a row per name and a column per run."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, NOTHING) for column in columns]) for name in names]


def time(microseconds: float) -> str:
    """Return a time as text, or a dash if none was measured."""
    return written_time(microseconds / 1e6) if microseconds else NOTHING


def moment(started_at: str) -> str:
    """Return the beginning of a test as text: `24 Nov 2026, 14:14:05 UTC`."""
    try:
        return f"{datetime.fromisoformat(started_at):%-d %b %Y, %H:%M:%S %Z}"
    except ValueError:
        return started_at


def description(result: Result) -> str:
    """Return the test in one line of text."""
    if result.idle is not None:
        return result.idle.description
    if result.watch is None:
        return result.plan.description
    interval = format_duration(result.watch.interval_seconds)
    kept = format_count(result.plan.connections, "connection")
    watched = format_duration(round(result.watch.seconds, 1))
    return f"{kept} and a new one every {interval}, {watched}"


def checked(result: Result) -> str:
    """Return the numbers of connections, replies and errors in one sentence."""
    checked = checks(result)
    kept = sum(one.passed for one in result.thresholds)
    if kept and kept == len(result.thresholds) and not result.totals.errors:
        checked += f"; {format_count(kept, 'threshold')} kept"
    return f"{checked}."


def latencies(measured: Latencies) -> list[tuple[str, Latency]]:
    """Return the distributions that are not empty, with their labels."""
    found = {label: getattr(measured, name) for name, label in DISTRIBUTIONS.items()}
    if found["response"] == found["service"]:
        del found["service"]
    return [(label, latency) for label, latency in found.items() if latency.count]


def thresholds(results: Sequence[Result]) -> list[tuple[str, list[Cell]]]:
    """Return a row per threshold, with its outcome in each run."""
    columns = [{one.name: one for one in result.thresholds} for result in results]
    rows = []
    for name in dict.fromkeys(name for column in columns for name in column):
        cells = []
        for column in columns:
            if name not in column:
                cells.append(Cell(NOTHING))
                continue
            one = column[name]
            cells.append(Cell(f"{'kept' if one.passed else 'crossed'}: {one.measured}", one.passed))
        rows.append((name, cells))
    return rows


def figures(result: Result) -> dict[str, str]:
    """Return the key figures."""
    totals, response = result.totals, result.latency_us.response
    datagrams = {}
    if totals.loss_burst is not None:
        datagrams = {
            "jitter": time(totals.jitter_us or 0.0),
            "longest burst of losses": f"{totals.loss_burst:,}",
        }
    return {
        "msg/s": written_rate(totals.messages_per_second),
        "bandwidth": bandwidth(totals),
        "p50": time(response.p50),
        "p90": time(response.p90),
        "p99": time(response.p99),
        "p99.9": time(response.p99_9),
        "max": time(response.max),
        "errors": f"{sum(totals.errors.values()):,}",
        "connections": f"{totals.connections_opened:,}",
        "messages": f"{totals.messages:,}",
        "seconds": f"{totals.seconds:.1f}",
        "back": f"{format_bytes(totals.bytes_received)}",
        **datagrams,
    }


def bandwidth(totals: Totals) -> str:
    """Return the bandwidth of what came back, in bytes and in bits per second."""
    return format_bandwidth(totals.bytes_received / totals.seconds if totals.seconds else 0.0)


def errors(result: Result) -> dict[str, str]:
    """Return the number of failures by kind."""
    return {kind: f"{count:,}" for kind, count in sorted(result.totals.errors.items())}


def plan(result: Result) -> dict[str, str]:
    """Return the fields of a plan that are set."""
    given = result.plan
    if result.idle is not None:
        return _idle_plan(result, result.idle)
    if result.watch is not None:
        return _watch_plan(result, result.watch)
    rows = {
        "command": f"echo-load {result.command}",
        "targets": ", ".join(result.targets),
        "engine": _engine(result),
        "stages": _stages(given),
        "pacing": f"open loop, {given.arrivals} arrivals" if given.open_loop else "closed loop",
        "thresholds": ", ".join((*given.thresholds, *given.abort_on)),
    }
    for field in fields(given):
        name, value = field.name, getattr(given, field.name)
        if name not in _SHOWN_ELSEWHERE and value not in (None, False, ()):
            rows[name.replace("_", " ")] = _written(name, value)
    if given.rate is not None:
        rows["rate"] = given.rate_name
    if not given.open_loop:
        del rows["arrivals"]
    return {name: value for name, value in {**rows, **opening(result)}.items() if value}


def opening(result: Result) -> dict[str, str]:
    """Return what connections were opened with, as far as it is set."""
    given = result.plan
    buffers = result.buffers
    rows = {
        "TLS": result.totals.tls,
        "PROXY header": given.send_proxy or "",
        "PROXY source": given.send_proxy_source or "",
        "DSCP": format_dscp(given.dscp) if given.dscp is not None else "",
        "TCP_NODELAY": "" if given.nodelay else "no",
        "keep-alives": format_duration(given.keepalive) if given.keepalive is not None else "",
        "socket buffers": (
            "" if buffers is None else buffers.shortfall or format_bytes(buffers.requested)
        ),
    }
    return {name: value for name, value in rows.items() if value}


def machine(result: Result) -> dict[str, str]:
    """Return the machine of a run, and when the run began."""
    here = result.machine
    return {
        "started": moment(result.started_at),
        "platform": here.platform,
        "processor": f"{here.processor}, {here.cores} core{'s' if here.cores > 1 else ''}",
        "memory": format_bytes(here.memory_bytes),
        "Python": here.python,
        "echoswarm": here.echoswarm,
    }


def generator(result: Result) -> dict[str, str]:
    """Return the figures of the generators."""
    own = result.generator
    rows = {
        "driven by": f"{_engine(result)} in {format_count(own.processes, 'process')}",
        "cores busy": f"{own.cpu_cores:.2f}",
        "processor time": f"{own.cpu_seconds:.2f} s",
        "waited for a processor": f"{own.waited_seconds:.2f} s",
    }
    for name, late in (("messages late by", own.lateness_us), ("event loop lag", own.hub_lag_us)):
        if late.count:
            rows[name] = f"p50 {time(late.p50)}, p99 {time(late.p99)}, max {time(late.max)}"
    rows["generator-bound"] = "; ".join(own.findings) or "yes" if own.bound else "no"
    return rows


def reconciled(result: Result) -> dict[str, str]:
    """Return the four counts of the reconciliation, and their differences."""
    found = result.reconciliation
    if found is None:
        return {}
    return {
        "balance": "all equal" if found.balanced else "not equal",
        f"{found.unit} sent": f"{found.sent:,}",
        f"{found.unit} received by the server": f"{found.received_by_server:,}",
        f"{found.unit} sent by the server": f"{found.sent_by_server:,}",
        f"{found.unit} received back": f"{found.received:,}",
        "read from": found.admin,
        **({"differences": "; ".join(found.differences)} if found.differences else {}),
    }


def server(result: Result) -> dict[str, str]:
    """Return the increase of the server's counters since the test began."""
    found = result.reconciliation
    if found is None:
        return {}
    return {
        name.replace("{", ": ").replace("}", "").replace("_", " "): f"{count:,}"
        for name, count in found.server.items()
    }


def _engine(result: Result) -> str:
    """Return the name of the engine, or what `idle` and `watch` use instead of an engine."""
    if result.idle is not None:
        return "a poll loop"
    return result.plan.driven_by if result.watch is None else "threads"


def _idle_plan(result: Result, found: IdleResult) -> dict[str, str]:
    """Return the parameters of a search for an idle timeout that are set."""
    times = {
        "up to": found.up_to_seconds,
        "precision": found.precision_seconds,
        "at least": found.at_least_seconds,
        "timeout": result.plan.reply_timeout,
        "connect timeout": result.plan.connect_timeout,
    }
    written = {name: format_duration(one) for name, one in times.items() if one is not None}
    rows = {"command": "echo-load idle", "target": ", ".join(result.targets), **written}
    return rows | opening(result)


def _watch_plan(result: Result, found: WatchResult) -> dict[str, str]:
    """Return the fields of a plan for watching targets that are set."""
    times = {
        "interval of probes": found.interval_seconds,
        "outage budget": found.budget_seconds,
        "timeout": result.plan.reply_timeout,
    }
    written = {name: format_duration(one) for name, one in times.items() if one is not None}
    return {
        "command": "echo-load watch",
        "targets": ", ".join(result.targets),
        "connections": f"{result.plan.connections:,}",
        **written,
        "payload size": _written("payload_size", result.plan.payload_size),
        **opening(result),
    }


def _stages(given: Plan) -> str:
    return ", ".join(
        given.stage_name(stage)
        + (f" for {format_duration(stage.duration)}" if stage.duration is not None else "")
        for stage in given.run_stages
    )


def _written(name: str, value: Any) -> str:
    if name in _TIMES:
        return format_duration(value)
    if name == "payload_size":
        sizes = dict.fromkeys(map(format_bytes, value))
        return " to ".join(sizes)
    if value is True:
        return "yes"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int | float):
        return f"{value:,.10g} {_UNITS.get(name, '')}".rstrip()
    return str(value)
