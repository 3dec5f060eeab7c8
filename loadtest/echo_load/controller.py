"""Runs a plan from beginning to end and makes a result of it.

The controller never generates load, so that it can draw a screen without disturbing what is
measured.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

from echo_client.addresses import resolve
from echo_client.payload import WRONG
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode
from echo_core.limits import raise_descriptor_limit
from echo_load.engines import Counts
from echo_load.generator import STOP_SIGNALS
from echo_load.local_server import LocalServer
from echo_load.plan import Plan
from echo_load.processes import Generators, Phase, Task
from echo_load.reconcile import Reconciler, Reconciliation
from echo_load.result import Latencies, Machine, Result, Spread, StageResult
from echo_load.sources import check_ports, processes_for, source_addresses
from echo_load.tally import Tally, generator, measured_in, totals

# What a live screen hides (xterm's control sequences, DECTCEM).
_SHOW_CURSOR = b"\x1b[?25h"
# What helps against errors that are none of the target's.
_HINTS = {
    "no_port": "local ports ran out (net.ipv4.ip_local_port_range): add --source-ip addresses",
    "no_descriptor": "descriptors ran out: raise ulimit -n, or --processes",
    "no_source": "a --source-ip address is none of this machine",
    "no_thread": "threads ran out (ulimit -u, memory): use --engine hub",
    "handshake": "TLS: see with `echo-client`, which says why; --tls-ca names whom to trust",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        part: number of the part, from 1: stages that share their connections.
        parts: how many there are.
        phase: what it is doing.
        elapsed: seconds since its warm-up ended.
        tally: its figures so far.
    """

    part: int
    parts: int
    phase: Phase
    elapsed: float
    tally: Tally


class Observer:
    """Hears of a run while it goes on; does nothing by itself."""

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """It is known what is tested, and nothing has been sent yet."""

    def progressed(self, progress: Progress) -> None:
        """Called several times a second."""

    def measured(self, stages: Sequence[StageResult]) -> None:
        """A part has ended, and these are its stages."""

    def ended(self, result: Result) -> None:
        """All has ended."""


class Interruption:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def by_signals(self, quit_now: Callable[[], None]) -> Iterator[None]:
        """While in the block, signals to stop ask; the second one quits the process at once.

        Args:
            quit_now: called before the process quits, to end what it started.
        """

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if self.asked:
                quit_now()
                if os.isatty(sys.stderr.fileno()):
                    os.write(sys.stderr.fileno(), _SHOW_CURSOR)
                os._exit(ExitCode.INTERRUPTED)
            self.asked = True

        before = [signal.signal(number, on_signal) for number in STOP_SIGNALS]
        try:
            yield
        finally:
            for number, handler in zip(STOP_SIGNALS, before, strict=True):
                signal.signal(number, handler)


