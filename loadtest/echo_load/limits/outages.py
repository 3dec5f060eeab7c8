"""Outages from the outcomes of probes, without any I/O or clock.

All instants are seconds of the same clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_load.results.watch import OutageKind

# The number of the source of probes that opens a new connection for each.
NEW_CONNECTIONS = -1
_KINDS: dict[str, OutageKind] = {
    FailureKind.REFUSED: "refused",
    FailureKind.UNREACHABLE: "unreachable",
    FailureKind.TIMEOUT: "silent",
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
        sent: when the probe began.
        received: when its reply had arrived.
    """

    slot: int
    sent: float
    received: float


@dataclass(slots=True)
class LoggedOutage:
    """An outage of one target.

    Attributes:
        begin: when the first failed probe was sent.
        last_failure: when the last failed probe was sent.
        end: when the target answered again; None as long as it has not.
        errors: number of failures by kind.
        slots: numbers of the connections that failed.
        partial: whether other connections were answered meanwhile.
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
        """The kind of most failures, or that of broken connections if nothing else failed."""
        found: Counter[OutageKind] = Counter()
        for kind, count in self.errors.items():
            found[_KINDS.get(kind, "other")] += count
        lasting = [kind for kind in found if kind not in _BREAKS]
        return max(lasting or found, key=lambda kind: found[kind])


class OutageLog:
    """The outages of one target, from the outcomes of its probes in any order.

    A probe fails only when its timeout has passed, long after it was sent; its failure is evidence
    about the time at which it was sent. An outage lasts from when its first failed probe was sent
    until the first reply after the last one was sent. If some connections were answered all the
    time, only the reply on one that failed ends it.

    Args:
        memory_seconds: how long after it was sent a probe may still fail.
    """

    def __init__(self, memory_seconds: float) -> None:
        self.outages: list[LoggedOutage] = []
        self._memory = memory_seconds
        self._recent: deque[Answer] = deque()
        self._answered: dict[int, float] = {}

    @property
    def is_down(self) -> bool:
        """Whether an outage is in progress."""
        return bool(self.outages) and self.outages[-1].end is None

    def answered(self, slot: int, sent: float, received: float) -> None:
        """Note a checked reply."""
        answer = Answer(slot, sent, received)
        self._recent.append(answer)
        while self._recent[0].received < received - self._memory:
            self._recent.popleft()
        self._answered[slot] = max(self._answered.get(slot, sent), sent)
        if self.is_down:
            self._find_end(self.outages[-1])

    def failed(self, slot: int, at: float, kind: str) -> None:
        """Note a probe that failed, or a connection that broke.

        Args:
            slot: number of the kept connection, or `NEW_CONNECTIONS`.
            at: when the probe was sent, or the connection broke.
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
        # A connection that has not been answered since the outage began is still in it.
        if last is not None and self._answered.get(slot, -math.inf) < last.begin:
            return last
        self.outages.append(LoggedOutage(at, at))
        return self.outages[-1]

    def _find_end(self, outage: LoggedOutage) -> None:
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
