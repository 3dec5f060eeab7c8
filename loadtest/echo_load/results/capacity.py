"""The capacity of a target: the highest rate, or the most connections, that it sustains."""

from __future__ import annotations

from typing import Literal

import msgspec

from echo_core.units import format_bandwidth
from echo_load.plan.thresholds import ThresholdResult
from echo_load.results.short import shortened

Bound = Literal["slo", "refused", "generator", "range", "interrupted"]
_UNTESTED = "the target could not be tested: the generator was the limit"


def written_level(level: float) -> str:
    """Return a level without a unit: `1,250`, or four digits below 1000, as a search tries them."""
    return f"{level:,.0f}" if level >= 1000 else f"{level:.4g}"


class CapacityStep(msgspec.Struct, frozen=True, kw_only=True):
    """A test at one rate or number of connections.

    Attributes:
        phase: `search`, or `confirm` for one that repeats the answer to confirm it.
        rate: messages per second that were due.
        connections: number of connections.
        achieved: completed round trips per second.
        seconds: time in which messages could be sent, over all repeats.
        messages: completed round trips.
        p50_us: median of the response time in microseconds; 0 without a round trip, as are the
            following ones.
        p90_us: 90th percentile of the response time.
        p99_us: 99th percentile.
        p99_9_us: 99.9th percentile.
        max_us: longest response time.
        errors: number of failures by kind.
        slo: each condition of the SLO, and its measured value.
        kept: whether the SLO was kept, without failures that it does not allow.
        generator_bound: whether the generator was the bottleneck, or its delays distorted the
            measurements.
        why: reason for which the SLO was not kept; None if it was.
    """

    phase: Literal["search", "confirm"]
    rate: float
    connections: int
    achieved: float
    seconds: float
    messages: int
    p50_us: float
    p90_us: float
    p99_us: float
    p99_9_us: float
    max_us: float
    errors: dict[str, int]
    slo: list[ThresholdResult]
    kept: bool
    generator_bound: bool
    why: str | None


class CapacityResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `echo-load capacity`, and the steps that led to it.

    Attributes:
        asked: quantity that was searched for: the highest `rate`, or the most `connections`.
        rate: highest rate at which the SLO was kept, in messages per second; None if there is none.
            In a search for the number of connections, the rate at which they were probed.
        connections: number of connections; in a search for it, the largest one that could be held,
            or None if there is none.
        failed_at: lowest rate, or number of connections, above the answer at which the SLO was not
            kept; None if there is none. The true limit is between the answer and this.
        bound: cause of the limit: `slo` if the target became too slow or returned wrong replies;
            `refused` if it refused or closed connections; `generator` if this machine could not
            do more, so that the target's limit is higher; `range` if the SLO was kept at the
            highest rate to try; `interrupted` if the search was stopped.
        confirmed: whether the answer was confirmed by repeats.
        precision: requested relative distance between the answer and `failed_at`, or less.
        at_least: required rate or number of connections; None for none.
        why: reason for which the SLO was not kept at `failed_at`; None if there is no `failed_at`.
        advice: what to raise for a higher answer, if the target was not the limit; otherwise None.
        steps: all steps, in the order in which they were tried.
        bytes_per_message: as in the plan; not None if a rate of the search was given in bytes or
            bits per second.
        note: what makes the answer less certain: steps with too few messages for their
            percentile; None if they had enough.
    """

    asked: Literal["rate", "connections"]
    rate: float | None
    connections: int | None
    failed_at: float | None
    bound: Bound
    confirmed: bool
    precision: float
    at_least: float | None
    why: str | None
    advice: str | None
    steps: list[CapacityStep]
    bytes_per_message: float | None = None
    note: str | None = None

    def __repr__(self) -> str:
        """Return the answer in one line."""
        return shortened(f"CapacityResult: {self.answer}")

    @property
    def level(self) -> float | None:
        """The answer: a rate or a number of connections; None if there is none."""
        return self.rate if self.asked == "rate" else self.connections

    @property
    def interval(self) -> tuple[float, float | None]:
        """Lower and upper bound of the target's capacity; no upper one if it was not reached."""
        reached = self.bound in {"slo", "refused"}
        return self.level or 0.0, self.failed_at if reached else None

    def level_of(self, step: CapacityStep) -> float:
        """Return the rate of a step, or its number of connections if that was searched for."""
        return step.rate if self.asked == "rate" else step.connections

    @property
    def is_short(self) -> bool:
        """True if the answer is lower than required."""
        return self.at_least is not None and (self.level or 0.0) < self.at_least

    @property
    def is_undecided(self) -> bool:
        """True if the generator was the limit at all levels, or before the required one."""
        return self.bound == "generator" and (self.level is None or self.is_short)

    @property
    def shortfall(self) -> str | None:
        """The reason for which any, or the required, level is not known to be kept, or None."""
        if self.at_least is None:
            return _UNTESTED if self.is_undecided else None
        if not self.is_short:
            return None
        required = f"--at-least {self.written(self.at_least)}"
        if self.is_undecided:
            return f"{required} could not be tested: the generator was the limit"
        return f"{required} was not reached"

    def written(self, level: float) -> str:
        """Return a level with its unit: `4,230 msg/s`, `10,000 connections`.

        A search that was given bandwidths has levels such as `64 kB/s (512 kbit/s), 1,000 msg/s`.
        """
        if self.asked == "rate" and self.bytes_per_message is not None:
            bandwidth = format_bandwidth(level * self.bytes_per_message)
            return f"{bandwidth}, {written_level(level)} msg/s"
        return f"{written_level(level)} {'msg/s' if self.asked == 'rate' else 'connections'}"

    @property
    def answer(self) -> str:
        """The answer in one sentence, without a full stop."""
        if self.level is None:
            return self._without_answer()
        found = self.written(self.level)
        beyond = ""
        if self.failed_at is not None:
            beyond = f"; at {self.written(self.failed_at)}: {self.why}"
        advice = f"; {self.advice}" if self.advice else ""
        match self.bound:
            case "interrupted":
                return f"interrupted: at least {found}{beyond}"
            case "generator":
                return f"at least {found}, the limit of the generator{beyond}{advice}"
            case "range":
                return f"at least {found}, the highest that was to be tried{advice}"
            case _:
                return f"capacity {found}{beyond}"

    def _without_answer(self) -> str:
        if self.failed_at is None:
            return "interrupted before the first step had ended"
        failed = f"{self.written(self.failed_at)}: {self.why}"
        if self.bound == "interrupted":
            return f"interrupted: less than {failed}"
        advice = f"; {self.advice}" if self.advice else ""
        return f"no answer: not kept even at {failed}{advice}"
