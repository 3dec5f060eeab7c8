"""Results in one line of text, as Python prompts and failed assertions show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from echo_core.units import format_count
from echo_load.plan.thresholds import written_rate, written_time

if TYPE_CHECKING:
    from echo_load.results.result import Latency, Result, Spread, StageResult, TargetResult

# pytest shows at most this many characters of an object, and leaves out its middle.
_MOST_CHARACTERS = 240


def shortened(text: str) -> str:
    """Return `<text>`, cut so that it has at most 240 characters."""
    most = _MOST_CHARACTERS - len("<>")
    return f"<{text}>" if len(text) <= most else f"<{text[: most - 3]}...>"


def short_latency(latency: Latency) -> str:
    """Return the percentiles of a distribution."""
    if not latency.count:
        return "<Latency: nothing was measured>"
    times = (
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p99.9", latency.p99_9),
        ("max", latency.max),
    )
    return f"<Latency of {latency.count:,}: {_times(times)}>"


def short_spread(spread: Spread) -> str:
    """Return the range of the messages of a connection."""
    return (
        f"<Spread over {format_count(spread.connections, 'connection')}: {spread.least:,} to "
        f"{spread.most:,} messages, median {spread.median:,.0f}, fairness {spread.fairness:.3f}>"
    )


def short_part(name: str, part: StageResult | TargetResult) -> str:
    """Return the figures of a stage or a target.

    Args:
        name: its name.
        part: its figures.
    """
    return shortened(f"{type(part).__name__} {name}: {_figures(part)}")


def short_result(result: Result) -> str:
    """Return the verdict, the answer or the figures, the failures and the reasons of a result."""
    answer = None
    if result.capacity is not None:
        answer = result.capacity.answer
    elif result.idle is not None:
        answer = result.idle.answer
    elif result.watch is not None:
        answer = result.watch.answer
    parts = [f"Result of {result.command}: {result.verdict}", answer or _figures(result)]
    if result.generator.bound:
        parts.append("generator-bound")
    return shortened("; ".join(parts + result.reasons))


def _figures(part: Result | StageResult | TargetResult) -> str:
    from echo_load.results.result import Result

    totals = part.totals if isinstance(part, Result) else part
    response = part.latency_us.response
    said = [
        format_count(totals.messages, "message"),
        f"{written_rate(totals.messages_per_second)} msg/s",
    ]
    if response.count:
        said.append(_times((("p50", response.p50), ("p99", response.p99))))
    failures = sum(totals.errors.values())
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(totals.errors.items()))
    said.append(f"{format_count(failures, 'failure')} ({kinds})" if failures else "no failures")
    return ", ".join(said)


def _times(times: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{name} {written_time(microseconds / 1e6)}" for name, microseconds in times)
