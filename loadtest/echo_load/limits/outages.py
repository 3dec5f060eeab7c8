"""Outages, derived from the outcomes of probes without I/O or a clock.

All instants are in seconds of the same clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_load.results.watch import OutageKind

# The slot of all probes that open a new connection each.
NEW_CONNECTIONS = -1
_KINDS: dict[str, OutageKind] = {
    FailureKind.REFUSED: "refused",
    FailureKind.UNREACHABLE: "unreachable",
    FailureKind.TIMEOUT: "silent",
    FailureKind.LOST: "silent",
    FailureKind.CONNECT_TIMEOUT: "silent",
    FailureKind.RESET: "reset",
    FailureKind.BROKEN: "reset",
    FailureKind.CLOSED: "closed",
    **dict.fromkeys(MISMATCHES, "wrong"),
}
# A kept connection breaks once: what its replacement finds describes the outage better.
_BREAKS: tuple[OutageKind, ...] = ("reset", "closed")


class Answer(NamedTuple):
    """A probe with a checked reply.

    Attributes:
        slot: number of the kept connection, or `NEW_CONNECTIONS`.
        sent: instant at which the probe was sent.
        received: instant at which its reply had arrived.
    """

    slot: int
    sent: float
    received: float


@dataclass(slots=True)
class LoggedOutage:
    """An outage of one target.

    Attributes:
        begin: instant at which the first failed probe began.
        last_failure: instant at which the last failed probe began.
        end: instant at which the target answered again; None if it has not yet.
        errors: number of failures by kind.
        slots: numbers of the connections that failed.
        partial: whether probes were answered during the outage.
    """

    begin: float
    last_failure: float
    end: float | None = None
    errors: Counter[str] = field(default_factory=Counter)
    slots: set[int] = field(default_factory=set)
    partial: bool = False

    @property
    def connections(self) -> int:
        """The number of kept connections that were affected."""
        return len(self.slots - {NEW_CONNECTIONS})

    @property
    def kind(self) -> OutageKind:
        """The most frequent kind of failure; resets and closes count only if there is no other."""
        found: Counter[OutageKind] = Counter()
        for kind, count in self.errors.items():
            found[_KINDS.get(kind, "other")] += count
        lasting = [kind for kind in found if kind not in _BREAKS]
        return max(lasting or found, key=lambda kind: found[kind])


class OutageLog:
    """The outages of one target, from the outcomes of its probes in any order.

    A probe without a reply fails when its timeout has passed, long after it began; the failure is
    attributed to the time at which it began. An outage begins with the first failed probe, and ends
    with the first reply after the beginning of the last failed probe. If other probes were answered
    meanwhile, only a reply on a connection that had failed ends it.

    Args:
        memory_seconds: longest time in seconds from the beginning of a probe to its failure.

    Attributes:
        outages: the outages in order; the last one may not have ended.
    """

    def __init__(self, memory_seconds: float) -> None:
        self.outages: list[LoggedOutage] = []
        self._memory = memory_seconds
        self._recent: deque[Answer] = deque()
        self._answered: dict[int, float] = {}

    @property
    def is_down(self) -> bool:
        """True if an outage is in progress."""
        return bool(self.outages) and self.outages[-1].end is None

    def answered(self, slot: int, sent: float, received: float) -> None:
        """Record a probe with a correct reply.

        Args:
            slot: number of the kept connection, or `NEW_CONNECTIONS`.
            sent: instant at which the probe was sent.
            received: instant at which its reply had arrived.
        """
        answer = Answer(slot, sent, received)
        self._recent.append(answer)
        while self._recent[0].received < received - self._memory:
            self._recent.popleft()
        self._answered[slot] = max(self._answered.get(slot, sent), sent)
        if self.is_down:
            self._find_end(self.outages[-1])

    def failed(self, slot: int, at: float, kind: str) -> None:
        """Record a probe that failed, or a connection that broke.

        Args:
            slot: number of the kept connection, or `NEW_CONNECTIONS`.
            at: instant at which the probe began, or the connection broke.
            kind: kind of the failure.
        """
        outage = self._outage_of(slot, at)
        outage.begin = min(outage.begin, at)
        outage.last_failure = max(outage.last_failure, at)
        outage.errors[kind] += 1
        outage.slots.add(slot)
        self._find_end(outage)

    def _outage_of(self, slot: int, at: float) -> LoggedOutage:
        """Return the outage to which a failure belongs, which may be a new one."""
        last = self.outages[-1] if self.outages else None
        for number in range(len(self.outages) - 1, -1, -1):
            outage = self.outages[number]
            ended_before = self.outages[number - 1].end or 0.0 if number else None
            if outage.end is not None and at >= outage.end:
                break
            if at >= outage.begin or ended_before is None or at >= ended_before:
                return outage
        # A connection without an answer since the outage began is still affected by it.
        if last is not None and self._answered.get(slot, -math.inf) < last.begin:
            return last
        self.outages.append(LoggedOutage(at, at))
        return self.outages[-1]

    def _find_end(self, outage: LoggedOutage) -> None:
        """Set the end of an outage according to the recent replies; None if there is no end."""
        outage.partial = outage.partial or any(
            one.sent >= outage.begin and one.received <= outage.last_failure for one in self._recent
        )
        kept = outage.slots - {NEW_CONNECTIONS} or outage.slots
        ends = [
            one.received
            for one in self._recent
            if one.received > outage.last_failure and (not outage.partial or one.slot in kept)
        ]
        outage.end = min(ends, default=None)
