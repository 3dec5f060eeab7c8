"""Counts of messages, bytes, connections and errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Counts:
    """Counts that can be added over connections and generators.

    Attributes:
        opened: connections that were established.
        failed: attempts to establish one that failed.
        lost: connections given up before the end because of an error.
        closed: connections that ended, for whatever reason.
        messages: round trips completed, right or wrong.
        wrong: round trips with a wrong reply; they are among the errors, too.
        bytes_sent: payload bytes handed to the kernel.
        bytes_received: payload bytes that came back.
        datagrams_sent: datagrams handed to the kernel.
        datagrams_received: datagrams that came back.
        retransmits: segments that TCP retransmitted on connections that have ended.
        errors: failures by kind, as `FailureKind` names them, and
            `no_reply`, `no_thread`, `lost` (a datagram), `unsent`.
    """

    opened: int = 0
    failed: int = 0
    lost: int = 0
    closed: int = 0
    messages: int = 0
    wrong: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    datagrams_sent: int = 0
    datagrams_received: int = 0
    retransmits: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def open(self) -> int:
        """The number of open connections."""
        return self.opened - self.closed

    @property
    def attempts(self) -> int:
        """The base of error shares: round trips completed, and failures without one."""
        return self.messages + self.errors.total() - self.wrong

    def __add__(self, other: Counts) -> Counts:
        """Return the sum of both."""
        names = [one.name for one in fields(self)]
        return Counts(*(getattr(self, name) + getattr(other, name) for name in names))

    def since(self, other: Counts) -> Counts:
        """Return the difference from earlier counts."""
        names = [one.name for one in fields(self) if one.name != "errors"]
        gained = Counts(*(getattr(self, name) - getattr(other, name) for name in names))
        # An error can be withdrawn: a datagram that counted as lost came late.
        for kind in self.errors | other.errors:
            if change := self.errors[kind] - other.errors[kind]:
                gained.errors[kind] = change
        return gained

    def add(self, other: Counts) -> None:
        """Add other counts to these; withdrawn errors are subtracted."""
        for one in fields(self):
            if one.name != "errors":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        self.errors.update(other.errors)

    def copy(self) -> Counts:
        """A copy of the counts."""
        return self + Counts()
