"""Counts of messages, bytes, connections and errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from functools import cache


@dataclass(slots=True)
class Counts:
    """Counts that can be added over connections and generators.

    Attributes:
        opened: connections that were established.
        failed: attempts to establish a connection that failed.
        lost: connections given up before the end because of an error.
        closed: connections that have ended, for any reason.
        messages: completed round trips, with a right or a wrong reply.
        wrong: round trips with a wrong reply; they are among the errors, too.
        bytes_sent: payload bytes handed to the kernel.
        bytes_received: payload bytes received from the kernel.
        datagrams_sent: datagrams handed to the kernel.
        datagrams_received: datagrams received from the kernel.
        retransmits: segments that TCP retransmitted on connections that have ended.
        resumed: TLS handshakes that resumed the session of an earlier connection.
        ciphers: number of TLS handshakes by the version and the cipher of TLS.
        errors: number of failures by kind, named as in `FailureKind`.
        jitter_ns: sum of the jitter of round trips over UDP in nanoseconds, as it was after each
            reply (RFC 3550, section 6.4.1).
        jitters: number of replies in that sum.
        bursts: number of bursts of lost datagrams, by the number of consecutive datagrams that a
            connection lost.
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
    resumed: int = 0
    ciphers: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    jitter_ns: int = 0
    jitters: int = 0
    bursts: Counter[int] = field(default_factory=Counter)

    @property
    def jitter_us(self) -> float | None:
        """The mean jitter in microseconds; None if no connection had two round trips over UDP."""
        return self.jitter_ns / self.jitters / 1e3 if self.jitters else None

    @property
    def longest_burst(self) -> int:
        """The largest number of consecutive datagrams that a connection lost."""
        return max((length for length, count in self.bursts.items() if count > 0), default=0)

    @property
    def open(self) -> int:
        """The number of open connections."""
        return self.opened - self.closed

    @property
    def attempts(self) -> int:
        """The denominator of error shares: completed round trips, and failures without one."""
        return self.messages + self.errors.total() - self.wrong

    def __add__(self, other: Counts) -> Counts:
        """Return the sum of these and other counts."""
        names = [one.name for one in fields(self)]
        return Counts(*(getattr(self, name) + getattr(other, name) for name in names))

    def since(self, other: Counts) -> Counts:
        """Return the increase since earlier counts."""
        gained = Counts(
            **{name: getattr(self, name) - getattr(other, name) for name in _plain_names()}
        )
        # The number of errors can decrease: a datagram that counted as lost arrives late.
        for kind in self.errors | other.errors:
            if change := self.errors[kind] - other.errors[kind]:
                gained.errors[kind] = change
        for length in self.bursts | other.bursts:
            if change := self.bursts[length] - other.bursts[length]:
                gained.bursts[length] = change
        gained.ciphers = self.ciphers - other.ciphers
        return gained

    def add(self, other: Counts) -> None:
        """Add other counts to these; negative numbers of errors are subtracted."""
        for name in _plain_names():
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors.update(other.errors)
        self.bursts.update(other.bursts)
        self.ciphers.update(other.ciphers)

    def copy(self) -> Counts:
        """Return a copy."""
        return self + Counts()


@cache
def _plain_names() -> tuple[str, ...]:
    """Return the names of the fields that are numbers."""
    counters = {"errors", "bursts", "ciphers"}
    return tuple(one.name for one in fields(Counts) if one.name not in counters)
