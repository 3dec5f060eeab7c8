"""The controller, which runs a plan from beginning to end.

It generates no load itself, so that it can draw a screen without disturbing the measurements.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from types import FrameType

from echo_client.addresses import Address, resolve
from echo_client.connecting import reachable_from
from echo_client.errors import NoSourceError
from echo_client.happy_eyeballs import best_first
from echo_client.socket_options import BufferSizes
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode, InvalidValueError
from echo_core.limits import raise_descriptor_limit
from echo_load.measure.counts import Counts
from echo_load.plan import fields
from echo_load.plan.plan import Plan
from echo_load.plan.ports import check_ports
from echo_load.plan.scope import Scope
from echo_load.plan.sources import processes_for, source_addresses
from echo_load.plan.thresholds import Figures, Threshold, ThresholdResult
from echo_load.results.reconciliation import Reconciliation
from echo_load.results.result import Latencies, Machine, Repeat, Result, Spread
from echo_load.results.verdict import End, reach_verdict
from echo_load.runner.generator import STOP_SIGNALS
from echo_load.runner.local_server import LocalServer
from echo_load.runner.observer import Observer, Progress
from echo_load.runner.processes import Generators, Phase, Task, check_script
from echo_load.runner.reconcile import Reconciler
from echo_load.runner.tally import (
    Tally,
    evidence,
    figures,
    generator_result,
    measured_in,
    series,
    series_started_at,
    stage_results,
    target_results,
    totals,
)

# Undoes what the live screen does: it hides the cursor (xterm's control sequences, DECTCEM), and
# leaves it at the end of a line.
_LEAVE_SCREEN = b"\x1b[?25h\n"
# Rates and percentiles over a shorter time are not significant enough to abort a test.
_SECONDS_TO_JUDGE = 1.0


class Interruption:
    """A request to stop the run, which any thread may make.

    Attributes:
        requested: whether the run is to stop; set it to True to stop it, with a result.
    """

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0

    @contextmanager
    def by_signals(
        self, quit_now: Callable[[], None] | None = None, *, repetition_seconds: float = 0.0
    ) -> Iterator[None]:
        """Handle stop signals in the block: the first requests a stop, the second ends the process.

        Args:
            quit_now: called before the process ends, to end its child processes; None for nothing.
            repetition_seconds: a signal within these seconds after the first is ignored as a
                repetition of it.

        Raises:
            InvalidValueError: this is not the main thread, which alone can handle signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise InvalidValueError("`handle_signals` needs the main thread of the process")

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if self.requested and time.monotonic() - self._since >= repetition_seconds:
                if quit_now is not None:
                    quit_now()
                if os.isatty(sys.stderr.fileno()):
                    os.write(sys.stderr.fileno(), _LEAVE_SCREEN)
                os._exit(ExitCode.INTERRUPTED)
            if not self.requested:
                self.requested, self._since = True, time.monotonic()

        before = [signal.signal(number, on_signal) for number in STOP_SIGNALS]
        try:
            yield
        finally:
            for number, handler in zip(STOP_SIGNALS, before, strict=True):
                signal.signal(number, handler)


def check_arguments(observer: Observer | None, interruption: Interruption | None) -> None:
    """Check the types of the arguments that all functions which run a test have.

    Raises:
        InvalidValueError: one is of another type.
    """
    fields.optional(fields.instance_of(Observer))("observer", observer)
    fields.optional(fields.instance_of(Interruption))("interruption", interruption)


