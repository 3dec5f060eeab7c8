"""The answer of `echo-load watch`: outages, reconnections and lost messages."""

from __future__ import annotations

from typing import Literal

import msgspec

from echo_core.units import format_count
from echo_load.plan.thresholds import written_time
from echo_load.results.short import shortened

# The least difference from 1 that is shown of a share.
_DIGITS = 6

OutageKind = Literal["refused", "unreachable", "silent", "reset", "closed", "wrong", "other"]


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which probes of a target failed.

    Lost datagrams are part of an outage only if several were lost one after the other.

    Attributes:
        begin: when it began, in seconds since the watch began: when the first failed probe was
            sent, or a connection broke.
        end: when it ended, in the same way: at the first checked reply after the last failed probe
            was sent, or at the end of the watch if `ongoing`.
        seconds: duration.
        target: URL of the target.
        number: its number among the outages of the target, from 1.
        kind: kind of most of its failed probes: `refused` (nothing listens),
            `unreachable` (no route), `silent` (no answer within the timeout), `wrong` (replies
            other than what was sent) or `other` (such as a failed TLS handshake). `reset` and
            `closed` are outages in which connections were lost, and nothing else failed.
        errors: number of failed probes and lost connections by kind, as in the totals.
        connections: number of kept connections that were affected.
        partial: whether probes on other connections were answered meanwhile.
        ongoing: whether it lasted until the end of the watch.
        started_at: when it began (ISO 8601, UTC).
    """

    begin: float
    end: float
    seconds: float
    target: str
    number: int
    kind: OutageKind
    errors: dict[str, int]
    connections: int
    partial: bool
    ongoing: bool
    started_at: str


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which the watch itself did not run, and of which it knows nothing.

    Attributes:
        begin: when it began, in seconds since the watch began.
        end: when it ended.
        seconds: duration.
        started_at: when it began (ISO 8601, UTC); None in results of earlier versions.
    """

    begin: float
    end: float
    seconds: float
    started_at: str | None = None


class TargetWatch(msgspec.Struct, frozen=True, kw_only=True):
    """A target over the whole watch.

    Attributes:
        target: URL of the target.
        availability: share of the time outside its outages, without the time in which the watch
            itself did not run.
        outages: number of its outages.
        outage_seconds: duration of its outages together.
    """

    target: str
    availability: float
    outages: int
    outage_seconds: float


class WatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outages and the availability of targets during a watch.

    Attributes:
        seconds: duration of the watch.
        interval_seconds: interval at which each target was probed on a kept connection, and at
            which it was probed on a new one.
        outages: each outage, in the order in which they began.
        pauses: each time in which the watch itself did not run (it was stopped, or got no
            processor), of 0.1 s or more.
        targets: figures of each target.
        availability: `availability` averaged over the targets.
        longest_seconds: duration of the longest outage; 0 without one.
        outage_seconds: duration of the outages together, of the target with the most.
        budget_seconds: largest `outage_seconds` allowed; None for no limit.
        messages_lost: probes that were sent on an open connection and got no reply.
        disregarded: probes that failed while the watch itself did not run, which is no evidence
            against a target; they are not in the errors.
        reconnects: kept connections that were lost and replaced.
        reconnect_median_seconds: median of the time from the loss of a connection to the first
            checked reply on the one that replaced it; 0 without one.
        reconnect_longest_seconds: longest such time.
    """

    seconds: float
    interval_seconds: float
    outages: list[Outage]
    pauses: list[Pause]
    targets: list[TargetWatch]
    availability: float
    longest_seconds: float
    outage_seconds: float
    budget_seconds: float | None
    messages_lost: int
    disregarded: int
    reconnects: int
    reconnect_median_seconds: float
    reconnect_longest_seconds: float

    def __repr__(self) -> str:
        """Return the answer in one line."""
        return shortened(f"WatchResult: {self.answer}")

    @property
    def answer(self) -> str:
        """The answer in one sentence, without a full stop."""
        said = f"availability {written_availability(self.availability)}"
        if not self.outages:
            return f"{said}, no outage"
        outages = format_count(len(self.outages), "outage")
        return f"{said}, {outages}, {written_time(self.outage_seconds)} in all"

    @property
    def paused(self) -> str | None:
        """A summary of the watch's own pauses; None if it ran all the time."""
        if not self.pauses:
            return None
        times = f" {len(self.pauses):,} times, in all" if len(self.pauses) > 1 else ""
        return f"the watch itself paused{times} {written_time(self.paused_seconds)}"

    @property
    def paused_seconds(self) -> float:
        """Duration of the pauses of the watch itself together."""
        return sum(one.seconds for one in self.pauses)

    @property
    def within_budget(self) -> bool:
        """True if the outages did not take longer than allowed."""
        return self.budget_seconds is None or self.outage_seconds <= self.budget_seconds


def written_availability(share: float) -> str:
    """Return an availability in percent, which is 100 only if it is complete."""
    below = 1 - 10**-_DIGITS
    shown = 1.0 if share >= 1 else min(round(share, _DIGITS), below)
    return "100 %" if shown == 1 else f"{shown * 100:.{_DIGITS - 2}f} %"
