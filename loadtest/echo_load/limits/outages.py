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
class Spell:
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
        self.spells: list[Spell] = []
        self._memory = memory_seconds
        self._recent: deque[Answer] = deque()
        self._answered: dict[int, float] = {}

    @property
    def is_down(self) -> bool:
        """Whether an outage is in progress."""
        return bool(self.spells) and self.spells[-1].end is None

    def answered(self, slot: int, sent: float, received: float) -> None:
        """Note a checked reply."""
        answer = Answer(slot, sent, received)
        self._recent.append(answer)
        while self._recent[0].received < received - self._memory:
            self._recent.popleft()
        self._answered[slot] = max(self._answered.get(slot, sent), sent)
        if self.is_down:
            self._find_end(self.spells[-1])

    def failed(self, slot: int, at: float, kind: str) -> None:
        """Note a probe that failed, or a connection that broke.

        Args:
            slot: number of the kept connection, or `NEW_CONNECTIONS`.
            at: when the probe was sent, or the connection broke.
            kind: kind of the failure.
        """
        spell = self._spell_of(slot, at)
        spell.begin = min(spell.begin, at)
        spell.last_failure = max(spell.last_failure, at)
        spell.errors[kind] += 1
        spell.slots.add(slot)
        self._find_end(spell)

    def _spell_of(self, slot: int, at: float) -> Spell:
        """Return the outage to which a failure belongs, which may be a new one."""
        last = self.spells[-1] if self.spells else None
        for number in range(len(self.spells) - 1, -1, -1):
            spell = self.spells[number]
            ended_before = self.spells[number - 1].end or 0.0 if number else None
            if spell.end is not None and at >= spell.end:
                break
            if at >= spell.begin or ended_before is None or at >= ended_before:
                return spell
        # A connection that has not been answered since the outage began is still in it.
        if last is not None and self._answered.get(slot, -math.inf) < last.begin:
            return last
        self.spells.append(Spell(at, at))
        return self.spells[-1]

    def _find_end(self, spell: Spell) -> None:
        spell.partial = spell.partial or any(
            one.sent >= spell.begin and one.received <= spell.last_failure for one in self._recent
        )
        kept = spell.slots - {NEW_CONNECTIONS} or spell.slots
        ends = [
            one.received
            for one in self._recent
            if one.received > spell.last_failure and (not spell.partial or one.slot in kept)
        ]
        spell.end = min(ends, default=None)
