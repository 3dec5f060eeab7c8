"""The verdict on a search for an idle timeout."""

from __future__ import annotations

from echo_core.units import format_duration
from echo_load.plan.thresholds import ThresholdResult, written_time
from echo_load.results.idle import HOW_IN_WORDS, IdleResult
from echo_load.results.result import Verdict


def thresholds(found: IdleResult) -> list[ThresholdResult]:
    """Return the threshold of a search, if it has one, with its outcome."""
    if found.at_least_seconds is None:
        return []
    return [
        ThresholdResult(
            threshold=f"kept>={format_duration(found.at_least_seconds)}",
            aborts=False,
            kind="time",
            value=found.kept_seconds,
            passed=not found.is_short,
        )
    ]


def reach_verdict(
    found: IdleResult, failure: str | None, *, interrupted: bool
) -> tuple[Verdict, list[str]]:
    """Return the verdict on a search, and the reasons for it.

    Args:
        found: the answer of the search.
        failure: the reason for which the search failed; None if it did not.
        interrupted: whether the search was interrupted.
    """
    reasons = []
    if found.is_short and found.at_least_seconds is not None:
        wanted = format_duration(found.at_least_seconds)
        if found.dropped_seconds is None or found.how is None:
            reasons.append(f"kept>={wanted} is not known")
        else:
            after = written_time(found.dropped_seconds)
            reasons.append(f"kept>={wanted} was crossed: dropped after {after}")
            reasons[-1] += f", {HOW_IN_WORDS[found.how]}"
    if interrupted:
        return "interrupted", ["interrupted before the end", *reasons]
    if failure is not None:
        return "failed", [failure, *reasons]
    return ("crossed" if reasons else "passed"), reasons
