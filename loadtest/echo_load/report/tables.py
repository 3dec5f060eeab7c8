"""Tables of a result, and a short summary."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import HORIZONTALS
from rich.console import Group
from rich.table import Table
from rich.text import Text

from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_core.units import format_bandwidth, format_count
from echo_load.measure.names import DISTRIBUTIONS
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import ThresholdResult, written_rate, written_time
from echo_load.report.checks import checks
from echo_load.results.reconciliation import Reconciliation
from echo_load.results.result import (
    GeneratorResult,
    Latency,
    Result,
    StageResult,
    TargetResult,
    Totals,
)
from echo_load.results.verdict import shortcomings

# With more stages or targets than this, the summary has no line for each of them.
_MOST_STAGES = 4
# Waiting for a processor is shown if it amounts to this number of cores.
_LEAST_WAITING = 0.05
_VERDICTS = {
    "passed": ("PASSED", "bold green"),
    "crossed": ("THRESHOLD CROSSED", "bold red"),
    "failed": ("FAILED", "bold red"),
    "interrupted": ("INTERRUPTED", "bold yellow"),
}


def stage_table(plan: Plan, stage: StageResult) -> Table:
    """Return the table of a stage."""
    passed = not shortcomings(plan, stage)
    table = _table(
        Text.assemble(
            (stage.name, "bold"),
            f"  {stage.seconds:.1f} s  ",
            ("no failures", "green") if passed else ("FAILED", "bold red"),
        )
    )
    errors = dict(stage.errors)
    table.add_row(
        "connections",
        _counts(
            ("opened", stage.connections_opened, ""),
            ("failed", stage.connections_failed, "red"),
            ("lost", stage.connections_lost, "red"),
        ),
    )
    rate = written_rate(stage.messages_per_second)
    table.add_row("messages", f"{stage.messages:,}  ({rate} msg/s)")
    wrong = [(str(kind), errors.pop(kind), "red") for kind in MISMATCHES if kind in errors]
    table.add_row(
        "errors",
        _counts(
            *(wrong or [("wrong replies", 0, "")]),
            ("timeouts", errors.pop(FailureKind.TIMEOUT, 0), "red"),
            *((kind, count, "red") for kind, count in sorted(errors.items())),
        ),
    )
    latencies = stage.latency_us
    if latencies.response == latencies.service:
        table.add_row("latency µs", _percentiles(latencies.response))
    else:
        table.add_row("response µs", _percentiles(latencies.response))
        table.add_row("service µs", _percentiles(latencies.service))
    for name in ("connect", "handshake", "first_byte"):
        latency = getattr(latencies, name)
        if latency.count:
            table.add_row(f"{DISTRIBUTIONS[name]} µs", _percentiles(latency))
    through = _both_ways(stage)
    if stage.retransmits is not None:
        through += f", {format_count(stage.retransmits, 'retransmit')}"
    if stage.handshakes_resumed is not None:
        through += f", {format_count(stage.handshakes_resumed, 'TLS session')} resumed"
    if latencies.kernel.count:
        through += f", kernel's RTT {latencies.kernel.mean:,.0f} µs"
    table.add_row("throughput", through)
    if stage.tls:
        table.add_row("TLS", stage.tls)
    if stage.loss_burst is not None:
        table.add_row("datagrams", _datagrams(stage))
    return table


def _both_ways(stage: StageResult) -> str:
    """Return the bandwidth in each direction, once if both are the same as shown."""
    sent, received = (
        _bandwidth(count, stage.seconds) for count in (stage.bytes_sent, stage.bytes_received)
    )
    return f"{sent} each way" if sent == received else f"{sent} out, {received} back"


def _datagrams(stage: StageResult) -> str:
    jitter = "not measured" if stage.jitter_us is None else f"{stage.jitter_us:,.0f} µs"
    return f"jitter {jitter}, longest burst of losses {stage.loss_burst:,}"


def repeat_lines(repeat: int, stages: Sequence[StageResult]) -> list[Text]:
    """Return the figures of a repeat, one line per stage."""
    lines = []
    for stage in stages:
        name = f"repeat {repeat}" + (f", {stage.name}" if len(stages) > 1 else "")
        lines.append(Text.assemble((f"{name}  ", "bold"), _speed(stage)))
        if errors := sum(stage.errors.values()):
            lines[-1].append(f", {errors:,} errors", "red")
    return lines


def target_table(result: Result) -> Table:
    """Return the table of several targets, with a row for each."""
    table = Table(box=HORIZONTALS, expand=True, title=Text("targets", "bold"), title_justify="left")
    table.title_style = ""
    table.add_column("", ratio=1, overflow="fold")
    for name in ("opened", "messages", "msg/s", "p50", "p99", "errors"):
        table.add_column(Text(name, "dim"), justify="right", no_wrap=True)
    for one in result.by_target:
        response, errors = one.latency_us.response, sum(one.errors.values())
        times = (response.p50, response.p99)
        table.add_row(
            one.target,
            f"{one.connections_opened:,}",
            f"{one.messages:,}",
            written_rate(one.messages_per_second),
            *(written_time(time / 1e6) if response.count else "-" for time in times),
            Text(f"{errors:,}", "red" if errors else "green"),
        )
    return table


def whole_table(result: Result) -> Table:
    """Return the table of the whole test."""
    table = _table()
    spread = result.spread
    table.add_row(
        "spread",
        f"{spread.least:,} to {spread.most:,} messages per connection, median {spread.median:,.0f}"
        + (f", {spread.starved:,} without a message" if spread.starved else ""),
    )
    if result.reconciliation is not None:
        table.add_row("reconciled", reconciled(result.reconciliation))
    if result.thresholds:
        table.add_row("thresholds", Text("\n").join(map(_threshold_line, result.thresholds)))
    table.add_row("generator", _generator(result.generator))
    if result.buffers is not None and result.buffers.shortfall:
        table.add_row("buffers", Text(result.buffers.shortfall, "yellow"))
    return table


def summary(result: Result) -> Group:
    """Return targets, verdict and reasons in a few lines, short enough for a chat message."""
    word, style = _VERDICTS[result.verdict]
    lines = [
        Text.assemble(
            (word, style),
            f"  echo-load {result.command} {', '.join(result.targets)}: {result.plan.description}",
        )
    ]
    stages = result.stages
    if 1 < len(stages) <= _MOST_STAGES:
        lines += [Text.assemble((f"{stage.name}  ", "dim"), _speed(stage)) for stage in stages]
    else:
        lines.append(Text(_speed(_whole(result))))
    if len(result.by_target) <= _MOST_STAGES:
        lines += [
            Text.assemble((f"{one.target}  ", "dim"), _speed(one)) for one in result.by_target
        ]
    if result.capacity is not None:
        lines.insert(1, Text(result.capacity.answer, "bold"))
        if result.capacity.note is not None:
            lines.insert(2, Text(result.capacity.note, "yellow"))
    lines.append(Text(checks(result)))
    if result.passed:
        lines += [_threshold_line(one) for one in result.thresholds]
    lines += [Text(f"- {reason}", "red") for reason in result.reasons]
    if result.generator.bound:
        lines.append(Text(f"generator-bound: {consequence(result)}", "yellow"))
    return Group(*(line if not number else _indented(line) for number, line in enumerate(lines)))


def consequence(result: Result) -> str:
    """Return the meaning of "generator-bound" for a result."""
    if result.capacity is not None and result.capacity.level is not None:
        # Which side was the limit is in the answer; this is the test that confirmed it.
        return "these times include delays of the generator"
    return "the limit was the generator"


def _whole(result: Result) -> StageResult:
    """Return the totals of a result as if it had one stage."""
    named = {name: getattr(result.totals, name) for name in Totals.__struct_fields__}
    return StageResult(name="", latency_us=result.latency_us, generator=result.generator, **named)


def _indented(line: Text) -> Text:
    return Text("  ") + line


def _speed(stage: StageResult | TargetResult) -> str:
    response = stage.latency_us.response
    speed = (
        f"{written_rate(stage.messages_per_second)} msg/s, "
        f"{_bandwidth(stage.bytes_received, stage.seconds)}"
    )
    if not response.count:
        return speed
    times = [
        f"{name} {written_time(microseconds / 1e6)}"
        for name, microseconds in (
            ("p50", response.p50),
            ("p99", response.p99),
            ("max", response.max),
        )
    ]
    return f"{speed}, {', '.join(times)}"


def _threshold_line(one: ThresholdResult) -> Text:
    word, style = ("kept", "green") if one.passed else ("crossed", "bold red")
    return Text.assemble(f"{one.name}  ", (word, style), f"  {one.measured}")


def _table(title: Text | None = None) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="",
        show_header=False,
        box=HORIZONTALS,
        expand=True,
    )
    table.add_column(style="dim", width=13)
    table.add_column(ratio=1)
    return table


def reconciled(found: Reconciliation) -> Text:
    """Return the four counts of a reconciliation in one line."""
    if found.balanced:
        return Text.assemble(
            f"{found.sent:,} {found.unit} sent = received by the server = sent by it = "
            "received back"
        )
    return Text(
        f"{found.sent:,} {found.unit} sent, {found.received_by_server:,} received by the server, "
        f"{found.sent_by_server:,} sent by it, {found.received:,} received back",
        style="bold red",
    )


def _generator(generator: GeneratorResult) -> Text:
    text = Text(
        f"{format_count(generator.processes, 'process')}, {generator.cpu_cores:.2f} cores busy"
    )
    if generator.waiting >= _LEAST_WAITING:
        text.append(f", {generator.waiting:.2f} waiting for one")
    if generator.lateness_us.count:
        text.append(f", messages late by p50 {generator.lateness_us.p50:,.0f} ")
        text.append(f"p99 {generator.lateness_us.p99:,.0f} µs")
    if generator.bound:
        text.append("\ngenerator-bound", style="bold yellow")
        text.append(": " + "; ".join(generator.findings))
    return text


def _counts(*counts: tuple[str, int, str]) -> Text:
    parts = [
        Text.assemble((f"{count:,}", f"bold {style}" if count and style else ""), f" {name}")
        for name, count, style in counts
    ]
    return Text(", ").join(parts)


def _percentiles(latency: Latency) -> Text:
    if not latency.count:
        return Text("none")
    figures = [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p99.9", latency.p99_9),
        ("max", latency.max),
    ]
    return Text("  ").join(
        Text.assemble((f"{name} ", "dim"), f"{value:,.0f}") for name, value in figures
    )


def _bandwidth(count: int, seconds: float) -> str:
    return format_bandwidth(count / seconds if seconds else 0.0)
