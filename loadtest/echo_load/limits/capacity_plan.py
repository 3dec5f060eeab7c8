"""The plan of a search for a capacity, and the plans of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from echo_core.errors import InvalidValueError
from echo_core.units import LONGEST_SECONDS, format_byte_rate, format_duration, parse_percentage
from echo_load.limits.search import Range
from echo_load.plan import fields
from echo_load.plan.bandwidth import Bandwidth, mean_size
from echo_load.plan.bounds import HIGHEST_RATE, LONGEST_TEST, MOST_CONNECTIONS, MOST_REPEATS
from echo_load.plan.converters import load
from echo_load.plan.fields import Count, Duration, Rate, optional
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import Threshold

# Messages beyond a percentile, or failures, that make a percentile or a share significant.
_LEAST_BEYOND = 10
_LEAST_MESSAGES = 1000
_LEAST_SECONDS, _MOST_SECONDS = 4.0, 30.0
# Metrics of which every message has a value.
_OF_MESSAGES = ("response.p", "service.p")
# A step is stopped early if a response time exceeds its limit by this factor and these seconds.
_CLEAR_FACTOR, _CLEAR_SECONDS = 5.0, 0.1
_DEFAULT_SLO = ("p99<10ms",)
# Connections that a generator opens at once in a search for their number.
_CONNECTS_IN_FLIGHT = 256
_LEAST_PRECISION, _MOST_PRECISION = 0.001, 0.5


_LEVELS = ("start", "lowest", "highest", "at_least")


def _level(name: str, value: object) -> float | Bandwidth:
    """Convert a level to a number, or leave it a bandwidth until the size is known."""
    level = load(name, value)
    return level if isinstance(level, Bandwidth) else fields.positive_rate(name, level)


@dataclass(frozen=True, kw_only=True, init=False, repr=False)
class CapacityPlan:
    """A plan for finding the capacity of a target. Values may be texts, as in a `Plan`.

    Rates may be bandwidths such as `"10MB/s"`, which the mean size of the plan's messages converts;
    the answer is then a bandwidth, too.

    Attributes:
        plan: the test of a step. Its `thresholds` are the SLO; if it has none, that is `p99<10ms`,
            or no error in a search for connections. Its rate, or its number of connections, and
            its duration and repeats are replaced by those of the step. It cannot have `stages`,
            `messages` or `abort_on`: a search stops a step by itself when it has clearly failed.
        start: first rate, or number of connections, to try; None for 1000, or 100 connections.
        lowest: lowest one to try; None for 10 or a lower `start`, or for 1 connection.
        highest: highest one to try; None for the highest that a plan supports.
        precision: relative distance between the answer and a level that failed, at which the search
            ends (0.05 is 5 %).
        cycle: interval in seconds at which each connection is probed, to search for the number of
            connections; None to search for the rate.
        duration: duration of a step in seconds; None for as long as the SLO's percentiles need, or
            two cycles.
        repeat: number of repeats of the step that confirms the answer.
        at_least: required rate or number of connections, which is tried itself unless the answer
            is higher; None for none.

    Raises:
        InvalidValueError: a field is out of its range, or fields contradict each other.
    """

    plan: Plan
    start: float | None = None
    lowest: float | None = None
    highest: float | None = None
    precision: float = 0.05
    cycle: float | None = None
    duration: float | None = None
    repeat: int = 3
    at_least: float | None = None

    @fields.by_name(
        {
            "plan": fields.instance_of(Plan),
            "start": optional(_level),
            "lowest": optional(_level),
            "highest": optional(_level),
            "precision": fields.share(parse_percentage),
            "cycle": optional(fields.positive_seconds),
            "duration": optional(fields.positive_seconds),
            "repeat": fields.whole,
            "at_least": optional(_level),
        }
    )
    def __init__(
        self,
        *,
        plan: Plan,
        start: Rate | None = None,
        lowest: Rate | None = None,
        highest: Rate | None = None,
        precision: float | str = 0.05,
        cycle: Duration | None = None,
        duration: Duration | None = None,
        repeat: Count = 3,
        at_least: Rate | None = None,
    ) -> None: ...

    def __repr__(self) -> str:
        """Return the plan as Python would write it, without fields that have their defaults."""
        return fields.written(self)

    def __post_init__(self) -> None:
        self._convert_bandwidths()
        if self.cycle is not None:
            for name in _LEVELS:
                if (level := getattr(self, name)) is not None and level % 1:
                    raise InvalidValueError(
                        f"`{name}` {level:,.10g} is not a whole number of connections"
                    )
        self._check_durations()
        self._check_levels()
        if not _LEAST_PRECISION <= self.precision <= _MOST_PRECISION:
            raise InvalidValueError(f"`precision` {self.precision} is not between 0.001 and 0.5")
        if not 1 <= self.repeat <= MOST_REPEATS:
            raise InvalidValueError(f"`repeat` {self.repeat} is not between 1 and {MOST_REPEATS}")
        for name in ("stages", "messages", "abort_on"):
            if getattr(self.plan, name):
                raise InvalidValueError(f"`{name}` cannot be given in the plan of a search")
        if not self.plan.thresholds and self.cycle is None:
            # The dataclass is frozen.
            object.__setattr__(self, "plan", replace(self.plan, thresholds=_DEFAULT_SLO))

    def _convert_bandwidths(self) -> None:
        """Convert levels in bytes per second by the mean size of the messages."""
        for name in _LEVELS:
            level: object = getattr(self, name)
            if not isinstance(level, Bandwidth):
                continue
            if self.cycle is not None:
                raise InvalidValueError(
                    f"`{name}` cannot be in bytes per second: it is a number of connections"
                )
            plan = self.plan
            size = plan.bytes_per_message or mean_size(
                payload_size=plan.payload_size,
                payload_file=plan.payload_file,
                message=plan.message,
                hello=plan.hello,
            )
            rate = level.bytes_per_second / size
            # The dataclass is frozen. The rate of the plan is replaced by that of each step.
            object.__setattr__(self, name, fields.positive_rate(name, rate))
            by_bytes = replace(plan, rate=plan.rate or rate, bytes_per_message=size)
            object.__setattr__(self, "plan", by_bytes)

    def _check_durations(self) -> None:
        if self.cycle is not None and self.cycle > LONGEST_SECONDS:
            raise InvalidValueError(f"`cycle` {self.cycle:g} is longer than a week (168h)")
        if self.duration is not None and self.duration > LONGEST_TEST:
            raise InvalidValueError(
                f"`duration`: {self.duration:g} seconds are longer than ten years"
            )

    def _check_levels(self) -> None:
        """Check the levels of the search, in its own unit: a bandwidth, a rate or a number."""
        within = self.within
        for name in _LEVELS:
            level = getattr(self, name)
            if level is not None and level > self._most:
                raise InvalidValueError(
                    f"`{name}` {self._written(level)} is above {self._most:,.0f}, the most that "
                    "can be tried"
                )
        if within.lowest > within.highest:
            raise InvalidValueError(
                f"`lowest` {self._written(within.lowest)} is above `highest` "
                f"{self._written(within.highest)}"
            )
        if self.start is not None and self.start > within.highest:
            raise InvalidValueError(
                f"`start` {self._written(self.start)} is above `highest` "
                f"{self._written(within.highest)}; lower `start`, or raise `highest`"
            )
        if self.start is not None and self.start < within.lowest:
            raise InvalidValueError(
                f"`start` {self._written(self.start)} is below `lowest` "
                f"{self._written(within.lowest)}; raise `start`, or lower `lowest`"
            )
        if self.at_least is not None and self.at_least > within.highest:
            raise InvalidValueError(
                f"`at_least` {self._written(self.at_least)} is above `highest` "
                f"{self._written(within.highest)}; raise `highest`"
            )

    def _written(self, level: float) -> str:
        size = self.plan.bytes_per_message
        if size is None or self.cycle is not None:
            return f"{level:,.10g}"
        return f"{format_byte_rate(level * size)} ({level:,.10g} msg/s)"

    @property
    def _most(self) -> float:
        """The highest level that a plan supports."""
        return float(HIGHEST_RATE if self.cycle is None else MOST_CONNECTIONS)

    @property
    def within(self) -> Range:
        """The rates, or numbers of connections, to search."""
        is_rate = self.cycle is None
        start = self.start or (1000.0 if is_rate else 100.0)
        return Range(
            start=start,
            lowest=self.lowest or min(start, 10.0 if is_rate else 1.0),
            highest=self.highest or self._most,
            precision=self.precision,
            whole=not is_rate,
            required=self.at_least,
        )

    def probes_per_second(self, connections: float) -> float:
        """Return the rate at which connections are probed in a search for their number."""
        # Without digits that nobody reads.
        return float(f"{connections / (self.cycle or 1.0):.4g}")

    def shortage(self, level: float) -> str | None:
        """Return that a step at a level has too few messages for its SLO; None if it has enough.

        Args:
            level: its rate, or its number of connections.
        """
        plan = self.step(level, confirm=False)
        limits = [Threshold.parse(text) for text in plan.thresholds]
        counted = [
            one
            for one in limits
            if one.metric.startswith(_OF_MESSAGES) or (one.kind == "share" and one.limit)
        ]
        if not counted or plan.rate is None or plan.duration is None:
            return None
        limit = max(counted, key=_messages_for)
        needed, sent = round(_messages_for(limit)), round(plan.rate * plan.duration)
        if sent >= needed:
            return None
        enough = format_duration(math.ceil(needed / plan.rate))
        return (
            f"a step of {format_duration(plan.duration)} at this level has {sent:,} messages, but "
            f"{limit.metric.removeprefix('response.')} needs {needed:,}; give --duration {enough}"
        )

    def step(self, level: float, *, confirm: bool) -> Plan:
        """Return the plan of a step.

        Args:
            level: its rate, or its number of connections.
            confirm: whether it is to confirm the answer.
        """
        repeat = self.repeat if confirm else 1
        if self.cycle is not None:
            return replace(
                self.plan,
                connections=int(level),
                rate=self.probes_per_second(level),
                duration=self.duration or 2 * self.cycle,
                repeat=repeat,
                connects_in_flight=_CONNECTS_IN_FLIGHT,
                reconnect=False,
            )
        limits = [Threshold.parse(text) for text in self.plan.thresholds]
        return replace(
            self.plan,
            rate=level,
            duration=self.duration or seconds_for(limits, level),
            repeat=repeat,
            abort_on=() if confirm else tuple(_clear_failures(limits)),
        )


def seconds_for(limits: list[Threshold], rate: float) -> float:
    """Return the duration in seconds that makes the figures of a step at a rate significant.

    A percentile needs ten messages beyond it (10,000 messages for p99.9), a share of errors ten
    errors; the result is between 4 and 30 seconds.
    """
    needed = max([_LEAST_MESSAGES, *map(_messages_for, limits)])
    return min(_MOST_SECONDS, max(_LEAST_SECONDS, needed / rate))


def _messages_for(limit: Threshold) -> float:
    """Return the number of messages that a threshold needs; 0 if any number is enough."""
    _, _, figure = limit.metric.partition(".")
    if limit.kind == "time" and figure not in {"mean", "max"}:
        beyond = 1 - float(figure[1:]) / 100
    elif limit.kind == "share":
        beyond = limit.limit or parse_percentage("1%")
    else:
        return 0.0
    return _LEAST_BEYOND / beyond if beyond > 1e-9 else 0.0


def _clear_failures(limits: list[Threshold]) -> list[str]:
    """Return thresholds that abort a step when it has clearly failed."""
    found = []
    for limit in limits:
        if limit.kind == "time" and limit.relation[0] == "<" and not limit.metric.endswith(".max"):
            clearly = max(limit.limit * _CLEAR_FACTOR, limit.limit + _CLEAR_SECONDS)
            found.append(f"{limit.metric}{limit.scope}<{math.ceil(clearly * 1e6)}us")
    return found
