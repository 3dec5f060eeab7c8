"""Results and comparisons in GitHub-flavoured Markdown, for a pull request or a job's summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from echo_load.plan.thresholds import written_rate, written_time
from echo_load.report.capacity import capacity_table
from echo_load.report.checks import checks, opened
from echo_load.report.comparison import comparison_table, conclusion
from echo_load.report.evidence import evidence_parts
from echo_load.report.gfm import block, code, escaped, table
from echo_load.report.idle import idle_table
from echo_load.report.page.rows import NOTHING, bandwidth, description, moment
from echo_load.report.summaries import as_text, summary_of
from echo_load.report.tables import consequence, reconciled, target_table
from echo_load.report.watching import availability_table, headline, outage_table
from echo_load.results.comparison import Comparison
from echo_load.results.reconciliation import Reconciliation
from echo_load.results.result import Latencies, Result, Totals

_PASSED, _FAILED, _WARNING = "✅", "❌", "⚠️"
_VERDICTS = {
    "passed": (_PASSED, "passed"),
    "crossed": (_FAILED, "threshold crossed"),
    "failed": (_FAILED, "failed"),
    "interrupted": (_WARNING, "interrupted"),
}
_COMPARED = {"better": _PASSED, "worse": _FAILED, "no difference": _PASSED}


def markdown(results: Sequence[Result], names: Sequence[str]) -> bytes:
    """Return the figures, verdicts and first failures of results in Markdown.

    Args:
        results: the results.
        names: their names, shown if there are several.
    """
    several = len(results) > 1
    parts = []
    for result, name in zip(results, names, strict=True):
        title = name if several else f"echo-load {result.command}"
        parts += [_heading(title, result), *_body(result)]
    return _written(parts)


def markdown_error(title: str, message: str) -> bytes:
    """Return Markdown for a test that has no result, because of an error."""
    return _written([f"## {_FAILED} {escaped(title)}: error", escaped(message)])


def markdown_comparison(comparisons: Sequence[Comparison]) -> bytes:
    """Return comparisons of results in Markdown."""
    parts = []
    for one in comparisons:
        title, *notes = conclusion(one).plain.splitlines()
        icon = _COMPARED.get(one.verdict, _WARNING)
        parts += [f"## {icon} echo-load compare: {one.verdict}", escaped(title)]
        parts += [table(comparison_table(one, narrow=False)), _list(notes)]
    return _written(parts)


def _written(parts: Sequence[str]) -> bytes:
    return ("\n\n".join(filter(None, parts)) + "\n").encode()


def _heading(title: str, result: Result) -> str:
    icon, word = _VERDICTS[result.verdict]
    if result.watch is not None and result.verdict in {"passed", "crossed"}:
        word = headline(result, result.watch)[0].lower()
        icon = _WARNING if result.passed and result.watch.outages else icon
    return f"## {icon} {escaped(title)}: {word}"


def _body(result: Result) -> Iterator[str]:
    """Yield the parts below the heading."""
    targets = ", ".join(map(code, result.targets))
    yield f"{targets}: {escaped(description(result))}"
    if result.watch is not None or result.idle is not None:
        # The first line repeats targets and description.
        _, *lines = as_text(summary_of(result), wrap=False).splitlines()
        yield _list([line.strip().removeprefix("- ") for line in lines])
    else:
        yield _list([checks(result), *opened(result), *result.reasons])
    if result.generator.bound:
        findings = "; ".join(result.generator.findings)
        yield f"{_WARNING} **generator-bound**: {escaped(f'{consequence(result)}; {findings}')}"
    yield from _answer(result)
    if result.watch is None and result.idle is None:
        yield _section("Figures", _figures(result))
    if result.by_target:
        yield _section("Targets", target_table(result))
    if result.thresholds:
        yield _section("Thresholds", _thresholds(result))
    if result.reconciliation is not None:
        yield _reconciliation(result, result.reconciliation)
    if parts := evidence_parts(result):
        yield block(as_text(*parts))
    yield _machine(result)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)


def _section(title: str, content: Table) -> str:
    return f"### {title}\n\n{table(content)}"


def _answer(result: Result) -> Iterator[str]:
    """Yield the answer of a command that asks a question, and how it was found."""
    if result.capacity is not None:
        yield f"**{escaped(result.capacity.answer)}**"
        yield escaped(result.capacity.note or "")
        yield _section("Steps", capacity_table(result.capacity))
    if result.idle is not None:
        yield _section("Pauses", idle_table(result.idle))
    if result.watch is not None:
        if len(result.watch.targets) > 1:
            yield _section("Targets", availability_table(result.watch))
        if result.watch.outages:
            yield _section("Outages", outage_table(result.watch))


def _figures(result: Result) -> Table:
    """Return the key figures, with a row per stage and one for all stages together."""
    shown = _table("stage")
    columns: list[tuple[str, Callable[[Totals, Latencies], str]]] = [
        ("connections", lambda totals, _: f"{totals.connections_opened:,}"),
        ("messages", lambda totals, _: f"{totals.messages:,}"),
        ("msg/s", lambda totals, _: written_rate(totals.messages_per_second)),
        ("bandwidth", lambda totals, _: bandwidth(totals)),
        ("p50", lambda _, times: _time(times.response.p50)),
        ("p99", lambda _, times: _time(times.response.p99)),
        ("p99.9", lambda _, times: _time(times.response.p99_9)),
        ("max", lambda _, times: _time(times.response.max)),
        ("errors", lambda totals, _: f"{sum(totals.errors.values()):,}"),
    ]
    if result.totals.loss_burst is not None:
        columns += [
            ("jitter", lambda totals, _: _time(totals.jitter_us or 0.0)),
            ("longest burst of losses", lambda totals, _: f"{totals.loss_burst or 0:,}"),
        ]
    for name, _ in columns:
        shown.add_column(name, justify="right")
    rows: list[tuple[str, Totals, Latencies]] = [
        (one.name, one, one.latency_us) for one in result.stages
    ]
    if len(rows) > 1:
        rows.append(("all", result.totals, result.latency_us))
    for name, totals, times in rows:
        shown.add_row(Text(name), *(Text(write(totals, times)) for _, write in columns))
    return shown


def _thresholds(result: Result) -> Table:
    shown = _table("threshold")
    shown.add_column("measured", justify="right")
    shown.add_column("")
    for one in result.thresholds:
        outcome = f"{_PASSED} kept" if one.passed else f"{_FAILED} crossed"
        shown.add_row(Text(one.name, "code"), one.measured, outcome)
    return shown


def _reconciliation(result: Result, found: Reconciliation) -> str:
    icon = _PASSED
    if not found.balanced:
        # Errors that are tolerated, or an early end, make the counts differ, too.
        icon = _FAILED if set(found.differences) <= set(result.reasons) else _WARNING
    return f"Reconciliation: {icon} {escaped(reconciled(found).plain)}"


def _table(first: str) -> Table:
    shown = Table()
    shown.add_column(first)
    return shown


def _time(microseconds: float) -> str:
    return written_time(microseconds / 1e6) if microseconds else NOTHING


def _machine(result: Result) -> str:
    here = result.machine
    said = f"echoswarm {here.echoswarm} on {here.platform}, {here.cores} cores, "
    return f"<sub>{escaped(said + moment(result.started_at))}</sub>"
