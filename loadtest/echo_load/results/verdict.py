"""The verdict on a test, and the reasons for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from echo_client.failure_kinds import LOSSES, MISMATCHES, FailureKind
from echo_core.proxy_protocol import begins_header
from echo_core.units import format_count
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import ThresholdResult
from echo_load.results.evidence import Evidence
from echo_load.results.reconciliation import Reconciliation
from echo_load.results.result import StageResult, Totals, Verdict

# Remedies for errors that the target did not cause.
_HINTS = {
    FailureKind.NO_PORT: "local ports ran out (net.ipv4.ip_local_port_range; a connection closed "
    "by --churn keeps its port for up to a minute): add --source-ip addresses",
    FailureKind.NO_DESCRIPTOR: "descriptors ran out: raise ulimit -n or --processes",
    FailureKind.NO_SOURCE: "a --source-ip address is not an address of this machine",
    FailureKind.NO_THREAD: "no more threads could be started (ulimit -u, memory): use --engine hub",
    FailureKind.HANDSHAKE: "TLS handshakes failed: --tls-ca sets the CA to trust",
}


class End(NamedTuple):
    """The end of a test.

    Attributes:
        interrupted: whether a user or a signal stopped it.
        aborted: whether a threshold stopped it.
        failure: reason for which the server that was started for the test ended early; None if it
            did not.
        missing: number of parts, over all repeats, that were not run.
        parts: number of planned parts: stages if each has its own connections, otherwise repeats.
    """

    interrupted: bool
    aborted: bool
    failure: str | None
    missing: int
    parts: int


def tolerated(plan: Plan, kind: str) -> bool:
    """Return whether a threshold of the plan allows some errors of this kind.

    Without such a threshold no error is tolerated, and wrong replies are never tolerated. A
    threshold on one target or stage does not count, because it does not apply to the others.
    """
    return is_tolerated(kind, {limit.metric for limit in plan.limits if limit.scope.is_whole})


def is_tolerated(kind: str, metrics: Collection[str]) -> bool:
    """Return whether thresholds on these metrics allow some errors of this kind."""
    return kind not in MISMATCHES and (
        "errors" in metrics or (kind in LOSSES and not {"loss", "loss_burst"}.isdisjoint(metrics))
    )


def shortcomings(plan: Plan, stage: StageResult) -> list[str]:
    """Return the reasons why a stage failed, at most one line; an empty list if it did not."""
    if stage.errors and all(tolerated(plan, kind) for kind in stage.errors):
        return []
    found = []
    if stage.connections_failed:
        failed = format_count(stage.connections_failed, "connection")
        found.append(f"{failed} could not be opened")
    if stage.connections_lost:
        were = "was" if stage.connections_lost == 1 else "were"
        found.append(f"{format_count(stage.connections_lost, 'connection')} {were} lost")
    if wrong := sum(stage.errors.get(kind, 0) for kind in MISMATCHES):
        were = "was" if wrong == 1 else "were"
        found.append(f"{format_count(wrong, 'reply')} {were} not what was sent")
    if unsent := stage.errors.get(FailureKind.UNSENT):
        found.append(f"{unsent:,} of the messages due were never sent")
    if lost := stage.errors.get(FailureKind.LOST):
        found.append(f"{lost:,} of the datagrams did not come back")
    if not found and stage.errors:
        found.append("there were errors")
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(stage.errors.items()))
    return [f"{stage.name}: {'; '.join(found)}" + (f" ({kinds})" if kinds else "")] if found else []


def proxy_hints(kinds: Mapping[str, int], evidence: Evidence) -> list[str]:
    """Return the signs that the target does not expect the PROXY headers of a test.

    Args:
        kinds: number of failures of each kind.
        evidence: the first failure of each kind.
    """
    if any(begins_header(one.received.data) for one in evidence.wrong_replies):
        return [
            "the PROXY header came back: the target does not expect one (an echo-server does with "
            "--proxy-protocol)"
        ]
    if kinds.get(FailureKind.HANDSHAKE):
        return ["TLS handshakes also fail if the target does not expect a PROXY header"]
    return []


def reach_verdict(
    plan: Plan,
    stages: Sequence[StageResult],
    totals: Totals,
    reconciliation: Reconciliation | None,
    thresholds: Sequence[ThresholdResult],
    end: End,
    evidence: Evidence,
) -> tuple[Verdict, list[str]]:
    """Return the verdict on a test, and the reasons why it did not pass, one line each."""
    failures = [reason for stage in stages for reason in shortcomings(plan, stage)]
    if not totals.messages:
        failures.append("no message came back")
    failures += [hint for kind, hint in _HINTS.items() if totals.errors.get(kind)]
    if plan.send_proxy is not None:
        failures += proxy_hints(totals.errors, evidence)
    if end.failure is not None:
        failures.append(end.failure)
    if end.interrupted:
        failures.append("interrupted before the end")
    elif end.aborted:
        # The crossed threshold is the reason. Messages in flight made the reconciliation differ.
        pass
    elif end.missing:
        parts = "stages" if plan.reopen else "repeats"
        failures.append(f"{end.missing} of {end.parts} {parts} not run")
    elif reconciliation is not None and (failures or not totals.errors):
        # Tolerated errors make the reconciliation differ, too.
        failures += reconciliation.differences
    crossed = [
        f"{one.crossed}: {one.measured}"
        + ("; the test was stopped" if one.aborts and end.aborted else "")
        for one in thresholds
        if not one.passed
    ]
    if end.interrupted:
        return "interrupted", failures + crossed
    if failures:
        return "failed", failures + crossed
    return ("crossed" if crossed else "passed"), crossed
