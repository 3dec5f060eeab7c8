"""The answer of `echo-load idle`: the time for which a path keeps an idle connection."""

from __future__ import annotations

from typing import Literal

import msgspec

from echo_load.plan.thresholds import written_time
from echo_load.results.short import shortened

How = Literal["reset", "end_of_stream", "silence", "unreachable", "broken"]
Outcome = Literal["kept", "reset", "end_of_stream", "silence", "unreachable", "broken", "unknown"]

HOW_IN_WORDS: dict[How, str] = {
    "reset": "by a reset",
    "end_of_stream": "by an end of stream",
    "silence": "in silence",
    "unreachable": "with an ICMP error",
    "broken": "by another error",
}


class IdleRung(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that was left idle for a time, and then probed once.

    Attributes:
        round: number of the round, from 1.
        pause_seconds: planned idle time. Over UDP three connections share a pause, and one reply is
            enough.
        idle_seconds: actual idle time: until the probe was sent, which may be a little later, or
            the peer closed the connection; 0 if the search ended before.
        outcome: `kept` if the probe was answered; the way in which the connection was dropped; or
            `unknown` if the search ended before.
        closed_seconds: idle time after which the peer closed or reset the connection; None if that
            did not happen while it was idle.
    """

    round: int
    pause_seconds: float
    idle_seconds: float
    outcome: Outcome
    closed_seconds: float | None

    @property
    def how(self) -> How | None:
        """The way in which it was dropped; None if it was not, or if that is not known."""
        match self.outcome:
            case "kept" | "unknown":
                return None
            case how:
                return how

    @property
    def said(self) -> str:
        """The outcome in words."""
        if self.how is None:
            return self.outcome
        seen = "in answer to the probe" if self.closed_seconds is None else "while idle"
        said = f"dropped {HOW_IN_WORDS[self.how]}"
        return said if self.how == "silence" else f"{said}, {seen}"


class IdleResult(msgspec.Struct, frozen=True, kw_only=True):
    """The time for which the path keeps an idle connection, and the connections that showed it.

    Attributes:
        kept_seconds: longest pause after which a connection still answered, of those shorter than
            `dropped_seconds`; 0 if there is none.
        dropped_seconds: shortest pause after which a connection was dropped; exact if the peer
            closed it while it was idle, otherwise the time of the probe that was not answered. None
            if none was dropped.
        how: the way in which it was dropped: `reset`, `end_of_stream`, in `silence` (the probe got
            no reply, although a new connection did), `unreachable` (an ICMP error) or `broken`
            (another error, such as of TLS).
        irregular_seconds: longest pause above `dropped_seconds` after which a connection answered
            nevertheless; None if there is none.
        up_to_seconds: longest pause to try.
        precision_seconds: requested distance between kept and dropped, or less; None for a
            hundredth of the latter.
        keepalive_seconds: interval of TCP keep-alives; None without them.
        at_least_seconds: required `kept_seconds`; None for none.
        datagrams: whether this is UDP, over which a NAT that has forgotten a mapping makes another
            one for the probe, so that the probe is answered all the same.
        rungs: each connection, in the order of rounds and pauses.
    """

    kept_seconds: float
    dropped_seconds: float | None
    how: How | None
    irregular_seconds: float | None
    up_to_seconds: float
    precision_seconds: float | None
    keepalive_seconds: float | None
    at_least_seconds: float | None
    datagrams: bool
    rungs: list[IdleRung]

    def __repr__(self) -> str:
        """Return the answer in one line."""
        return shortened(f"IdleResult: {self.answer}")

    @property
    def is_short(self) -> bool:
        """True if connections were kept for less than the required time."""
        return self.at_least_seconds is not None and self.kept_seconds < self.at_least_seconds

    @property
    def answer(self) -> str:
        """The answer in one sentence, without a full stop."""
        kept = f"kept up to {written_time(self.kept_seconds)}" if self.kept_seconds else ""
        if self.dropped_seconds is None or self.how is None:
            return kept or "not known"
        dropped = f"dropped from {written_time(self.dropped_seconds)} on, {HOW_IN_WORDS[self.how]}"
        said = f"{kept}, {dropped}" if kept else dropped
        if self.irregular_seconds is not None:
            said += f"; but one was kept for {written_time(self.irregular_seconds)}"
        return said

    @property
    def note(self) -> str | None:
        """A caveat of the answer in one sentence, without a full stop; None if there is none."""
        if not self.datagrams or not self.kept_seconds:
            return None
        return (
            "over UDP the probe renews a NAT's mapping: what the server sends by itself after a "
            "pause may still be lost"
        )

    @property
    def how_in_words(self) -> str:
        """The way in which connections were dropped, in words."""
        return HOW_IN_WORDS[self.how] if self.how is not None else "none was dropped"

    @property
    def description(self) -> str:
        """The test in one line of text."""
        said = f"idle connections, up to {written_time(self.up_to_seconds)}"
        if self.keepalive_seconds is not None:
            said += f", keep-alives every {written_time(self.keepalive_seconds)}"
        return said
