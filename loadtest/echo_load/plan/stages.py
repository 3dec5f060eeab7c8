"""Stages: periods in which the number of connections, or a rate, is constant or changes."""

from __future__ import annotations

import math
import re

import msgspec

from echo_core.errors import InvalidValueError
from echo_core.units import parse_count, parse_duration, parse_rate

_STAGE = re.compile(r"([^/-]+)(?:-([^/-]+))?/([^/]+)")


class StagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A period in which the number of connections, or the rate, is constant or changes linearly.

    Attributes:
        first: level at its beginning: a number of connections, or messages per second.
        last: level at its end.
        duration: its length in seconds; None for no end.

    Raises:
        InvalidValueError: a level is negative or infinite, or the duration is not above 0 and
            finite.
    """

    first: float
    last: float
    duration: float | None

    def __post_init__(self) -> None:
        if not (0 <= self.first < math.inf and 0 <= self.last < math.inf):
            raise InvalidValueError(f"a stage cannot go from {self.first} to {self.last}")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise InvalidValueError(f"a stage cannot last {self.duration} seconds")

    @property
    def highest(self) -> float:
        """The higher of the two levels."""
        return max(self.first, self.last)

    @property
    def levels(self) -> str:
        """The levels as text: `100`, `0-1,000`."""
        if self.first != self.last:
            return f"{self.first:,.10g}-{self.last:,.10g}"
        return f"{self.last:,.10g}"


def parse_stages(text: str, *, rates: bool) -> tuple[StagePlan, ...]:
    """Parse stages such as `0-100/10s,100/30s`: levels or ramps, each with its duration.

    Args:
        text: one or more stages, separated by commas.
        rates: whether the levels are messages per second, which need not be whole numbers.

    Raises:
        InvalidValueError: the text is not of that form, or all levels are 0.
    """
    parse = parse_rate if rates else parse_count
    stages = []
    for part in text.split(","):
        match = _STAGE.fullmatch(part.strip())
        if match is None:
            raise InvalidValueError(
                f"{part.strip()!r} is not a stage; write it as in 100/30s or 0-100/10s"
            )
        first, last, duration = match.groups()
        try:
            seconds = parse_duration(duration)
            low = parse(first)
            high = parse(last) if last is not None else low
        except InvalidValueError as error:
            raise InvalidValueError(f"stage {part.strip()!r}: {error}") from error
        if not seconds:
            raise InvalidValueError(
                f"stage {part.strip()!r} has a duration of 0; write it as in 100/30s"
            )
        stages.append(StagePlan(first=low, last=high, duration=seconds))
    if not any(stage.highest for stage in stages):
        raise InvalidValueError(f"{text!r}: all stages are 0; at least one must be above 0")
    return tuple(stages)