def run(
    plan: Plan,
    *,
    command: str = "run",
    observer: Observer | None = None,
    reconcile: str | None = None,
    handle_signals: bool = False,
) -> Result:
    """Run a plan: generate load, check every byte, measure, and say what came of it.

    Generators are processes that are started fresh (spawned): a script that calls this does so
    under `if __name__ == "__main__":`, as multiprocessing asks for.

    Args:
        plan: what to do. Without targets an `echo-server` is started, tested, its counters
            reconciled, and stopped.
        command: what the result calls the run.
        observer: hears how it goes on.
        reconcile: the admin page of the target, an `echo-server`, whose counters are to be
            compared: `http://HOST:PORT`.
        handle_signals: let the first SIGINT, SIGTERM or SIGHUP end the run early, with a result,
            and the second end the process. Only from the main thread.

    Raises:
        InvalidValueError: the plan cannot be run here: no ports, descriptors or addresses for it;
            or `reconcile` is no such page.
        UnresolvedError: a target's host is not known.
        LocalServerError: the echo-server did not start.
        AdminError: the server's counters cannot be read.
        GeneratorError: a generator died.
    """
    observer = observer or Observer()
    descriptors = raise_descriptor_limit()
    processes = processes_for(plan, descriptors)
    sources = source_addresses(plan)
    seed = random.SystemRandom().getrandbits(32)
    payload = plan.payload(seed)
    if plan.speaks("tls"):
        # What is wrong with its files is better said once than by each generator.
        plan.tls.context()
    with ExitStack() as stack:
        server = None
        endpoints = plan.endpoints
        if not endpoints:
            server = stack.enter_context(LocalServer(plan.most_connections, descriptors))
            endpoints = (server.endpoint,)
        interruption = Interruption()
        if handle_signals:
            quit_now = server.kill if server is not None else _nothing
            stack.enter_context(interruption.by_signals(quit_now))
        targets = tuple(tuple(resolve(endpoint, plan.ip_version)) for endpoint in endpoints)
        check_ports(plan, targets, sources)
        admin = server.admin if reconcile is None and server is not None else reconcile
        reconciler = Reconciler(admin) if admin is not None else None
        observer.started(plan, endpoints, processes)
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        parts = [(stage,) for stage in plan.run_stages] if plan.reopen else [plan.run_stages]
        tallies: list[Tally] = []
        results: list[StageResult] = []
        for stages in parts:
            task = Task(plan, stages, targets, payload, sources, processes, seed)
            tallies.append(_run_part(task, interruption, observer, len(tallies) + 1, len(parts)))
            results += tallies[-1].stage_results()
            observer.measured(results[-len(stages) :])
            if interruption.asked or not tallies[-1].counts.opened:
                break
        reconciliation = None
        if reconciler is not None and (server is None or server.failure() is None):
            reconciliation = reconciler.compare(
                sum((tally.counts for tally in tallies), Counts()),
                datagrams=all(one.transport == "udp" for target in targets for one in target),
            )
        result = _result(
            plan,
            command,
            endpoints,
            started_at,
            tallies,
            results,
            reconciliation,
            interrupted=interruption.asked,
            failure=server.failure() if server is not None else None,
            missing=len(parts) - len(tallies),
        )
    observer.ended(result)
    return result


def shortcomings(stage: StageResult) -> list[str]:
    """Why a stage did not pass, a line each; none if it did."""
    found = []
    if stage.connections_failed:
        found.append(f"{stage.connections_failed:,} connections could not be opened")
    if stage.connections_lost:
        found.append(f"{stage.connections_lost:,} connections were lost")
    if wrong := sum(stage.errors.get(kind, 0) for kind in WRONG):
        found.append(f"{wrong:,} replies were not what was sent")
    if unsent := stage.errors.get("unsent"):
        found.append(f"of the messages that were due {unsent:,} never left")
    if lost := stage.errors.get("lost"):
        found.append(f"of the datagrams {lost:,} did not come back")
    if not found and stage.errors:
        found.append("there were errors")
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(stage.errors.items()))
    return [f"{stage.name}: {'; '.join(found)}" + (f" ({kinds})" if kinds else "")] if found else []


def _nothing() -> None:
    """There is nothing to end."""


def _run_part(
    task: Task, interruption: Interruption, observer: Observer, part: int, parts: int
) -> Tally:
    with Generators(task) as generators:
        for phase, elapsed in generators.phases(lambda: interruption.asked):
            observer.progressed(Progress(part, parts, phase, elapsed, generators.tally))
        return generators.tally


def _result(
    plan: Plan,
    command: str,
    endpoints: Sequence[Endpoint],
    started_at: str,
    tallies: Sequence[Tally],
    stages: list[StageResult],
    reconciliation: Reconciliation | None,
    *,
    interrupted: bool,
    failure: str | None,
    missing: int,
) -> Result:
    summed = totals(tallies)
    measured = measured_in(tallies)
    reasons = [reason for stage in stages for reason in shortcomings(stage)]
    if not summed.messages:
        reasons.append("not one message came back")
    reasons += [hint for kind, hint in _HINTS.items() if summed.errors.get(kind)]
    if failure is not None:
        reasons.append(failure)
    if interrupted:
        reasons.append("interrupted before its end")
    elif missing:
        reasons.append(f"{missing} of {missing + len(tallies)} stages not run")
    elif reconciliation is not None:
        reasons += reconciliation.differences
    return Result(
        command=command,
        plan=plan,
        targets=[str(endpoint) for endpoint in endpoints],
        machine=Machine.here(),
        started_at=started_at,
        stages=stages,
        totals=summed,
        latency_us=Latencies.of(measured),
        series=[second for tally in tallies for second in tally.series()],
        generator=generator(tallies, measured),
        spread=Spread.of([one for tally in tallies for one in tally.messages_by_connection]),
        reconciliation=reconciliation,
        interrupted=interrupted,
        passed=not reasons,
        reasons=reasons,
    )
