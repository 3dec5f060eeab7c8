"""The messages that an open loop was due to send in each second."""

from __future__ import annotations

import math
from collections.abc import Sequence

from echo_load.plan.pacing import Segment, Timeline
from echo_load.report.page.seconds import pieces
from echo_load.results.result import Result


def due_by_second(result: Result) -> dict[int, float]:
    """Return the number of messages due in each second of the series, as the plan has it.

    At random intervals (`arrivals`) it is the expected number. The second in which a test was
    stopped early is left out. Empty for a closed loop, for a watch, which sends probes when it can,
    and for stages with connections of their own.
    """
    plan = result.plan
    stages = plan.run_stages
    if not plan.open_loop or result.watch or (plan.reopen and len(stages) > 1):
        return {}
    timeline = Timeline.of(plan, stages)
    found: dict[int, float] = {}
    all_pieces = pieces(result)
    interrupted = result.verdict == "interrupted"
    for piece in all_pieces:
        due = _due(timeline, len(piece))
        if plan.messages is not None:
            due = _up_to(plan.messages, due)
        elif len(piece) < timeline.seconds or (interrupted and piece is all_pieces[-1]):
            del due[-1]
        found |= {one.second: number for one, number in zip(piece, due, strict=False)}
    return found


def _due(timeline: Timeline, seconds: int) -> list[float]:
    """Return the messages due in each of the first seconds of a timeline."""
    due = [0.0] * seconds
    for segment in timeline.segments():
        if segment.begin >= seconds:
            break
        end = min(segment.begin + segment.seconds, timeline.seconds, seconds)
        for second in range(math.floor(segment.begin), math.ceil(end)):
            due[second] += _between(segment, max(second, segment.begin), min(second + 1, end))
    return due


def _between(segment: Segment, begin: float, end: float) -> float:
    """Return the integral of a segment's level between two instants in it."""
    slope = 0.0
    if segment.first != segment.last:
        slope = (segment.last - segment.first) / segment.seconds
    middle = (begin + end) / 2 - segment.begin
    return (segment.first + slope * middle) * (end - begin)


def _up_to(messages: int, due: Sequence[float]) -> list[float]:
    """Return what is due in each second if no more than these messages are sent in all."""
    limited = []
    left = float(messages)
    for number in due:
        limited.append(min(number, left))
        left -= limited[-1]
    return limited
