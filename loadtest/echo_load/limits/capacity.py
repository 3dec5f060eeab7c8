"""The search for a target's capacity, by tests at different rates or numbers of connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from echo_client.failure_kinds import FailureKind
from echo_core.errors import InvalidValueError
from echo_load.errors import GeneratorError, TargetError
from echo_load.flags import with_flags
from echo_load.limits.capacity_plan import CapacityPlan
from echo_load.limits.search import Found, Outcome, search
from echo_load.plan import fields
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import Threshold
from echo_load.results.capacity import Bound, CapacityResult, CapacityStep
from echo_load.results.result import Result
from echo_load.runner.controller import Interruption, check_arguments, run
from echo_load.runner.observer import Observer

# Generators that use this share of a processor each are at their limit.
_BUSY_SHARE = 0.9
# Failures for lack of a resource of this machine, not of the target.
_GENERATOR_FAILURES = frozenset(
    {
        FailureKind.NO_SOURCE,
        FailureKind.NO_PORT,
        FailureKind.NO_DESCRIPTOR,
        FailureKind.NO_THREAD,
    }
)
# Failures that show that the target, or the path, rejects or drops connections.
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

StepHandler = Callable[[CapacityResult, CapacityStep], None]


def find_capacity(
    capacity_plan: CapacityPlan,
    *,
    observer: Observer | None = None,
    on_step: StepHandler | None = None,
    reconcile: str | None = None,
    handle_signals: bool = False,
    interruption: Interruption | None = None,
) -> Result:
    """Find the highest rate, or the largest number of connections, at which the SLO is kept.

    The result is that of the test that confirmed the answer, with the answer and all steps in its
    field `capacity`. Without an answer it is the result of the last step that failed, or of the
    last step.

    Args:
        capacity_plan: the plan of the search.
        observer: receives the progress of each test.
        on_step: called after each step with the capacity found so far and the step.
        reconcile: URL of the admin page of the target, as for `run`.
        handle_signals: whether stop signals end the search early, with a result, as for `run`.
        interruption: a request to stop, which another thread may make.

    Raises:
        TargetError: a target did not answer the first message, or the search was interrupted
            before the first step.
        EchoswarmError: as for `run`.
    """
    fields.instance_of(CapacityPlan)("capacity_plan", capacity_plan)
    check_arguments(observer, interruption)
    fields.optional(fields.text)("reconcile", reconcile)
    interruption = interruption or Interruption()
    finder = _Finder(capacity_plan, interruption, observer or Observer(), on_step, reconcile)
    if not handle_signals:
        return finder.find()
    with interruption.by_signals():
        return finder.find()


class _Finder:
    """A search in progress.

    Args:
        capacity_plan: the plan of the search.
        interruption: a request to stop, which all tests share.
        observer: receives the progress of each test.
        on_step: called after each step.
        reconcile: URL of the admin page of the target.
    """

    def __init__(
        self,
        capacity_plan: CapacityPlan,
        interruption: Interruption,
        observer: Observer,
        on_step: StepHandler | None,
        reconcile: str | None,
    ) -> None:
        self._capacity_plan = capacity_plan
        self._interruption = interruption
        self._observer = observer
        self._on_step = on_step
        self._reconcile = reconcile
        self._steps: list[CapacityStep] = []
        self._results: list[tuple[CapacityStep, Result]] = []
        self._last: Result | None = None
        # The reason for which this machine could not run a step; None if it could.
        self._not_run: str | None = None

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
        elif capacity.shortfall is not None:
            reasons.append(capacity.shortfall)
            if capacity.is_undecided:
                verdict = "failed"
            elif verdict == "passed":
                verdict = "crossed"
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
        once = replace(
            plan,
            connections=targets,
            messages=targets,
            arrivals="constant",
            rate=None,
            bytes_per_message=None,
            duration=None,
            warmup=0.0,
            processes=1,
            thresholds=(),
        )
        self._last = result = run(once, interruption=self._interruption)
        if result.verdict == "failed":
            first = result.evidence.first
            said = f"; the first: {first}" if first is not None else ""
            raise TargetError(f"{', '.join(result.targets)}: {result.reasons[0]}{said}")

    def _attempt(self, level: float, confirm: bool) -> Outcome:
        if self._interruption.requested and self._last is not None:
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
        except (InvalidValueError, GeneratorError) as error:
            # This machine has too few ports, descriptors or processes for the step.
            if not self._steps:
                raise
            self._not_run = with_flags(str(error))
            return "generator"
        self._last = result
        if result.verdict == "interrupted":
            return "interrupted"
        outcome = outcome_of(result)
        step = _step(result, plan, confirm=confirm)
        self._steps.append(step)
        self._results.append((step, result))
        if self._on_step is not None:
            self._on_step(self._capacity(Found(None, None, "interrupted", confirmed=False)), step)
        return outcome

    def _result_of(self, found: Found) -> Result:
        """Return the result of the last test that kept the level found.

        If no level was kept, it is that of the last test that failed; if the search was
        interrupted, that of the last test.

        Raises:
            TargetError: the search was interrupted before the first step.
        """
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
        assert self._last is not None
        return self._last

    def _level(self, step: CapacityStep) -> float:
        return step.rate if self._capacity_plan.cycle is None else step.connections

    def _capacity(self, found: Found) -> CapacityResult:
        is_rate = self._capacity_plan.cycle is None
        level = found.level
        failures = [
            (step, result)
            for step, result in self._results
            if not step.kept and self._level(step) == found.failed
        ]
        result = failures[-1][1] if failures else None
        bound = _bound(found, result)
        why, advice = failures[-1][0].why if failures else self._not_run, None
        if bound == "generator":
            if result is not None and result.generator.findings:
                advice = result.generator.findings[-1]
        elif bound == "range":
            advice = "raise --highest to find the limit"
        connections: int | None = self._capacity_plan.plan.connections
        rate = level
        if not is_rate:
            connections = None if level is None else int(level)
            rate = None if level is None else self._capacity_plan.probes_per_second(level)
        return CapacityResult(
            asked="rate" if is_rate else "connections",
            rate=rate,
            connections=connections,
            failed_at=found.failed,
            bound=bound,
            confirmed=found.confirmed,
            precision=self._capacity_plan.within.precision,
            at_least=self._capacity_plan.at_least,
            bytes_per_message=self._capacity_plan.plan.bytes_per_message,
            why=why,
            advice=advice,
            note=self._note(found),
            steps=list(self._steps),
        )

    def _note(self, found: Found) -> str | None:
        """Return what makes the answer less certain, if anything."""
        level = found.level if found.level is not None else found.failed
        return None if level is None else self._capacity_plan.shortage(level)


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
    """Return the outcome of a step: the SLO was kept, the target failed, or the generators did.

    A generator that was late is to blame if its delays explain the response times. If they do not,
    the target may have failed, or what disturbed the generator may have disturbed the target, too.
    """
    if result.passed:
        return "kept"
    if _GENERATOR_FAILURES & result.totals.errors.keys():
        return "generator"
    generator = result.generator
    if not generator.bound:
        return "failed"
    if generator.cpu_cores >= _BUSY_SHARE * generator.processes:
        return "generator"
    delays = (generator.lateness_us.p99 + generator.hub_lag_us.p99) / 1e6
    limits = [
        (Threshold.parse(one.threshold), one.value)
        for one in result.thresholds
        if one.kind == "time" and not one.aborts and one.value is not None
    ]
    median = result.latency_us.response.p50 / 1e6
    if any(
        limit.metric.startswith("response.p") and not limit.judge_value(median - delays)
        for limit, _ in limits
    ):
        # Too much for a disturbance.
        return "failed"
    kept_without_delays = [limit.judge_value(value - delays) for limit, value in limits]
    refused = _REFUSALS & result.totals.errors.keys()
    return "disturbed" if refused or not all(kept_without_delays) else "generator"


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
