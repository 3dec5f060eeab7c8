"""Thresholds: conditions on the figures of a test."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from echo_client.failure_kinds import LOSSES
from echo_core.errors import InvalidValueError
from echo_core.units import (
    format_bandwidth,
    parse_bandwidth,
    parse_count,
    parse_duration,
    parse_percentage,
    parse_rate,
)
from echo_load.measure.names import DISTRIBUTIONS
from echo_load.plan.scope import WHOLE_TEST, Scope

if TYPE_CHECKING:
    # Importing a plan should not import numpy.
    from echo_load.measure.histogram import LatencyHistogram

Kind = Literal["time", "share", "count", "rate", "byte_rate", "bit_rate"]

_SHARES = ("errors", "loss")
_COUNTS = (
    "messages",
    "connections_opened",
    "connections_failed",
    "connections_lost",
    "retransmits",
    "loss_burst",
)
_RATES: dict[str, Kind] = {
    "messages_per_second": "rate",
    "bytes_per_second": "byte_rate",
    "bits_per_second": "bit_rate",
}
_TIMES = ("jitter",)
# Figures that exist over these transports only.
_MEASURED_OVER = {
    "retransmits": ("tcp", "tls"),
    "kernel": ("tcp", "tls"),
    "handshake": ("tls",),
    "jitter": ("udp",),
    "loss_burst": ("udp",),
}
_HIGHER_IS_BETTER = frozenset({"messages", "connections_opened", *_RATES})

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_OPPOSITES = {"<": ">=", ">": "<=", "<=": ">", ">=": "<"}
_FORM = re.compile(
    r"\s*([A-Za-z_][\w.]*)\s*(?:\{\s*(.*?)\s*\}\s*)?(<=|>=|==|<|>)\s*(\S.*?)\s*", re.ASCII
)
_PERCENTILE = re.compile(r"p(\d{1,3}(?:[._]\d{1,6})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a running or a complete test, or of a stage, to which thresholds apply.

    Attributes:
        seconds: duration of the test or the stage so far.
        latencies: latency distributions, by their names in a result.
        counts: `messages`, `bytes_received`, `connections_opened`, `connections_failed`,
            `connections_lost`, `retransmits` and `loss_burst`; None for a count that was not
            measured.
        errors: number of failures by kind.
        attempts: denominator of error shares: completed round trips, and failures without one.
        jitter_us: jitter over UDP in microseconds; None if it was not measured.
    """

    seconds: float
    latencies: Mapping[str, LatencyHistogram]
    counts: Mapping[str, int | None]
    errors: Mapping[str, int]
    attempts: int
    jitter_us: float | None = None


