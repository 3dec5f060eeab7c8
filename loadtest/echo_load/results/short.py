"""Results in one line of text, as Python prompts and failed assertions show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from echo_core.units import format_count
from echo_load.plan.thresholds import written_rate, written_time

# Names of percentiles, and their values in microseconds.
Times = Sequence[tuple[str, float]]

# pytest shows at most this many characters of an object, and leaves out its middle.
_MOST_CHARACTERS = 240


def shortened(text: str) -> str:
    """Return `<text>`, cut so that it has at most 240 characters."""
    most = _MOST_CHARACTERS - len("<>")
    return f"<{text}>" if len(text) <= most else f"<{text[: most - 3]}...>"


def short_latency(count: int, times: Times) -> str:
    """Return the percentiles of a distribution of a number of latencies."""
    if not count:
        return "<Latency: nothing was measured>"
    return f"<Latency of {count:,}: {_written(times)}>"


def short_figures(messages: int, per_second: float, times: Times, errors: Mapping[str, int]) -> str:
    """Return the figures of a test, or of a part of it.

    Args:
        messages: number of completed round trips.
        per_second: their rate.
        times: percentiles of the response time in microseconds, by name; empty without any.
        errors: number of failures by kind.
    """
    said = [format_count(messages, "message"), f"{written_rate(per_second)} msg/s"]
    if times:
        said.append(_written(times))
    failures = sum(errors.values())
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(errors.items()))
    said.append(f"{format_count(failures, 'failure')} ({kinds})" if failures else "no failures")
    return ", ".join(said)


def _written(times: Times) -> str:
    return ", ".join(f"{name} {written_time(microseconds / 1e6)}" for name, microseconds in times)
