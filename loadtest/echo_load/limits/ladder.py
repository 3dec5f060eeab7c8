"""The pauses that a search for an idle timeout tries, and the answer that their outcomes give."""

from __future__ import annotations

import math
from collections.abc import Sequence

from echo_load.results.idle import IdleResult, IdleRung

# Pauses of the first round; if the longest is 10 minutes, each is a third longer than the previous.
_RUNGS = 24
# Largest number of pauses in a later round. The default precision needs about 25 between two
# neighbours of the first round.
_MOST_NARROWING = 48
_PRECISION = 0.01
_LEAST_PRECISION = 0.01
# A gap that exceeds the precision by rounding errors only is narrow enough.
_ROUNDING = 1.001


def first_rungs(up_to: float, at_least: float | None) -> list[float]:
    """Return the pauses of the first round in seconds, in geometric progression.

    They begin with one second, or with a tenth of the longest if that is shorter.

    Args:
        up_to: longest pause in seconds.
        at_least: a pause in seconds to include; None for none.
    """
    first = min(1.0, up_to / 10)
    growth = (up_to / first) ** (1 / (_RUNGS - 1))
    pauses = {first * growth**number for number in range(_RUNGS - 1)} | {up_to}
    return sorted(pauses if at_least is None else pauses | {at_least})


def next_rungs(found: IdleResult) -> list[float]:
    """Return the pauses in seconds of the next round; none if the answer is precise enough."""
    if found.dropped_seconds is None:
        return []
    precision = found.precision_seconds
    if precision is None:
        precision = max(_LEAST_PRECISION, _PRECISION * found.dropped_seconds)
    gap = found.dropped_seconds - found.kept_seconds
    if gap <= precision * _ROUNDING:
        return []
    steps = min(_MOST_NARROWING, math.ceil(gap / precision))
    between = [found.kept_seconds + gap * number / steps for number in range(1, steps)]
    # The last pause is to confirm the drop. It is a little longer than the one that was dropped, so
    # that a peer that closes idle connections does so before the pause ends.
    return [*between, found.dropped_seconds + precision]


def conclude(search: IdleResult, rungs: Sequence[IdleRung]) -> IdleResult:
    """Return the answer of a search, given the outcomes so far.

    Args:
        search: the parameters of the search; its answer is ignored.
        rungs: the pauses of all rounds, with their outcomes.
    """
    kept = [rung.idle_seconds for rung in rungs if rung.outcome == "kept"]
    dropped = [rung for rung in rungs if rung.how is not None]
    shortest = min(dropped, default=None, key=lambda rung: rung.idle_seconds)
    first = None if shortest is None else shortest.idle_seconds
    below = [pause for pause in kept if first is None or pause < first]
    above = [pause for pause in kept if first is not None and pause >= first]
    return IdleResult(
        kept_seconds=max(below, default=0.0),
        dropped_seconds=first,
        how=None if shortest is None else shortest.how,
        irregular_seconds=max(above, default=None),
        up_to_seconds=search.up_to_seconds,
        precision_seconds=search.precision_seconds,
        keepalive_seconds=search.keepalive_seconds,
        at_least_seconds=search.at_least_seconds,
        datagrams=search.datagrams,
        rungs=sorted(rungs, key=lambda rung: (rung.round, rung.pause_seconds)),
    )