def run(
    plan: Plan,
    *,
    command: str = "run",
    observer: Observer | None = None,
    reconcile: str | None = None,
    handle_signals: bool = False,
    interruption: Interruption | None = None,
) -> Result:
    """Run a test: generate load, check every byte of the replies, and return the result.

    The generators are spawned processes: a script must call this under
    `if __name__ == "__main__":`, as multiprocessing requires.

    Args:
        plan: the test. Without targets an `echo-server` is started, tested, reconciled and stopped.
        command: value of the field `command` of the result.
        observer: receives the progress of the run.
        reconcile: URL of the admin page of the target, an echo-server: `http://HOST:PORT`. Its
            counters are compared with those of the generators.
        handle_signals: whether the first SIGINT, SIGTERM or SIGHUP ends the run early, with a
            result, and the second one ends the process. Possible in the main thread only.
        interruption: a request to stop, which another thread may make and several runs may share;
            it is polled during the run.

    Raises:
        InvalidValueError: this machine cannot run the plan, for lack of ports, descriptors or
            source addresses; or an argument is not valid.
        UnresolvedError: the host of a target is unknown.
        LocalServerError: the echo-server did not start.
        AdminError: the counters of the server cannot be read.
        GeneratorError: a generator did not start, or died; or the script calls this at its top
            level.
        TlsFileError: a file for TLS is invalid.
    """
    check_script()
    fields.instance_of(Plan)("plan", plan)
    check_arguments(observer, interruption)
    fields.optional(fields.text)("reconcile", reconcile)
    observer = observer or Observer()
    if reconcile is not None and not plan.targets:
        raise InvalidValueError(
            f"`reconcile` {reconcile} needs a target; an echo-server that the test starts is "
            "reconciled automatically"
        )
    descriptors = raise_descriptor_limit()
    processes = processes_for(plan, descriptors)
    sources = source_addresses(plan)
    seed = random.SystemRandom().getrandbits(32)
    payload = plan.payload(seed)
    if plan.speaks("tls"):
        # Refuse bad TLS files once, not in each generator.
        plan.tls.context()
    with ExitStack() as stack:
        server = None
        endpoints = plan.endpoints
        if not endpoints:
            proxied = plan.send_proxy is not None
            server = stack.enter_context(
                LocalServer(plan.most_connections, descriptors, proxy_protocol=proxied)
            )
            endpoints = (server.endpoint,)
        interruption = interruption or Interruption()
        if handle_signals:
            quit_now = server.kill if server is not None else None
            stack.enter_context(interruption.by_signals(quit_now))
        targets = tuple(_addresses(plan, endpoint, sources) for endpoint in endpoints)
        check_ports(plan, targets, sources)
        admin = server.admin if reconcile is None and server is not None else reconcile
        reconciler = Reconciler(admin) if admin is not None else None
        observer.started(plan, endpoints, processes)
        started_at = _now()
        test_run = _TestRun(plan, observer, lambda: interruption.requested)
        for number, (repeat, stages) in enumerate(test_run.parts):
            task = Task(plan, stages, targets, payload, sources, processes, seed + number, repeat)
            if not test_run.run_part(task):
                break
        reconciliation = None
        if reconciler is not None and (server is None or server.failure() is None):
            reconciliation = reconciler.compare(
                sum((tally.counts for tally in test_run.tallies + test_run.warm_ups), Counts()),
                datagrams=all(one.transport == "udp" for target in targets for one in target),
            )
        failure = server.failure() if server is not None else None
        result = test_run.result(command, endpoints, started_at, reconciliation, failure)
    observer.ended(result)
    return result


