"""Stages: periods in which the number of connections, or a rate, is constant or changes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from echo_core.errors import InvalidValueError
from echo_core.units import parse_bandwidth, parse_count, parse_duration, parse_rate
from echo_load.plan import fields
from echo_load.plan.bandwidth import is_bandwidth
from echo_load.plan.fields import Duration, Rate

# The levels may be bandwidths with a /s of their own: 10MB/s-100MB/s/30s.
_STAGE = re.compile(r"([^/-]+)(?:(?<=[Bbts])/s)?(?:-([^/-]+)(?:(?<=[Bbts])/s)?)?/([^/]+)")


@dataclass(frozen=True, kw_only=True, init=False)
class StagePlan:
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

    @fields.by_name(
        {"first": fields.rate, "last": fields.rate, "duration": fields.optional(fields.seconds)}
    )
    def __init__(self, *, first: Rate, last: Rate, duration: Duration | None) -> None: ...

    def __post_init__(self) -> None:
        if not (0 <= self.first < math.inf and 0 <= self.last < math.inf):
            raise InvalidValueError(
                f"`first` and `last`: a stage cannot go from {self.first} to {self.last}"
            )
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise InvalidValueError(f"`duration`: a stage cannot last {self.duration} seconds")

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


def parse_stages(
    text: str, *, rates: bool, bytes_per_message: float | None = None
) -> tuple[StagePlan, ...]:
    """Parse stages such as `0-100/10s,100/30s`: levels or ramps, each with its duration.

    Args:
        text: one or more stages, separated by commas.
        rates: whether the levels are messages per second, which need not be whole numbers.
        bytes_per_message: mean size of the messages, by which rates such as `10MB-100MB/10s` are
            converted; None to refuse them.

    Raises:
        InvalidValueError: the text is not of that form, or all levels are 0.
    """
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
            if rates and is_bandwidth(part):
                low, high = _bandwidths((first, last or first), bytes_per_message)
            else:
                low, high = map(parse_rate if rates else parse_count, (first, last or first))
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


def _bandwidths(levels: tuple[str, str], bytes_per_message: float | None) -> Iterator[float]:
    """Yield levels, given in bytes or bits per second, in messages per second."""
    if bytes_per_message is None:
        raise InvalidValueError(
            f"{levels[1]!r} is a bandwidth, which needs `bytes_per_message` to be converted"
        )
    for level in levels:
        if parse_bandwidth(level, unit="B") and not is_bandwidth(level):
            raise InvalidValueError(
                f"{level!r} has no unit, but the other level has one; write it as in 10MB-100MB"
            )
        yield parse_bandwidth(level, unit="B") / bytes_per_message


# Stages as text, as a stage, or several of both.
Stages = str | StagePlan | Sequence[str | StagePlan]


def as_stages(name: str, value: object) -> tuple[StagePlan, ...]:
    """Convert stages, or texts such as `0-100/10s,100/30s`, to a tuple; the converter of a field.

    Raises:
        InvalidValueError: the value is neither, or a text is not of that form.
    """
    if isinstance(value, str):
        # The plan knows whether levels have to be whole numbers.
        stages: tuple[StagePlan, ...] = fields.parsed(
            name, value, lambda text: parse_stages(text, rates=True)
        )
        return stages
    if isinstance(value, StagePlan):
        return (value,)
    if not isinstance(value, list | tuple):
        raise fields.wrong(name, value, "a text such as 0-100/10s,100/30s, or a list of stages")
    for one in value:
        if not isinstance(one, str | StagePlan):
            raise InvalidValueError(
                f"`{name}` has an item of type {type(one).__name__}; give texts and StagePlans only"
            )
    return tuple(stage for one in value for stage in as_stages(name, one))
