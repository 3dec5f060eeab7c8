"""The capacity of a target, found by many tests at different rates or numbers of connections."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from echo_client.failure_kinds import FailureKind
from echo_core.errors import InvalidValueError
from echo_core.units import parse_percentage
from echo_load.errors import TargetError
from echo_load.flags import with_flags
from echo_load.limits.search import Found, Outcome, Range, search
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import Threshold
from echo_load.results.capacity import Bound, CapacityResult, CapacityStep
from echo_load.results.result import Result
from echo_load.runner.controller import Interruption, run
from echo_load.runner.observer import Observer

# Messages that have to be slower than a percentile, or to fail, before it means something.
_LEAST_BEYOND = 10
_LEAST_MESSAGES = 1000
_LEAST_SECONDS, _MOST_SECONDS = 4.0, 30.0
# A step is stopped early if a response time is so much larger than its limit.
_CLEARLY, _CLEARLY_SECONDS = 5.0, 0.1
# A generator that keeps this share of its processor busy cannot do more.
_BUSY = 0.9
# This machine, not the target, has run out of something.
_OWN = frozenset(
    {
        FailureKind.NO_SOURCE,
        FailureKind.NO_PORT,
        FailureKind.NO_DESCRIPTOR,
        FailureKind.NO_THREAD,
    }
)
_REFUSALS = frozenset(
    {
        FailureKind.CONNECT_ERROR,
        FailureKind.REFUSED,
        FailureKind.UNREACHABLE,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.HANDSHAKE,
        FailureKind.BROKEN,
        FailureKind.RESET,
        FailureKind.CLOSED,
    }
)

Tried = Callable[[CapacityResult, CapacityStep], None]


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """A plan for finding the capacity of a target.

    Attributes:
        plan: the test of a step. Its `thresholds` are the SLO; its rate, or its number of
            connections, is replaced by that of the step.
        within: rates, or numbers of connections, to search.
        cycle: seconds in which each connection is probed once, to ask for the number of
            connections; None to ask for the rate.
        step_seconds: duration of a step; None for as long as the SLO's percentiles need.
        repeats: number of repeats of the step that confirms the answer.
        at_least: required rate or number of connections; None for none.
    """

    plan: Plan
    within: Range
    cycle: float | None = None
    step_seconds: float | None = None
    repeats: int = 3
    at_least: float | None = None

    def step(self, level: float, *, confirm: bool) -> Plan:
        """Return the plan of a step."""
        repeat = self.repeats if confirm else 1
        if self.cycle is not None:
            return msgspec.structs.replace(
                self.plan,
                connections=int(level),
                rate=level / self.cycle,
                duration=self.step_seconds or 2 * self.cycle,
                repeat=repeat,
            )
        limits = [Threshold.parse(text) for text in self.plan.thresholds]
        return msgspec.structs.replace(
            self.plan,
            rate=level,
            duration=self.step_seconds or seconds_for(limits, level),
            repeat=repeat,
            abort_on=() if confirm else tuple(_clear_failures(limits)),
        )


def seconds_for(limits: list[Threshold], rate: float) -> float:
    """Return how long a step at a rate has to be, so that its figures mean something.

    A percentile needs ten messages beyond it (10,000 messages for p99.9), a share of errors ten
    errors; the result is between 4 and 30 seconds.
    """
    needed = max([_LEAST_MESSAGES, *map(_messages_for, limits)])
    return min(_MOST_SECONDS, max(_LEAST_SECONDS, needed / rate))


def _messages_for(limit: Threshold) -> float:
    _, _, figure = limit.metric.partition(".")
    if limit.kind == "time" and figure not in {"mean", "max"}:
        beyond = 1 - float(figure[1:]) / 100
    elif limit.kind == "share":
        beyond = limit.limit or parse_percentage("1%")
    else:
        return 0.0
    return _LEAST_BEYOND / beyond if beyond > 1e-9 else 0.0


def _clear_failures(limits: list[Threshold]) -> list[str]:
    """Return thresholds at which a step has clearly failed, and need not be continued."""
    found = []
    for limit in limits:
        if limit.kind == "time" and limit.relation[0] == "<" and not limit.metric.endswith(".max"):
            clearly = max(limit.limit * _CLEARLY, limit.limit + _CLEARLY_SECONDS)
            found.append(f"{limit.metric}<{math.ceil(clearly * 1e6)}us")
    return found


def find_capacity(
    capacity_plan: CapacityPlan,
    *,
    observer: Observer | None = None,
    tried: Tried | None = None,
    reconcile: str | None = None,
    handle_signals: bool = False,
) -> Result:
    """Find the highest rate, or the most connections, that keep the SLO.

    The result is that of the test that confirmed the answer; its field `capacity` has the answer
    and all steps. Without an answer it is that of the last step.

    Args:
        capacity_plan: what to find out.
        observer: receives the progress of each test.
        tried: called after each step, with what is known so far.
        reconcile: URL of the admin page of the target, as for `run`.
        handle_signals: whether stop signals end the search with what is known, as for `run`.

    Raises:
        TargetError: the target did not answer the first message.
        EchoswarmError: as for `run`.
    """
    interruption = Interruption()
    finder = _Finder(capacity_plan, interruption, observer or Observer(), tried, reconcile)
    if not handle_signals:
        return finder.find()
    with interruption.by_signals():
        return finder.find()


class _Finder:
    """A search on a real target.

    Args:
        capacity_plan: what to find out.
        interruption: a request to stop, which all tests share.
        observer: receives the progress of each test.
        tried: called after each step.
        reconcile: URL of the admin page of the target.
    """

    def __init__(
        self,
        capacity_plan: CapacityPlan,
        interruption: Interruption,
        observer: Observer,
        tried: Tried | None,
        reconcile: str | None,
    ) -> None:
        self._capacity_plan = capacity_plan
        self._interruption = interruption
        self._observer = observer
        self._tried = tried
        self._reconcile = reconcile
        self._steps: list[CapacityStep] = []
        self._results: list[tuple[CapacityStep, Result]] = []
        self._last: Result | None = None
        # Why this machine could not try a level at all.
        self._refusal: str | None = None

    def find(self) -> Result:
        """Search; see `find_capacity`."""
        self._check_target()
        found = search(self._attempt, self._capacity_plan.within)
        capacity = self._capacity(found)
        result = self._result_of(found)
        reasons = list(result.reasons)
        verdict = result.verdict
        if found.outcome == "interrupted":
            verdict = "interrupted"
            if not reasons:
                reasons.append("interrupted before the end")
        elif capacity.is_short and capacity.at_least is not None:
            reasons.append(f"--at-least {capacity.written(capacity.at_least)} was not reached")
            verdict = "crossed" if verdict == "passed" else verdict
        return msgspec.structs.replace(
            result,
            command="capacity",
            capacity=capacity,
            verdict=verdict,
            passed=verdict == "passed",
            reasons=reasons,
        )

    def _check_target(self) -> None:
        """Send one message to each target.

        Raises:
            TargetError: one did not answer.
        """
        plan = self._capacity_plan.plan
        if not plan.targets:
            return
        targets = len(plan.targets)
        once = msgspec.structs.replace(
            plan,
            connections=targets,
            messages=targets,
            arrivals="constant",
            rate=None,
            duration=None,
            warmup=0.0,
            processes=1,
            thresholds=(),
        )
        result = run(once, interruption=self._interruption)
        if result.verdict == "failed":
            raise TargetError(f"{', '.join(result.targets)}: {result.reasons[0]}")

    def _attempt(self, level: float, confirm: bool) -> Outcome:
        if self._interruption.requested:
            return "interrupted"
        plan = self._capacity_plan.step(level, confirm=confirm)
        try:
            result = run(
                plan,
                command="capacity",
                observer=self._observer,
                reconcile=self._reconcile,
                handle_signals=False,
                interruption=self._interruption,
            )
        except InvalidValueError as error:
            # This machine cannot run it: it has too few ports or descriptors.
            if not self._steps:
                raise
            self._refusal = with_flags(str(error))
            return "generator"
        self._last = result
        if result.verdict == "interrupted":
            return "interrupted"
        outcome = outcome_of(result)
        step = _step(result, plan, confirm=confirm)
        self._steps.append(step)
        self._results.append((step, result))
        if self._tried is not None:
            self._tried(self._capacity(Found(None, None, "interrupted", confirmed=False)), step)
        return outcome

    def _result_of(self, found: Found) -> Result:
        """Return the result of the test that shows the answer best, or of the last one."""
        kept = [
            result
            for step, result in self._results
            if step.kept and self._level(step) == found.level
        ]
        failed = [result for step, result in self._results if found.level is None and not step.kept]
        if kept:
            return kept[-1]
        if failed and found.outcome != "interrupted":
            return failed[-1]
        if self._last is None:
            raise TargetError("interrupted before the first step")
        return self._last

    def _level(self, step: CapacityStep) -> float:
        return step.rate if self._capacity_plan.cycle is None else step.connections

    def _capacity(self, found: Found) -> CapacityResult:
        asked_rate = self._capacity_plan.cycle is None
        level = found.level
        failures = [
            (step, result)
            for step, result in self._results
            if not step.kept and self._level(step) == found.failed
        ]
        result = failures[-1][1] if failures else None
        bound = _bound(found, result)
        why, advice = failures[-1][0].why if failures else None, None
        if bound == "generator":
            if result is not None and result.generator.findings:
                advice = result.generator.findings[-1]
            elif result is None:
                why = self._refusal
        elif bound == "range":
            advice = "raise --highest to find the limit"
        connections: int | None = self._capacity_plan.plan.connections
        rate = level
        if not asked_rate:
            connections = None if level is None else int(level)
            rate = None if level is None else level / (self._capacity_plan.cycle or 1.0)
        return CapacityResult(
            asked="rate" if asked_rate else "connections",
            rate=rate,
            connections=connections,
            failed_at=found.failed,
            bound=bound,
            confirmed=found.confirmed,
            precision=self._capacity_plan.within.precision,
            at_least=self._capacity_plan.at_least,
            why=why,
            advice=advice,
            steps=list(self._steps),
        )


def _bound(found: Found, result: Result | None) -> Bound:
    match found.outcome:
        case "interrupted" | "generator":
            return found.outcome
        case "kept":
            return "range"
        case _:
            errors = result.totals.errors if result is not None else {}
            return "refused" if _REFUSALS & errors.keys() else "slo"


def outcome_of(result: Result) -> Outcome:
    """Return what came of a step: whether it kept the SLO, and if not, because of which side.

    A generator that had its share of the delays is not to blame if they are too small to explain
    the response times, and its processor had time to spare.
    """
    if result.passed:
        return "kept"
    if _OWN & result.totals.errors.keys():
        return "generator"
    own = result.generator
    if not own.bound:
        return "failed"
    if own.cpu_cores >= _BUSY * own.processes:
        return "generator"
    delays = (own.lateness_us.p99 + own.hub_lag_us.p99) / 1e6
    by_itself = [
        limit.judge_value(one.value - delays)
        for one in result.thresholds
        if one.kind == "time" and not one.aborts and one.value is not None
        for limit in (Threshold.parse(one.threshold),)
    ]
    refused = _REFUSALS & result.totals.errors.keys()
    return "failed" if refused or not all(by_itself) else "generator"


def _step(result: Result, plan: Plan, *, confirm: bool) -> CapacityStep:
    response, totals = result.latency_us.response, result.totals
    why = None
    if not result.passed:
        why = result.reasons[0]
        for stage in result.stages:
            why = why.removeprefix(f"{stage.name}: ")
    return CapacityStep(
        phase="confirm" if confirm else "search",
        rate=plan.rate or 0.0,
        connections=plan.connections,
        achieved=totals.messages_per_second,
        seconds=totals.seconds,
        messages=totals.messages,
        p50_us=response.p50,
        p90_us=response.p90,
        p99_us=response.p99,
        p99_9_us=response.p99_9,
        max_us=response.max,
        errors=totals.errors,
        slo=[one for one in result.thresholds if not one.aborts],
        kept=result.passed,
        generator_bound=result.generator.bound,
        why=why,
    )
