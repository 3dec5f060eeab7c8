"""Runs a plan: starts the generators, opens the gate, adds up what they report, stops them.

The controller never generates load, so that it can draw a screen without disturbing what is
measured.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ctypes import c_int64
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Literal, Self

from echo_client.connection import Address, resolve
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode
from echo_load.engines import Share
from echo_load.errors import GeneratorError
from echo_load.generator import Interrupt, Report, Start, generate
from echo_load.plan import Plan, StagePlan, shares
from echo_load.result import Machine, Result, StageResult
from echo_load.tally import StageTally, generator, latencies, stage_result, totals

_SPAWN = multiprocessing.get_context("spawn")
_TICK_SECONDS = 0.1
_NEVER_NS = 2**63 - 1
# From sending the start to the start: enough for every generator to have read it, and for each
# of its threads to have passed the Event (measured: 0.05 s for 1000, 0.8 s for 5000).
_GATE_SECONDS = 0.05
_GATE_SECONDS_PER_THREAD = 0.0002

Phase = Literal["connecting", "running", "finishing"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: number of the stage, from 1.
        stages: how many there are.
        phase: what the stage is doing.
        elapsed: seconds since its gate opened.
        tally: its figures so far.
    """

    stage: int
    stages: int
    phase: Phase
    elapsed: float
    tally: StageTally


