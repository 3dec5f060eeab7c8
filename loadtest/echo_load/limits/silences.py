"""How long a target has been silent, apart from times in which this process did not run.

A probe that waited while this process did not run says little: the whole machine may have stood
still, and the target with it. On a machine that often stands still no probe would say anything, and
no silence would ever be noticed. Therefore the times that consecutive probes did wait are added.
All instants are in seconds of `time.monotonic`.
"""

from __future__ import annotations

import math
import time

from echo_load.limits.pauses import Heartbeat


class Silences:
    """The silence of one target on each of its connections.

    Args:
        timeout: silence in seconds that is certain.
        heartbeat: tells when this process did not run.
    """

    def __init__(self, timeout: float, heartbeat: Heartbeat) -> None:
        self._timeout = timeout
        self._heartbeat = heartbeat
        # By slot: when the first probe of a silence began, and when the last reply arrived.
        self._begun: dict[int, float] = {}
        self._answered: dict[int, float] = {}

    def answered(self, slot: int) -> None:
        """Note a reply, which ends a silence."""
        self._answered[slot] = time.monotonic()

    def is_certain(self, slot: int, at: float) -> bool:
        """Note a probe whose timeout has passed; return whether the target was silent for it.

        Args:
            slot: number of the kept connection, or `NEW_CONNECTIONS`.
            at: instant at which the probe began.
        """
        begun = min(at, self._begun.get(slot, math.inf))
        if begun < self._answered.get(slot, -math.inf):
            # Probes on new connections overlap: only its own time counts for this one.
            begun = at
        self._begun[slot] = begun
        ran = time.monotonic() - begun - self._heartbeat.paused_seconds(begun)
        return ran >= self._timeout
