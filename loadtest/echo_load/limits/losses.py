"""Lost datagrams: which of them are an outage, without I/O or a clock.

All instants are in seconds of the same clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from echo_client.failure_kinds import FailureKind
from echo_load.limits.outages import Answer, OutageLog


@dataclass(slots=True)
class _Loss:
    """A lost datagram.

    Attributes:
        slot: number of the kept connection, or `NEW_CONNECTIONS`.
        at: instant at which it was sent.
        logged: whether it is in the log of outages.
    """

    slot: int
    at: float
    logged: bool = False


class DatagramLosses:
    """The lost datagrams of one target, of which single ones are no outage.

    Losses are logged as failures if at least two datagrams, consecutive among those of a slot or
    among all, were lost, and for the timeout or longer there was no reply to a later one.

    Args:
        log: the outages.
        timeout: seconds after which a datagram without a reply is lost.
        memory_seconds: longest time in seconds from the beginning of a probe to the discovery of a
            loss that makes it an outage.
    """

    def __init__(self, log: OutageLog, timeout: float, memory_seconds: float) -> None:
        self._log = log
        self._timeout = timeout
        self._memory = memory_seconds
        self._answers: list[Answer] = []
        self._losses: list[_Loss] = []

    def answered(self, slot: int, sent: float, received: float) -> None:
        """Record a probe with a correct reply; see `OutageLog.answered`."""
        self._answers.append(Answer(slot, sent, received))
        if self._answers[0].received < received - 2 * self._memory:
            oldest = received - self._memory
            self._answers = [one for one in self._answers if one.received >= oldest]
        self._log.answered(slot, sent, received)

    def lost(self, slot: int, at: float, now: float) -> None:
        """Record a lost datagram.

        Args:
            slot: number of the kept connection, or `NEW_CONNECTIONS`.
            at: instant at which it was sent.
            now: instant at which it is known to be lost, or at which the last probe was sent.
        """
        self._losses = [one for one in self._losses if one.at >= now - self._memory]
        self._losses.append(_Loss(slot, at))
        own = [one for one in self._answers if one.slot == slot]
        self._log_if_silent([one for one in self._losses if one.slot == slot], own, at, now)
        self._log_if_silent(self._losses, self._answers, at, now)

    def _log_if_silent(
        self, losses: Sequence[_Loss], answers: Sequence[Answer], at: float, now: float
    ) -> None:
        """Log the losses without a reply between them and an instant, if they are an outage."""
        before = max((one.sent for one in answers if one.sent <= at), default=-math.inf)
        later = [one for one in answers if one.sent > at]
        after = min((one.sent for one in later), default=math.inf)
        end = min((one.received for one in later), default=now)
        silent = [one for one in losses if before < one.at < after]
        if len(silent) < 2 or end - min(one.at for one in silent) < self._timeout:
            return
        for one in sorted(silent, key=lambda one: one.at):
            if not one.logged:
                one.logged = True
                self._log.failed(one.slot, one.at, FailureKind.LOST)