def _addresses(plan: Plan, endpoint: Endpoint, sources: Sequence[str]) -> tuple[Address, ...]:
    """Return the addresses of a target that the sources can reach, the first to answer in front.

    Raises:
        UnresolvedError: the host of the target is unknown.
    """
    addresses: Sequence[Address] = resolve(endpoint, plan.ip_version)
    source = sources[0] if sources else None
    # If the source can reach none of them, `check_ports` raises the error.
    with suppress(NoSourceError):
        addresses = best_first(
            reachable_from(source, addresses), plan.connect_timeout, source, plan.proxy_headers
        )
    return tuple(addresses)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _TestRun:
    """The parts of a test, in the order in which they are run, and their figures.

    A part consists of the stages of a repeat that share their connections.

    Args:
        plan: the test.
        observer: receives the progress.
        is_interrupted: returns whether to stop; it is polled.

    Attributes:
        parts: number of the repeat, from 1, and the stages, of each part.
        tallies: tally of each part that was run.
        warm_ups: tallies of their warm-ups.
    """

    def __init__(self, plan: Plan, observer: Observer, is_interrupted: Callable[[], bool]) -> None:
        self.tallies: list[Tally] = []
        self.warm_ups: list[Tally] = []
        stages = plan.run_stages
        by_connections = [(stage,) for stage in stages] if plan.reopen else [stages]
        self.parts = [
            (repeat, part) for repeat in range(1, plan.repeat + 1) for part in by_connections
        ]
        self._plan = plan
        self._observer = observer
        self._is_interrupted = is_interrupted
        self._aborted = False
        self._parts_per_repeat = len(by_connections)
        self._repeats: list[Repeat] = []

    def run_part(self, task: Task) -> bool:
        """Run a part; return whether the next one should be run."""
        if len(self.tallies) % self._parts_per_repeat == 0:
            self._repeats.append(Repeat(started_at=_now(), stages=[]))
        if self._plan.warmup:
            self._warm_up(task.warm_up)
        with Generators(task) as generators:
            tally = generators.tally
            self.tallies.append(tally)
            limits = [limit for limit in self._plan.limits if limit.aborts]
            for phase, elapsed in generators.phases(self._should_stop):
                self._progressed(len(self.tallies), phase, elapsed, tally)
                if limits and phase == "running":
                    self._aborted |= self._is_crossed(limits, elapsed)
        stages = stage_results([tally])
        self._repeats[-1].stages.extend(stages)
        self._observer.measured(task.repeat, stages)
        return not self._should_stop() and bool(tally.counts.opened)

    def _warm_up(self, task: Task) -> None:
        with Generators(task) as generators:
            self.warm_ups.append(generators.tally)
            for _, elapsed in generators.phases(self._should_stop):
                part = len(self.tallies) + 1
                self._progressed(part, "warming up", elapsed, generators.tally)

    def _progressed(self, part: int, phase: Phase, elapsed: float, tally: Tally) -> None:
        self._observer.progressed(Progress(part, len(self.parts), phase, elapsed, tally))

    def _is_crossed(self, limits: Sequence[Threshold], elapsed: float) -> bool:
        """Return whether a threshold is crossed, given the figures of all parts so far."""
        judged = self._judge(
            (limit for limit in limits if limit.kind == "count" or elapsed >= _SECONDS_TO_JUDGE),
            stage_seconds=_SECONDS_TO_JUDGE,
        )
        return any(one.value is not None and not one.passed for one in judged)

    def _judge(
        self, limits: Iterable[Threshold], *, stage_seconds: float = 0.0
    ) -> list[ThresholdResult]:
        """Compare the figures of the test, or of the part of it that each names, with limits.

        Args:
            limits: the limits.
            stage_seconds: leave out those of a stage that has lasted less than this, other than
                limits of counts.
        """
        # The figures of many thresholds are calculated once.
        known: dict[Scope, Figures] = {}
        judged = []
        for limit in limits:
            if limit.scope not in known:
                known[limit.scope] = self._figures(limit.scope)
            found = known[limit.scope]
            early = limit.scope.stage is not None and found.seconds < stage_seconds
            if limit.kind == "count" or not early:
                judged.append(limit.judge(found))
        return judged

    def _figures(self, scope: Scope) -> Figures:
        """Return the figures of the test, or of the part of it that a scope names."""
        targets = [str(endpoint) for endpoint in self._plan.endpoints]
        several = scope.target is not None and len(targets) > 1
        target = targets.index(scope.target) if scope.target is not None and several else None
        if scope.stage is None:
            return figures(self.tallies, target=target)
        stages_per_part = len(self.parts[0][1])
        part, stage = divmod(scope.stage - 1, stages_per_part)
        return figures(self.tallies[part :: self._parts_per_repeat], target=target, stage=stage)

    def _should_stop(self) -> bool:
        return self._aborted or self._is_interrupted()

    def result(
        self,
        command: str,
        endpoints: Sequence[Endpoint],
        started_at: str,
        reconciliation: Reconciliation | None,
        failure: str | None,
    ) -> Result:
        """Return the result of all parts that were run."""
        plan, tallies = self._plan, self.tallies
        by_part = [
            tallies[part :: self._parts_per_repeat] for part in range(self._parts_per_repeat)
        ]
        stages = [stage for same in by_part if same for stage in stage_results(same)]
        summed = totals(tallies)
        measured = measured_in(tallies)
        targets = [str(endpoint) for endpoint in endpoints]
        thresholds = self._judge(plan.limits)
        found = evidence(tallies, targets)
        verdict, reasons = reach_verdict(
            plan,
            stages,
            summed,
            reconciliation,
            thresholds,
            End(
                interrupted=self._is_interrupted(),
                aborted=self._aborted,
                failure=failure,
                missing=len(self.parts) - len(tallies),
                parts=len(self.parts),
            ),
            found,
        )
        return Result(
            command=command,
            plan=plan,
            targets=targets,
            machine=Machine.here(),
            started_at=started_at,
            stages=stages,
            totals=summed,
            latency_us=Latencies.of(measured),
            series=series(tallies),
            repeats=self._repeats if plan.repeat > 1 else [],
            generator=generator_result(tallies, measured),
            spread=Spread.of([one for tally in tallies for one in tally.messages_by_connection]),
            reconciliation=reconciliation,
            thresholds=thresholds,
            verdict=verdict,
            passed=verdict == "passed",
            reasons=reasons,
            evidence=found,
            by_target=tuple(target_results(tallies, targets)),
            buffers=BufferSizes.granted(plan.buffer_size),
            series_started_at=series_started_at(tallies),
        )
