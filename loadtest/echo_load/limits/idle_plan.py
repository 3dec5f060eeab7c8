"""The plan of a search for an idle timeout."""

from __future__ import annotations

from dataclasses import dataclass

from echo_core.errors import InvalidValueError
from echo_core.units import LONGEST_SECONDS, format_duration
from echo_load.limits.unused_fields import LOAD_FIELDS, refuse_fields
from echo_load.plan import fields
from echo_load.plan.fields import Duration
from echo_load.plan.plan import Plan
from echo_load.results.idle import IdleResult

_LEAST_UP_TO = 0.5
_LEAST_PRECISION = 0.01


@dataclass(frozen=True, kw_only=True, init=False, repr=False)
class IdlePlan:
    """A plan for finding an idle timeout. Durations may be texts, as in a `Plan`.

    Attributes:
        plan: the target, messages, timeouts and options of connections. Its number of connections
            and its duration are replaced; it has no pace, stages, repeats or thresholds.
        up_to: longest pause in seconds.
        precision: largest distance in seconds between the longest pause that is kept and the
            shortest one that is not, at which the search ends; None for a hundredth of the latter.
        at_least: seconds for which connections have to be kept; None for none.

    Raises:
        InvalidValueError: a field is out of its range, fields contradict each other, or the plan
            has a field that the search does not use.
    """

    plan: Plan
    up_to: float = 600.0
    precision: float | None = None
    at_least: float | None = None

    @fields.by_name(
        {
            "plan": fields.instance_of(Plan),
            "up_to": fields.positive_seconds,
            "precision": fields.optional(fields.positive_seconds),
            "at_least": fields.optional(fields.positive_seconds),
        }
    )
    def __init__(
        self,
        *,
        plan: Plan,
        up_to: Duration = 600.0,
        precision: Duration | None = None,
        at_least: Duration | None = None,
    ) -> None: ...

    def __repr__(self) -> str:
        """Return the plan as Python would write it, without fields that have their defaults."""
        return fields.written(self)

    def __post_init__(self) -> None:
        if len(self.plan.targets) != 1:
            raise InvalidValueError("give one target; an idle timeout is that of one path")
        refuse_fields(self.plan, LOAD_FIELDS, "a search for an idle timeout")
        if not _LEAST_UP_TO <= self.up_to <= LONGEST_SECONDS:
            raise InvalidValueError(
                f"`up_to` {format_duration(self.up_to)} is not between 500ms and 168h"
            )
        if self.precision is not None and not _LEAST_PRECISION <= self.precision <= self.up_to:
            raise InvalidValueError(
                f"`precision` {format_duration(self.precision)} is not between 10ms and `up_to` "
                f"{format_duration(self.up_to)}"
            )
        if self.at_least is not None and not 0 < self.at_least <= self.up_to:
            raise InvalidValueError(
                f"`at_least` {format_duration(self.at_least)} is not between 0 and `up_to` "
                f"{format_duration(self.up_to)}; raise `up_to`"
            )

    @property
    def unanswered(self) -> IdleResult:
        """The result before the search: its parameters, without an answer."""
        return IdleResult(
            kept_seconds=0.0,
            dropped_seconds=None,
            how=None,
            irregular_seconds=None,
            up_to_seconds=self.up_to,
            precision_seconds=self.precision,
            keepalive_seconds=self.plan.keepalive,
            at_least_seconds=self.at_least,
            datagrams=self.plan.speaks("udp"),
            rungs=[],
        )
