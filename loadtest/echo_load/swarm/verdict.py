"""The verdict on a swarm, during and after its test."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from echo_core.errors import ExitCode
from echo_load.plan.thresholds import Figures, ThresholdResult
from echo_load.report.evidence import evidence_rows
from echo_load.results.verdict import is_tolerated, proxy_hints
from echo_load.swarm.duration import duration_of
from echo_load.swarm.evidence import evidence_in
from echo_load.swarm.histograms import Histograms
from echo_load.swarm.microseconds import text_table, write_csv
from echo_load.swarm.settings import Settings

# Names of requests that receive no reply.
_WITHOUT_REPLY = frozenset({"connect", "close", "send"})

logger = logging.getLogger(__name__)


def threshold_results(environment: Any, histograms: Histograms) -> list[ThresholdResult]:
    """Return the outcomes so far of the thresholds of the command line or the web form."""
    limits = Settings.of(environment.parsed_options).thresholds
    if not limits:
        return []
    stats = environment.stats
    messages = histograms.named("message")
    connects = histograms.named("connect")
    figures = Figures(
        seconds=duration_of(environment).seconds,
        latencies={
            "response": messages,
            "connect": connects,
        },
        counts={
            "messages": messages.count,
            "connections_opened": connects.count,
            "connections_failed": sum(
                error.occurrences for error in stats.errors.values() if error.name == "connect"
            ),
        },
        errors=_failed_kinds(stats),
        # Requests other than messages count as attempts only if they failed.
        attempts=sum(one.num_requests for one in stats.entries.values() if one.name == "message")
        + sum(one.occurrences for one in stats.errors.values() if one.name != "message"),
    )
    return [limit.judge(figures) for limit in limits]


def conclude(environment: Any, histograms: Histograms) -> None:
    """Log the figures and the verdict when locust quits, write the CSV, and set the exit code."""
    table = text_table(histograms)
    if len(table.splitlines()) > 1:
        logger.info("response times in microseconds\n%s", table)
    prefix = getattr(environment.parsed_options, "csv_prefix", None)
    if prefix:
        path = Path(f"{prefix}_microseconds.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            write_csv(histograms, file)
    results = threshold_results(environment, histograms)
    for one in results:
        if one.passed:
            logger.info("threshold %s kept: %s", one.threshold, one.measured)
        else:
            logger.error("threshold %s crossed: %s", one.threshold, one.measured)
    if bound := generator_bound(environment):
        logger.warning("%s", bound)
    _log_evidence(environment)
    reasons = failures(environment, histograms, at_end=duration_of(environment).has_begun)
    for reason in reasons:
        logger.error("failed: %s", reason)
    if reasons:
        environment.process_exit_code = environment.parsed_options.exit_code_on_error
    elif not all(one.passed for one in results):
        environment.process_exit_code = int(ExitCode.THRESHOLD)
    elif environment.stats.errors:
        # A threshold allows these errors.
        environment.process_exit_code = int(ExitCode.OK)


def _log_evidence(environment: Any) -> None:
    for kind, said in evidence_rows(evidence_in(environment).total()):
        logger.warning("first %s: %s", kind, said)


def generator_bound(environment: Any) -> str | None:
    """Return a warning if a process of the swarm was the bottleneck, not the target; else None."""
    runner = environment.runner
    if not (runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted):
        return None
    return (
        "generator-bound: a swarm process used over 90 % of a processor, so its times are its own "
        "and not the target's; add --processes or workers, or use EchoBlockUser"
    )


def verdict_rows(environment: Any, histograms: Histograms) -> list[tuple[str, str, str]]:
    """Return a row per threshold or failure: its name, the figure so far, and the verdict.

    The first failure of each kind has a row, too.
    """
    found = [
        (f"threshold {one.threshold}", one.measured, "kept" if one.passed else "crossed")
        for one in threshold_results(environment, histograms)
    ]
    at_end = duration_of(environment).has_ended
    found += [
        ("failure", reason, "failed") for reason in failures(environment, histograms, at_end=at_end)
    ]
    found += [
        (f"first {kind}", said, "failed")
        for kind, said in evidence_rows(evidence_in(environment).total())
    ]
    if bound := generator_bound(environment):
        found.append(("generator", bound, "the limit"))
    return found or [("failure", "none", "")]


def failures(environment: Any, histograms: Histograms, *, at_end: bool) -> list[str]:
    """Return the reasons for which a swarm failed, one line each; empty if it did not.

    Args:
        environment: locust's environment.
        histograms: histograms of that environment.
        at_end: whether a test has ended, so that no more replies will arrive.
    """
    found = [str(one["msg"]) for one in environment.runner.exceptions.values()]
    answered = any(
        times.count for (_, name), times in histograms.items() if name not in _WITHOUT_REPLY
    )
    if at_end and not answered:
        found.append("no message came back")
    settings = Settings.of(environment.parsed_options)
    limited = {one.metric for one in settings.thresholds}
    kinds = _failed_kinds(environment.stats)
    if any(not is_tolerated(kind, limited) for kind in kinds):
        found.append(", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items())))
    if settings.send_proxy is not None:
        found += proxy_hints(kinds, evidence_in(environment).total())
    return found


def _failed_kinds(stats: Any) -> Counter[str]:
    """Return the number of failed requests by kind."""
    kinds: Counter[str] = Counter()
    for error in stats.errors.values():
        kinds[str(error.error)] += error.occurrences
    return kinds