class Interruption:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def by_signals(self, quit_now: Callable[[], None]) -> Iterator[None]:
        """While in the block, SIGINT and SIGTERM ask; the second one quits the process at once.

        Args:
            quit_now: called before the process quits, to end what it started.
        """

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if self.asked:
                quit_now()
                os._exit(ExitCode.INTERRUPTED)
            self.asked = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, on_signal) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def run(
    plan: Plan,
    target: Endpoint,
    *,
    command: str,
    interruption: Interruption,
    on_progress: Callable[[Progress], None],
    on_stage: Callable[[StageResult], None],
    failure: Callable[[], str | None],
) -> Result:
    """Run every stage of a plan against a target, one after the other.

    A stage in which no connection could be opened is the last one.

    Args:
        plan: what to do.
        target: the echo service.
        command: what the result calls the run.
        interruption: asks for an early end.
        on_progress: called several times a second.
        on_stage: called with each stage that has ended.
        failure: says at the end what failed besides what was counted, or None.

    Raises:
        UnresolvedError: the target's host is not known.
        GeneratorError: a generator died.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    addresses = resolve(target)
    tallies: list[StageTally] = []
    results: list[StageResult] = []
    for number, stage in enumerate(plan.stages, 1):
        with _Stage(plan, stage, addresses) as running:
            tallies.append(running.tally)
            for phase, elapsed in running.phases(interruption):
                on_progress(Progress(number, len(plan.stages), phase, elapsed, running.tally))
        results.append(stage_result(running.tally))
        on_stage(results[-1])
        if interruption.asked or not running.tally.counts.opened:
            break
    reasons = [reason for stage_figures in results for reason in shortcomings(stage_figures)]
    if found := failure():
        reasons.append(found)
    if interruption.asked:
        reasons.append("interrupted before its end")
    elif len(results) < len(plan.stages):
        reasons.append(f"{len(plan.stages) - len(results)} of {len(plan.stages)} stages not run")
    return Result(
        command=command,
        plan=plan,
        target=str(target),
        machine=Machine.here(),
        started_at=started_at,
        stages=results,
        totals=totals(tallies),
        latency_us=latencies(tallies),
        series=[second for tally in tallies for second in tally.series()],
        generator=generator(tallies),
        interrupted=interruption.asked,
        passed=not reasons,
        reasons=reasons,
    )


def shortcomings(stage: StageResult) -> list[str]:
    """Why a stage did not pass, a line each; none if it did."""
    found = []
    if stage.connections_failed:
        found.append(f"{stage.connections_failed:,} connections could not be opened")
    if stage.connections_lost:
        found.append(f"{stage.connections_lost:,} connections were lost")
    if mismatches := stage.errors.get("mismatch"):
        found.append(f"{mismatches:,} replies were not what was sent")
    if not stage.messages:
        found.append("not one message came back")
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(stage.errors.items()))
    return [f"{stage.name}: {'; '.join(found)}" + (f" ({kinds})" if kinds else "")] if found else []


def _cores(generators: int) -> list[int | None]:
    """A core for each generator, if there is one for each and one left for the target.

    The threads of a process take turns at one GIL. Handing it to another core costs far more
    than to the same one: with 100 connections a generator on one core made 5 times the messages
    of one on two.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [None] * generators
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    return [*cores[:generators]] if generators < len(cores) else [None] * generators


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Let the processes started in the block be born with SIGINT blocked.

    Ctrl-C reaches them too, and until they can ignore it, it would end them.
    """
    # Starting this helper of multiprocessing's unblocks SIGINT; it must run before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Stage:
    """The generators of one stage; a context manager that leaves none behind."""

    def __init__(self, plan: Plan, stage: StagePlan, addresses: list[Address]) -> None:
        numbers = shares(stage.connections, plan.processes)
        self.tally = StageTally(stage, len(numbers))
        self._stage = stage
        self._end_ns = _SPAWN.RawValue(c_int64, _NEVER_NS)
        self._shares = [
            Share(
                addresses=tuple(addresses),
                numbers=range_,
                timeout=plan.timeout,
                connect_timeout=plan.connect_timeout,
                connects_in_flight=plan.connects_in_flight,
                core=core,
                end_ns=self._end_ns,
            )
            for range_, core in zip(numbers, _cores(len(numbers)), strict=True)
        ]
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Self:
        with _sigint_blocked():
            self._start_generators()
        return self

    def _start_generators(self) -> None:
        for number, share in enumerate(self._shares, 1):
            ours, theirs = _SPAWN.Pipe()
            process = _SPAWN.Process(
                target=generate, args=(share, theirs), name=f"generator-{number}", daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(_TICK_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    def phases(self, interruption: Interruption) -> Iterator[tuple[Phase, float]]:
        """Run the stage; yields what it is doing and for how long, several times a second."""
        told_to_stop = False
        while any(state != "ended" for state in self.tally.states):
            self._receive()
            if interruption.asked and not told_to_stop:
                self._end_ns.value = 0
                self._tell(Interrupt())
                told_to_stop = True
            elif self.tally.begin_ns is None and set(self.tally.states) == {"ready"}:
                self._open_gate()
            yield self._phase()

    def _receive(self) -> None:
        open_pipes = [
            pipe
            for pipe, state in zip(self._pipes, self.tally.states, strict=True)
            if state != "ended"
        ]
        for pipe in wait(open_pipes, _TICK_SECONDS):
            assert isinstance(pipe, Connection)
            number = self._pipes.index(pipe)
            try:
                report = pipe.recv()
            except (EOFError, ConnectionResetError) as error:
                process = self._processes[number]
                process.join()
                raise GeneratorError(
                    f"{process.name} died with exit code {process.exitcode}"
                ) from error
            assert isinstance(report, Report)
            self.tally.take(number, report)

    def _open_gate(self) -> None:
        threads = max(len(share.numbers) for share in self._shares)
        seconds = _GATE_SECONDS + _GATE_SECONDS_PER_THREAD * threads
        begin_ns = time.monotonic_ns() + int(seconds * 1e9)
        self.tally.begin_ns = begin_ns
        self._end_ns.value = begin_ns + int(self._stage.duration * 1e9)
        self._tell(Start(begin_ns))

    def _tell(self, word: Start | Interrupt) -> None:
        for pipe, state in zip(self._pipes, self.tally.states, strict=True):
            if state != "ended":
                # A generator that died says so where its reports are received.
                with suppress(BrokenPipeError):
                    pipe.send(word)

    def _phase(self) -> tuple[Phase, float]:
        if self.tally.begin_ns is None:
            return "connecting", 0.0
        elapsed = max(0.0, (time.monotonic_ns() - self.tally.begin_ns) / 1e9)
        return ("running" if elapsed < self._stage.duration else "finishing"), elapsed
