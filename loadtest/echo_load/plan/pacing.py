"""The periods in which connections are open and the instants at which messages are due.

Unless stated otherwise, times are in seconds since the first stage began.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import Any, Literal

import numpy as np

from echo_load.plan.bounds import LONGEST_TEST
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan

Seconds = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

# Number of instants computed at once: few enough not to delay a message, enough to amortize the
# overhead of numpy.
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Segment:
    """A stage in one round of a timeline: its level is constant or changes linearly.

    Attributes:
        begin: instant at which it begins.
        seconds: length in seconds; may be infinite if the level is constant.
        first: level at its beginning.
        last: level at its end.
    """

    begin: float
    seconds: float
    first: float
    last: float

    @property
    def total(self) -> float:
        """The integral of the level over the segment."""
        return (self.first + self.last) / 2 * self.seconds if self.last or self.first else 0.0

    def instants_of(self, totals: Seconds) -> Seconds:
        """Return the instants at which the integral of the level reaches these totals."""
        slope = 0.0 if self.first == self.last else (self.last - self.first) / self.seconds
        root = np.sqrt(np.maximum(self.first**2 + 2 * slope * totals, 0.0))
        divisor = self.first + root
        seconds = np.divide(2 * totals, divisor, out=np.zeros_like(totals), where=divisor > 0)
        return self.begin + seconds


class Timeline:
    """Stages that follow one another, with their beginnings and ends.

    Args:
        stages: the stages of a plan, or of a part of it.
        loop: whether the first stage follows the last one.
        seconds: end of the timeline; infinite if it has none.

    Attributes:
        seconds: end of the timeline.
    """

    def __init__(self, stages: tuple[StagePlan, ...], *, loop: bool, seconds: float) -> None:
        durations = [math.inf if one.duration is None else one.duration for one in stages]
        self.seconds = seconds
        self._stages = stages
        self._loop = loop
        self._ends = list(accumulate(durations))

    @classmethod
    def of(cls, plan: Plan, stages: tuple[StagePlan, ...]) -> Timeline:
        """Return the timeline of some stages of a plan that share their connections."""
        seconds = plan.seconds
        if plan.reopen:
            seconds = sum(stage.duration or math.inf for stage in stages)
        return cls(stages, loop=plan.loop, seconds=math.inf if seconds is None else seconds)

    @property
    def round_seconds(self) -> float:
        """The length of all stages together in seconds; may be infinite."""
        return self._ends[-1]

    def stages_at(self, instants: Seconds) -> Indices:
        """Return the index of the stage at each instant; -1 before the first, the last after it."""
        within = instants
        if self._loop:
            # No further round begins at the end, when the last messages are sent or answered.
            within = np.minimum(instants, math.nextafter(self.seconds, 0)) % self.round_seconds
        found = np.searchsorted(self._ends, within, side="right")
        stages: Indices = np.minimum(found, len(self._stages) - 1)
        stages[instants < 0] = -1
        return stages

    def stage_at(self, instant: float) -> int:
        """Return the index of the stage at an instant; -1 before the first, the last after it."""
        return int(self.stages_at(np.array([instant]))[0])

    def segments_begun(self, instant: float) -> int:
        """Return the number of segments that have begun by an instant, which is before the end."""
        rounds, within = divmod(instant, self.round_seconds) if self._loop else (0.0, instant)
        ended = int(np.searchsorted(self._ends, within, side="right"))
        return int(rounds) * len(self._stages) + min(ended, len(self._stages) - 1) + 1

    def segments(self) -> Iterator[Segment]:
        """Yield the segments in order; endlessly if the timeline has no end."""
        begin = 0.0
        for stage in cycle(self._stages) if self._loop else self._stages:
            seconds = math.inf if stage.duration is None else stage.duration
            if begin >= self.seconds:
                return
            yield Segment(begin, seconds, stage.first, stage.last)
            begin += seconds

    def lifetimes(self, number: int) -> Iterator[tuple[float, float]]:
        """Yield the periods in which a connection is open; the levels are numbers of connections.

        Connection 7 is open while the level is 7 or more.

        Args:
            number: number of the connection, from 1.

        Yields:
            Beginning and end of each period; the beginning is minus infinity if the connection is
            open from the start.
        """
        opened: float | None = None
        # A connection that is always open has one period, which an endless loop would never yield.
        always = all(min(stage.first, stage.last) >= number for stage in self._stages)
        for at_first, segment in enumerate(islice(self.segments(), 1 if always else None)):
            if opened is None and segment.first >= number:
                opened = -math.inf if at_first == 0 else segment.begin
            elif opened is not None and segment.first < number:
                yield opened, segment.begin
                opened = None
            if (segment.first >= number) != (segment.last >= number):
                share = (number - segment.first) / (segment.last - segment.first)
                crossing = segment.begin + share * segment.seconds
                if opened is None:
                    opened = crossing
                else:
                    yield opened, crossing
                    opened = None
        if opened is not None:
            yield opened, math.inf


class Schedule:
    """An iterator over the instants at which one generator's messages are due, in nanoseconds.

    The levels of the timeline are messages per second of all generators together. A message is due
    when the integral of the rate reaches the next whole number (constant intervals), or the next
    arrival of a Poisson process of rate 1 (W. Feller, An Introduction to Probability Theory, volume
    1, chapter XVII). At constant intervals the connections of all generators take turns.

    Args:
        timeline: rates over time.
        arrivals: constant intervals, or a Poisson process.
        turns: turns of this generator in each round of turns, one for each of its connections.
        of: number of turns in a round, one for each connection of all generators.
        seed: seed of the random intervals.
        messages: largest number of messages; None for no limit.
    """

    def __init__(
        self,
        timeline: Timeline,
        arrivals: Literal["constant", "poisson"],
        *,
        turns: range,
        of: int,
        seed: int,
        messages: int | None = None,
    ) -> None:
        self._timeline = timeline
        self._turns = turns
        self._of = of
        self._left = math.inf if messages is None else messages
        self._first = float(turns.start)
        self._random = None
        if turns and arrivals == "poisson":
            self._random = np.random.default_rng((seed, turns.start))
            self._first = float(self._random.exponential(self._mean_gap))
        self._later: Iterator[Seconds] = self._blocks() if turns else iter(())
        # A block of instants, and the index of the next one.
        self._now: list[int] = []
        self._next = 0

    def __iter__(self) -> Iterator[int]:
        """Return the schedule itself."""
        return self

    def __next__(self) -> int:
        """Return the next instant, in nanoseconds."""
        index = self._next
        if index == len(self._now):
            # The end of a block may be centuries ahead, which an integer cannot hold.
            instants = np.minimum(next(self._later), LONGEST_TEST)
            self._now = (instants * 1e9).astype(np.int64).tolist()
            index = 0
        self._next = index + 1
        return self._now[index]

    def count_until(self, until_ns: int) -> int:
        """Count the next instants up to `until_ns`, among those computed already."""
        return bisect_right(self._now, until_ns, self._next) - self._next

    def take(self, count: int) -> list[int]:
        """Return the next instants, at most as many as `count_until` returned."""
        taken = self._now[self._next : self._next + count]
        self._next += count
        return taken

    @property
    def through(self) -> bool:
        """True if the limit of messages was reached; only valid once the iteration has ended."""
        return self._left <= 0

    def rest(self, until_ns: int) -> int:
        """End the iteration; return the number of remaining instants before `until_ns`."""
        left = bisect_left(self._now, until_ns, self._next) - self._next
        for block in self._later:
            before = int(np.searchsorted(block, until_ns / 1e9))
            left += before
            if before < len(block):
                break
        self._now, self._next, self._later = [], 0, iter(())
        return left

    def _blocks(self) -> Iterator[Seconds]:
        """Yield the instants in seconds, in blocks."""
        for block in self._unlimited_blocks():
            if self._left <= 0:
                return
            limited = block if len(block) <= self._left else block[: int(self._left)]
            self._left -= len(limited)
            if len(limited):
                yield limited

    def _unlimited_blocks(self) -> Iterator[Seconds]:
        """Yield the instants in blocks, regardless of the limit of messages."""
        position, before = self._first, 0.0
        for segment in self._timeline.segments():
            after = before + segment.total
            while position < after:
                positions = self._positions(position)
                inside = positions[positions < after]
                # The first position after the block begins the next one. Random positions beyond
                # that one are drawn again, which does not change their distribution.
                position = float(positions[min(len(inside), _BLOCK)])
                block = segment.instants_of(inside[:_BLOCK] - before)
                if block[-1] >= self._timeline.seconds:
                    yield block[block < self._timeline.seconds]
                    return
                yield block
            before = after

    @property
    def _mean_gap(self) -> float:
        """The mean number of turns between two messages of this generator."""
        return self._of / len(self._turns)

    def _positions(self, first: float) -> Seconds:
        """Return the next positions: the integrals of the rate at which messages are due.

        Args:
            first: the first of them.
        """
        if self._random is None:
            rounds, turn = divmod(int(first), self._of)
            number = rounds * len(self._turns) + self._turns.index(turn)
            rounds_of, numbers_of = divmod(
                np.arange(number, number + _BLOCK + 1, dtype=np.int64), len(self._turns)
            )
            positions = rounds_of * self._of + self._turns.start + numbers_of * self._turns.step
            return positions.astype(np.float64)
        gaps = self._random.exponential(self._mean_gap, _BLOCK)
        return first + np.concatenate(([0.0], np.cumsum(gaps)))