class ThresholdResult(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold, the measured value, and whether the threshold was kept.

    Attributes:
        threshold: the condition as it was given. With `aborts` it may be the opposite: the
            condition on which the test stops (`p99>5ms`).
        aborts: whether crossing it ends the test at once.
        kind: unit of the value: `time` in seconds, `share` between 0 and 1, `count`, `rate` per
            second, `byte_rate` in bytes or `bit_rate` in bits per second.
        value: measured value; None if nothing was measured, in which case the threshold was not
            kept.
        passed: whether the threshold was kept.
        target: URL of the only target that it applies to; None for all.
        stage: number of the only stage that it applies to, from 1; None for all.
    """

    threshold: str
    aborts: bool
    kind: Kind
    value: float | None
    passed: bool
    target: str | None = None
    stage: int | None = None

    @property
    def name(self) -> str:
        """The condition as shown to users, with `--abort-on` in front if it aborts."""
        return f"--abort-on {self.threshold}" if self.aborts else self.threshold

    @property
    def crossed(self) -> str:
        """The reason for which a test did not pass, given that the threshold was crossed."""
        return self.name if self.aborts else f"{self.name} was crossed"

    @property
    def measured(self) -> str:
        """The measured value as text, with its unit."""
        if self.value is None:
            return "nothing was measured"
        if self.kind == "time":
            return written_time(self.value)
        if self.kind == "share":
            return f"{self.value * 100:.4g} %"
        if self.kind == "rate":
            return f"{written_rate(self.value)} a second"
        if self.kind in {"byte_rate", "bit_rate"}:
            return format_bandwidth(self.value / (8 if self.kind == "bit_rate" else 1))
        return f"{self.value:,.0f}"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition on one figure of a test, such as `p99<5ms`.

    Attributes:
        text: the condition as it was given.
        metric: name of the figure, such as `response.p99`.
        kind: unit of the limit: `time` in seconds, `share` between 0 and 1, `count`, `rate` per
            second, `byte_rate` in bytes or `bit_rate` in bits per second.
        relation: required relation of the figure to the limit: `<`, `<=`, `>`, `>=` or `==`.
        limit: the limit, in that unit.
        aborts: whether crossing it ends the test at once.
        scope: part of the test whose figure it is.
    """

    text: str
    metric: str
    kind: Kind
    relation: str
    limit: float
    aborts: bool = False
    scope: Scope = WHOLE_TEST

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Parse `p99<5ms`, `service.p99.9<=2ms`, `errors<0.1%` or `messages_per_second>10k`.

        Braces limit the condition to a target, a stage or both: `p99{tcp://10.0.0.7:50007}<5ms`,
        `p99{stage=2}<5ms`, `p99{stage=2,tcp://10.0.0.7:50007}<5ms`.

        Raises:
            InvalidValueError: the text is not a threshold.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise InvalidValueError(
                f"{text!r} is not a threshold; write it as in p99<5ms, errors<0.1% or "
                "messages_per_second>10k"
            )
        name, named, relation, written = match.groups()
        metric, kind = _metric(name)
        kind, limit = _limit(text, kind, written)
        scope = WHOLE_TEST if named is None else _scope(text, named)
        return cls(f"{name}{scope}{relation}{written}", metric, kind, relation, limit, scope=scope)

    @classmethod
    def parse_abort(cls, text: str) -> Threshold:
        """Parse a condition to keep (`p99<5ms`), or the opposite, on which to stop (`p99>5ms`).

        The relation shows which of the two it is: no test is stopped because its figures are good.

        Raises:
            InvalidValueError: the text is neither, its figure is only known at the end, or the
                condition does not hold at the beginning.
        """
        one = cls.parse(text)
        if one.metric in _HIGHER_IS_BETTER and one.kind == "count":
            raise InvalidValueError(
                f"{text!r} is only known at the end; use `thresholds`, or messages_per_second"
            )
        bad = "<" if one.metric in _HIGHER_IS_BETTER else ">"
        kept = replace(one, aborts=True)
        if one.relation[0] == bad:
            kept = replace(kept, relation=_OPPOSITES[one.relation])
        # A rate is judged once it has had time; all other figures begin at 0, and grow.
        if one.relation == "==" if bad == "<" else not kept.judge_value(0):
            figure, _, limit = one.text.partition(one.relation)
            raise InvalidValueError(
                f"{text!r} would stop every test at its beginning; write "
                f"{figure}{_OPPOSITES[bad]}{limit}, or {figure}{bad}{limit} to stop on it"
            )
        return kept

    def check_measured(
        self, schemes: Collection[str], targets: Collection[str], stages: int
    ) -> None:
        """Check that the figure exists over one of these schemes, and its target and stage exist.

        Args:
            schemes: those of all targets.
            targets: URLs of the targets.
            stages: number of stages.

        Raises:
            InvalidValueError: one of them does not.
        """
        try:
            self.scope.check(targets, stages)
        except InvalidValueError as error:
            raise InvalidValueError(f"{self.text!r}: {error}") from error
        target = self.scope.target
        if target is not None:
            schemes = {target.partition("://")[0]}
        able = _MEASURED_OVER.get(self.metric.partition(".")[0])
        if able is not None and not set(able) & set(schemes):
            no = "no target is" if target is None else "this target is not"
            raise InvalidValueError(
                f"{self.text!r} is only measured over {' and '.join(able)}, but {no} "
                f"{' or '.join(f'{scheme}://' for scheme in able)}"
            )

    def judge(self, figures: Figures) -> ThresholdResult:
        """Compare the figure with the limit; a figure that was not measured crosses it."""
        not_reached = self.scope.stage is not None and not figures.seconds
        value = None if not_reached else self._value(figures)
        passed = value is not None and self.judge_value(value)
        return ThresholdResult(
            threshold=self.text,
            aborts=self.aborts,
            kind=self.kind,
            value=value,
            passed=passed,
            target=self.scope.target,
            stage=self.scope.stage,
        )

    def judge_value(self, value: float) -> bool:
        """Return whether a value of the figure keeps the limit."""
        return _OPERATORS[self.relation](value, self.limit)

    def _value(self, figures: Figures) -> float | None:
        if self.metric == "jitter":
            return figures.jitter_us / 1e6 if figures.jitter_us is not None else None
        if self.kind == "time":
            return _time(self.metric, figures.latencies)
        if self.metric in _RATES:
            return self._rate(figures)
        if self.metric not in _SHARES:
            return figures.counts[self.metric]
        kinds = LOSSES if self.metric == "loss" else frozenset(figures.errors)
        failed = sum(figures.errors.get(kind, 0) for kind in kinds)
        if self.kind == "count":
            return failed
        return failed / figures.attempts if figures.attempts else None

    def _rate(self, figures: Figures) -> float | None:
        counted = figures.counts["messages" if self.kind == "rate" else "bytes_received"] or 0
        if not figures.seconds:
            return None
        return counted * (8 if self.kind == "bit_rate" else 1) / figures.seconds


def written_rate(rate: float) -> str:
    """Return a rate as a whole number, or with three digits below ten: `12,345`, `0.111`."""
    return f"{rate:,.0f}" if rate >= 9.995 else f"{rate:.3g}"


def written_time(seconds: float) -> str:
    """Return a time with three digits and its unit: `87.5 µs`, `4.21 ms`, `1.5 s`."""
    unit, amount = "µs", seconds * 1e6
    for larger, factor in (("ms", 1e3), ("s", 1.0)):
        # A value that would be rounded to 1000 of one unit is 1 of the next.
        if seconds * factor >= 0.9995:
            unit, amount = larger, seconds * factor
    return f"{amount:,.0f} {unit}" if amount >= 99.95 else f"{amount:.3g} {unit}"


def _metric(name: str) -> tuple[str, Kind]:
    """Return the full name of a figure and the kind of its limit.

    A figure of kind `share` may also be limited by a count; see `_limit`.
    """
    if name in _SHARES:
        return name, "share"
    if name in _COUNTS:
        return name, "count"
    if name in _RATES:
        return name, _RATES[name]
    if name in _TIMES:
        return name, "time"
    distribution, dot, figure = name.partition(".")
    if distribution not in DISTRIBUTIONS or not dot:
        distribution, figure = "response", name
    match = _PERCENTILE.fullmatch(figure)
    if match is not None and 0 < float(match[1].replace("_", ".")) <= 100:
        return f"{distribution}.p{match[1].replace('_', '.')}", "time"
    if figure in {"mean", "max"}:
        return f"{distribution}.{figure}", "time"
    known = ", ".join((*_SHARES, *_COUNTS, *_TIMES, *_RATES))
    others = ", ".join(f"{one}.p99" for one in DISTRIBUTIONS if one != "response")
    raise InvalidValueError(
        f"{name!r} is not a threshold metric; the metrics are p50, p99.9 and any other "
        f"percentile, mean and max of the response time (others as in {others}), and {known}"
    )


def _scope(text: str, named: str) -> Scope:
    """Return the scope that braces name."""
    try:
        return Scope.parse(named)
    except InvalidValueError as error:
        raise InvalidValueError(f"{text!r}: {error}") from error


def _limit(text: str, kind: Kind, written: str) -> tuple[Kind, float]:
    """Return the kind and the value of a limit; a share without `%` is a count."""
    try:
        if kind == "rate":
            return kind, parse_rate(written)
        if kind == "byte_rate":
            return kind, parse_bandwidth(written, unit="B")
        if kind == "bit_rate":
            return kind, parse_bandwidth(written, unit="bit") * 8
        if kind == "share" and written.endswith("%"):
            return kind, parse_percentage(written)
        if kind != "time":
            return "count", parse_count(written)
        if not written[-1:].isdigit():
            return kind, parse_duration(written)
    except InvalidValueError as error:
        raise InvalidValueError(f"{text!r}: {error}") from error
    raise InvalidValueError(f"{text!r}: {written!r} has no unit; write it as in 5ms or 250us")


def _time(metric: str, latencies: Mapping[str, LatencyHistogram]) -> float | None:
    distribution, _, figure = metric.partition(".")
    latency = latencies[distribution]
    if not latency.count:
        return None
    if figure == "mean":
        return latency.mean_us / 1e6
    if figure == "max":
        return latency.max_us / 1e6
    (found,) = latency.percentiles_us([float(figure[1:])])
    return found / 1e6
