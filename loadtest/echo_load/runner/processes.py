"""The generator processes of one part of a test, whose stages share their connections."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import c_int64
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, Self

from echo_client.addresses import Address
from echo_core.limits import not_started
from echo_load.engines.share import NEVER, Share
from echo_load.errors import GeneratorError
from echo_load.plan.payload import Payload
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan
from echo_load.runner.generator import STOP_SIGNALS, Interrupt, Start, Update, generate
from echo_load.runner.tally import Tally

_SPAWN = multiprocessing.get_context("spawn")
_TICK_SECONDS = 0.1
_SAFE_PATH = "PYTHONSAFEPATH"
# The environment, which starting generators changes for a moment, is that of all threads.
_STARTING = threading.Lock()
_NAME = "generator-"
_UNGUARDED = (
    "the script runs this test at its top level, and so would each generator, which imports the "
    'script: put the call under `if __name__ == "__main__":`, as multiprocessing requires'
)
_UNGUARDED_EXIT = 97
# Time between `Start` and the gate: every generator has to read it, and each of its threads has to
# wake up (measured: 0.05 s for 1000 threads, 0.8 s for 5000).
_GATE_SECONDS = 0.05
_GATE_SECONDS_PER_THREAD = 0.0002

Phase = Literal["connecting", "warming up", "running", "finishing"]


def check_script() -> None:
    """Check that generators can import the script of this process, as multiprocessing makes them.

    If this process is itself a generator that is importing the script, it ends, and its controller
    raises the error.

    Raises:
        GeneratorError: the script is not a file; or this process, which multiprocessing has
            spawned, is importing it.
    """
    process = multiprocessing.current_process()
    # multiprocessing itself refuses to start processes meanwhile, but only later.
    if getattr(process, "_inheriting", False):
        if process.name.startswith(_NAME):
            sys.exit(_UNGUARDED_EXIT)
        raise GeneratorError(_UNGUARDED)
    script = sys.modules["__main__"]
    file = getattr(script, "__file__", None)
    if file is not None and script.__spec__ is None and not Path(file).exists():
        raise GeneratorError(
            f"generators import the script of this process, but {file} is not a file; save the "
            "script to one, or use python -c"
        )


@dataclass(frozen=True, slots=True)
class Task:
    """The work of all generators for one part of a test.

    Attributes:
        plan: the test.
        stages: stages of the plan that share their connections.
        targets: addresses of each target.
        payload: messages to send.
        sources: local addresses to connect from.
        processes: largest number of generators.
        seed: seed of random numbers.
        repeat: number of the repeat, from 1.
    """

    plan: Plan
    stages: tuple[StagePlan, ...]
    targets: tuple[tuple[Address, ...], ...]
    payload: Payload
    sources: tuple[str, ...]
    processes: int
    seed: int
    repeat: int

    @property
    def warm_up(self) -> Task:
        """The task of the warm-up before this part, on connections of its own."""
        plan = self.plan.warm_up(self.stages[0])
        return replace(self, plan=plan, stages=plan.stages)

    @property
    def connections(self) -> int:
        """The largest number of connections open at once."""
        return self.plan.connections_of(self.stages)

    def shares(self, end_ns: c_int64) -> list[Share]:
        """Return the share of each generator.

        Args:
            end_ns: instant at which sending ends, in nanoseconds of the monotonic clock; it is in
                shared memory and set later.
        """
        generators = min(self.processes, self.connections)
        return [
            Share(
                plan=self.plan,
                stages=self.stages,
                targets=self.targets,
                payload=self.payload,
                sources=self.sources,
                generator=number,
                generators=generators,
                connections=self.connections,
                core=core,
                seed=self.seed,
                end_ns=end_ns,
            )
            for number, core in enumerate(_cores(self.plan, generators))
        ]


class Generators:
    """The generators of one task; a context manager that ends all of them.

    Attributes:
        tally: sum of their measurements so far.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._end_ns = _SPAWN.RawValue(c_int64, NEVER)
        self._shares = task.shares(self._end_ns)
        self.tally = Tally(
            task.plan, task.stages, len(self._shares), task.repeat, len(task.targets)
        )
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Self:
        """Start the generators.

        Raises:
            GeneratorError: the system cannot start another process.
        """
        try:
            self._start()
        except OSError as error:
            self.__exit__()
            raise GeneratorError(f"cannot start a generator: {not_started(error)}") from error
        except BaseException:
            # Such as a KeyboardInterrupt.
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        with _STARTING, _safe_path(), _stop_signals_blocked():
            for number, share in enumerate(self._shares, 1):
                ours, theirs = _SPAWN.Pipe()
                process = _SPAWN.Process(
                    target=generate, args=(share, theirs), name=f"{_NAME}{number}", daemon=True
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

    def phases(self, should_stop: Callable[[], bool]) -> Iterator[tuple[Phase, float]]:
        """Run the task; yield its progress several times per second.

        Args:
            should_stop: returns whether to stop; it is polled.

        Yields:
            The phase, and the seconds since the gate opened.

        Raises:
            GeneratorError: a generator failed or died.
        """
        stop_sent = False
        while any(state != "ended" for state in self.tally.states):
            self._receive()
            if stop_sent:
                pass
            elif should_stop() or self._nothing_opened():
                self.tally.stop(time.monotonic_ns())
                self._end_ns.value = 0
                self._send(Interrupt())
                stop_sent = True
            elif self.tally.gate_ns is None and set(self.tally.states) == {"ready"}:
                self._open_gate()
            yield self._phase()

    def _nothing_opened(self) -> bool:
        """Return whether every initial attempt to connect has failed."""
        return (
            self.tally.gate_ns is None
            and set(self.tally.states) == {"ready"}
            and not self.tally.counts.opened
            and bool(self.tally.counts.failed)
        )

    def _receive(self) -> None:
        """Receive the updates that arrive within a tick, and add them to the tally.

        Raises:
            GeneratorError: a generator failed or died.
        """
        open_pipes = [
            pipe
            for pipe, state in zip(self._pipes, self.tally.states, strict=True)
            if state != "ended"
        ]
        for pipe in wait(open_pipes, _TICK_SECONDS):
            assert isinstance(pipe, Connection)
            number = self._pipes.index(pipe)
            try:
                update = pipe.recv()
            except (EOFError, ConnectionResetError) as error:
                process = self._processes[number]
                process.join()
                if process.exitcode == _UNGUARDED_EXIT:
                    raise GeneratorError(_UNGUARDED) from error
                raise GeneratorError(
                    f"{process.name} died with exit code {process.exitcode}"
                ) from error
            assert isinstance(update, Update)
            if update.state == "failed":
                raise GeneratorError(f"{self._processes[number].name}: {update.failure}")
            self.tally.take(number, update)

    def _open_gate(self) -> None:
        """Set the instants of the first and of the last message, and start the generators."""
        seconds = _GATE_SECONDS
        if self._task.plan.driven_by != "hub":
            threads = max(len(share.numbers) for share in self._shares)
            seconds += _GATE_SECONDS_PER_THREAD * threads
        gate_ns = time.monotonic_ns() + int(seconds * 1e9)
        seconds = min(self.tally.timeline.seconds, NEVER / 2e9)
        self.tally.begin(gate_ns)
        self._end_ns.value = min(NEVER, gate_ns + int(seconds * 1e9))
        self._send(Start(gate_ns))

    def _send(self, command: Start | Interrupt) -> None:
        for pipe, state in zip(self._pipes, self.tally.states, strict=True):
            if state != "ended":
                # If the generator has died, `_receive` raises the error.
                with suppress(BrokenPipeError):
                    pipe.send(command)

    def _phase(self) -> tuple[Phase, float]:
        if self.tally.gate_ns is None:
            return "connecting", 0.0
        elapsed = max(0.0, (time.monotonic_ns() - self.tally.gate_ns) / 1e9)
        return ("running" if elapsed < self.tally.timeline.seconds else "finishing"), elapsed


def _cores(plan: Plan, generators: int) -> Sequence[int | None]:
    """Return the core to which to pin each generator; None for a generator that is not pinned.

    Generators of the threads engine are pinned if that leaves a core for the target: their threads
    take turns holding the GIL, and passing it to another core is slow. With 100 connections, a
    generator on one core sent 5 times as many messages as on two. Other engines have one thread,
    which is faster on whichever core is idle.
    """
    if plan.driven_by != "threads" or not hasattr(os, "sched_getaffinity"):
        return [None] * generators
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    return cores[:generators] if generators < len(cores) else [None] * generators


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keep processes started in the block from importing modules of the current directory.

    Without PYTHONSAFEPATH they would import from there before they receive the module path of this
    process.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Block the stop signals in processes started in the block.

    Until a generator ignores these signals, one to the process group would end it.
    """
    # Starting multiprocessing's resource tracker would unblock SIGINT, so start it first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
