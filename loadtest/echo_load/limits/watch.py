"""The watch of targets: probes at a low rate, and the outages that they find."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta

from echo_client.errors import ClientError, LostError, MismatchError, ReplyTimeoutError
from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError
from echo_core.limits import raise_descriptor_limit
from echo_core.units import LONGEST_SECONDS, format_duration
from echo_load.limits.connector import ResolvingConnector, connectors
from echo_load.limits.findings import Findings
from echo_load.limits.local_tally import LocalTally
from echo_load.limits.outages import LoggedOutage, OutageLog
from echo_load.limits.pauses import Heartbeat
from echo_load.limits.probing import TargetProbes
from echo_load.limits.unused_fields import LOAD_FIELDS, refuse_fields
from echo_load.plan import fields
from echo_load.plan.bounds import LONGEST_TEST
from echo_load.plan.fields import Duration
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import ThresholdResult
from echo_load.results.result import Result, Verdict
from echo_load.results.watch import Outage, Pause, TargetWatch, WatchResult
from echo_load.runner.controller import Interruption, check_arguments
from echo_load.runner.generator import SNAPSHOT_SECONDS
from echo_load.runner.local_server import LocalServer
from echo_load.runner.observer import Observer, Progress

_POLL_SECONDS = 0.05
_DEFAULT_CONNECT_TIMEOUT = Plan().connect_timeout
# Largest number of threads that wait for replies on new connections to one target.
_MOST_WAITING = 1000
# timeout(1), a usual way to end a watch, sends its signal to the process and again to its group.
_REPETITION_SECONDS = 0.1
# Extra time for threads to notice the timeouts of connects and replies.
_MARGIN_SECONDS = 1.0


def _budget(name: str, value: object) -> float:
    """Convert a duration, which may be 0."""
    seconds = fields.seconds(name, value)
    if not 0 <= seconds < math.inf:
        raise InvalidValueError(f"`{name}` {seconds} is negative or infinite")
    if seconds > LONGEST_TEST:
        raise InvalidValueError(f"`{name}`: {seconds:g} seconds are longer than ten years")
    return seconds


@dataclass(frozen=True, kw_only=True, init=False, repr=False)
class WatchPlan:
    """A plan for watching targets. Durations may be texts, as in a `Plan`.

    Attributes:
        plan: targets, connections, messages, options of connections, and the timeout, which is that
            of connecting, too; without a duration, the watch lasts until it is stopped. It has no
            pace, stages, repeats or thresholds.
        interval: seconds between two probes of a target on its kept connections, which take turns,
            and between two probes on new connections.
        outage_budget: largest total duration of a target's outages in seconds; None for no limit.

    Raises:
        InvalidValueError: a field is out of its range, fields contradict each other, or the plan
            has a field that a watch does not use.
    """

    plan: Plan
    interval: float = 0.05
    outage_budget: float | None = None

    @fields.by_name(
        {
            "plan": fields.instance_of(Plan),
            "interval": fields.positive_seconds,
            "outage_budget": fields.optional(_budget),
        }
    )
    def __init__(
        self,
        *,
        plan: Plan,
        interval: Duration = 0.05,
        outage_budget: Duration | None = None,
    ) -> None: ...

    def __repr__(self) -> str:
        """Return the plan as Python would write it, without fields that have their defaults."""
        return fields.written(self)

    def __post_init__(self) -> None:
        plan = self.plan
        refuse_fields(plan, LOAD_FIELDS, "a watch")
        if plan.connect_timeout not in (_DEFAULT_CONNECT_TIMEOUT, plan.reply_timeout):
            raise InvalidValueError(
                f"`connect_timeout` {format_duration(plan.connect_timeout)} is not the `timeout` "
                f"{format_duration(plan.reply_timeout)}; in a watch they are the same"
            )
        if plan.connections < len(plan.targets):
            raise InvalidValueError(
                f"`connections` {plan.connections} is too few for {len(plan.targets)} targets; "
                "each needs one at least"
            )
        if not 0.01 <= self.interval <= LONGEST_SECONDS:
            raise InvalidValueError(
                f"`interval` {format_duration(self.interval)} is too short; it must be 10ms or more"
            )
        if 2 * plan.reply_timeout / self.interval > _MOST_WAITING:
            raise InvalidValueError(
                f"`timeout` {format_duration(plan.reply_timeout)} is too long for probes every "
                f"{format_duration(self.interval)}; it must be at most "
                f"{format_duration(_MOST_WAITING / 2 * self.interval)}, or `interval` be longer"
            )


def watch(
    watch_plan: WatchPlan,
    *,
    observer: Observer | None = None,
    handle_signals: bool = False,
    interruption: Interruption | None = None,
) -> Result:
    """Watch targets for outages for the duration of the plan, or until a signal stops it.

    Args:
        watch_plan: the plan of the watch. Without targets an `echo-server` is started and watched.
        observer: receives the progress.
        handle_signals: whether the first SIGINT, SIGTERM or SIGHUP ends the watch, with a result,
            and the second one ends the process. Possible in the main thread only.
        interruption: a request to stop, which another thread may make.

    Raises:
        ClientError: a target cannot be reached, or does not echo, at the beginning.
        InvalidValueError: a source address is not one of this machine.
        LocalServerError: the echo-server did not start.
        TlsFileError: a file for TLS is invalid.
    """
    fields.instance_of(WatchPlan)("watch_plan", watch_plan)
    check_arguments(observer, interruption)
    observer = observer or Observer()
    descriptors = raise_descriptor_limit()
    with ExitStack() as stack:
        endpoints = watch_plan.plan.endpoints
        quit_now: Callable[[], None] | None = None
        if not endpoints:
            server = stack.enter_context(
                LocalServer(
                    watch_plan.plan.connections + _MOST_WAITING,
                    descriptors,
                    proxy_protocol=watch_plan.plan.send_proxy is not None,
                )
            )
            endpoints, quit_now = (server.endpoint,), server.kill
        interruption = interruption or Interruption()
        if handle_signals:
            stack.enter_context(
                interruption.by_signals(quit_now, repetition_seconds=_REPETITION_SECONDS)
            )
        running = _Watch(watch_plan, endpoints, observer)
        running.run(lambda: interruption.requested)
        result = running.result(interrupted=interruption.requested)
    observer.ended(result)
    return result


class _Watch:
    """A watch in progress.

    Args:
        watch_plan: the plan of the watch.
        endpoints: targets.
        observer: receives the progress.

    Raises:
        ClientError: a target cannot be reached, or does not echo.
    """

    def __init__(
        self, watch_plan: WatchPlan, endpoints: Sequence[Endpoint], observer: Observer
    ) -> None:
        plan = watch_plan.plan
        self._watch_plan = watch_plan
        self._endpoints = endpoints
        self._observer = observer
        self._duration = plan.duration if plan.duration is not None else LONGEST_SECONDS
        # Probes per second, on kept and on new connections.
        rate = 2 * len(endpoints) / watch_plan.interval
        self._plan = replace(plan, rate=rate, duration=self._duration)
        payload = plan.payload(random.SystemRandom().getrandbits(32))
        self._local = LocalTally(self._plan, payload)
        self._findings = Findings(self._local.recorder)
        self._heartbeat = Heartbeat()
        self._slots = range(1, plan.connections + 1)
        self._end: float | None = None
        count = len(endpoints)
        self._probes = [
            TargetProbes(
                ResolvingConnector(connector, endpoints[number], plan.ip_version).open,
                payload,
                # As in every test, connections use the targets in turn, and count from 1.
                range(number + 1, plan.connections + 1, count),
                itertools.count(plan.connections + 1 + (number - plan.connections) % count, count),
                interval=watch_plan.interval,
                timeout=plan.reply_timeout,
                memory_seconds=4 * plan.reply_timeout + _MARGIN_SECONDS,
                loses_after=plan.reply_timeout if endpoints[number].scheme == "udp" else None,
                findings=self._findings,
                heartbeat=self._heartbeat,
            )
            for number, connector in enumerate(connectors(plan, endpoints, plan.reply_timeout))
        ]
        for endpoint, probes in zip(endpoints, self._probes, strict=True):
            try:
                probes.check()
            except (LostError, ReplyTimeoutError, MismatchError) as error:
                raise ClientError(f"{endpoint} does not echo: {error}") from error

    def run(self, is_stopped: Callable[[], bool]) -> None:
        """Probe for the duration of the plan, or until `is_stopped` returns True."""
        with self._findings.lock:
            self._local.start()
        begin = self._local.begin
        self._heartbeat.start()
        for probes in self._probes:
            probes.start(begin)
        end = begin + self._duration
        due = begin + SNAPSHOT_SECONDS
        while time.monotonic() < end and not is_stopped():
            time.sleep(_POLL_SECONDS)
            if time.monotonic() >= due:
                due += SNAPSHOT_SECONDS
                self._update(ended=False)
        self._finish(min(end, time.monotonic()))

    def _finish(self, end: float) -> None:
        """Stop the probes, and wait for the last replies or their timeouts."""
        self._end = end
        self._local.stop(end)
        for probes in self._probes:
            probes.stop()
        deadline = time.monotonic() + 2 * self._plan.reply_timeout + _MARGIN_SECONDS
        while time.monotonic() < deadline and not all(probes.idle for probes in self._probes):
            time.sleep(_POLL_SECONDS)
        self._heartbeat.stop()
        self._update(ended=True)

    def _update(self, *, ended: bool) -> None:
        with self._findings.lock:
            snapshot = self._findings.recorder.take(self._findings.counts.copy())
            messages = [self._findings.messages[slot] for slot in self._slots]
        self._local.take(snapshot, ended=ended, messages=messages if ended else ())
        elapsed = (self._end or time.monotonic()) - self._local.begin
        self._observer.progressed(
            Progress(1, 1, "running", elapsed, self._local.tally, watch=self.found())
        )

    def found(self) -> WatchResult:
        """Return the outages and figures so far."""
        with self._findings.lock:
            seconds = (self._end or time.monotonic()) - self._local.begin
            outages = sorted(
                itertools.chain.from_iterable(
                    self._outages(endpoint, probes.log, seconds)
                    for endpoint, probes in zip(self._endpoints, self._probes, strict=True)
                ),
                key=lambda outage: outage.begin,
            )
            reconnects = list(self._findings.reconnects)
            lost, disregarded = self._findings.messages_lost, self._findings.disregarded
        pauses = list(self._pauses(seconds))
        targets = [_target_watch(str(one), outages, pauses, seconds) for one in self._endpoints]
        return WatchResult(
            seconds=seconds,
            interval_seconds=self._watch_plan.interval,
            outages=outages,
            pauses=pauses,
            targets=targets,
            availability=statistics.fmean(one.availability for one in targets),
            longest_seconds=max((one.seconds for one in outages), default=0.0),
            outage_seconds=max(one.outage_seconds for one in targets),
            budget_seconds=self._watch_plan.outage_budget,
            messages_lost=lost,
            disregarded=disregarded,
            reconnects=len(reconnects),
            reconnect_median_seconds=statistics.median(reconnects) if reconnects else 0.0,
            reconnect_longest_seconds=max(reconnects, default=0.0),
        )

    def _pauses(self, seconds: float) -> Iterator[Pause]:
        for logged in self._heartbeat.pauses:
            begin, end = (min(seconds, max(0.0, instant - self._local.begin)) for instant in logged)
            if end > begin:
                yield Pause(
                    begin=begin, end=end, seconds=end - begin, started_at=self._clock(begin)
                )

    def _outages(self, endpoint: Endpoint, log: OutageLog, seconds: float) -> Iterator[Outage]:
        for number, logged in enumerate(log.outages, 1):
            begin = min(seconds, max(0.0, logged.begin - self._local.begin))
            end = self._end_of(logged, seconds)
            yield Outage(
                begin=begin,
                end=end,
                seconds=max(0.0, end - begin),
                target=str(endpoint),
                number=number,
                kind=logged.kind,
                errors=dict(logged.errors),
                connections=logged.connections,
                partial=logged.partial,
                ongoing=logged.end is None,
                started_at=self._clock(begin),
            )

    def _clock(self, seconds: float) -> str:
        """Return the date and the time of an instant of the watch (ISO 8601, UTC)."""
        at = self._local.started + timedelta(seconds=seconds)
        return at.isoformat(timespec="milliseconds")

    def _end_of(self, logged: LoggedOutage, seconds: float) -> float:
        return seconds if logged.end is None else min(seconds, logged.end - self._local.begin)

    def result(self, *, interrupted: bool) -> Result:
        """Return the result of the watch."""
        found = self.found()
        given = self._watch_plan.plan
        thresholds = []
        if found.budget_seconds is not None:
            thresholds.append(
                ThresholdResult(
                    threshold=f"outages<={format_duration(found.budget_seconds)}",
                    aborts=False,
                    kind="time",
                    value=found.outage_seconds,
                    passed=found.within_budget,
                )
            )
        reasons = [f"{one.crossed}: {one.measured}" for one in thresholds if not one.passed]
        verdict: Verdict = "crossed" if reasons else "passed"
        # A watch without a duration is always ended by a signal.
        if interrupted and given.duration is not None:
            verdict = "interrupted"
            reasons.insert(0, "interrupted before the end")
        return self._local.result(
            "watch",
            replace(self._plan, duration=given.duration or found.seconds),
            list(map(str, self._endpoints)),
            verdict,
            reasons=reasons,
            thresholds=thresholds,
            watch=found,
        )


def _target_watch(
    target: str, outages: Sequence[Outage], pauses: Sequence[Pause], seconds: float
) -> TargetWatch:
    own = [outage for outage in outages if outage.target == target]
    watched = seconds - sum(pause.seconds for pause in pauses)
    out = sum(_without(outage, pauses) for outage in own)
    return TargetWatch(
        target=target,
        availability=max(0.0, 1 - out / watched) if watched > 0 else 1.0,
        outages=len(own),
        outage_seconds=sum(outage.seconds for outage in own),
    )


def _without(outage: Outage, pauses: Sequence[Pause]) -> float:
    """Return the duration of an outage without the time in which the watch did not run."""
    return outage.seconds - sum(
        max(0.0, min(outage.end, pause.end) - max(outage.begin, pause.begin)) for pause in pauses
    )
