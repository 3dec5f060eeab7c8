"""One load-generating process: an engine, and a pipe to the controller.

The process is started fresh (spawned), so that what the controller imports and patches does not
reach the engine, and the screen does not share its interpreter.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal

from echo_client.failure_kinds import FailureKind
from echo_core.errors import EchoswarmError
from echo_core.limits import raise_descriptor_limit
from echo_load.engines.engine import Engine
from echo_load.engines.recorder import Recorder, Snapshot
from echo_load.engines.share import Share

SNAPSHOT_SECONDS = 0.25
# How often to check whether all connections are open, or have ended.
_LOOK_SECONDS = 0.02
# How long replies are waited for beyond their timeouts before their threads are woken.
_MARGIN_SECONDS = 1.0
# A core that is idle for less than this share of the time counts as fully used.
_IDLE_SHARE = 0.05

# Signals that ask the controller to stop: Ctrl-C, a service manager, a closed terminal.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

State = Literal["connecting", "ready", "running", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class Start:
    """From the controller: begin at an instant of the monotonic clock, the same for all.

    Attributes:
        gate_ns: when the first messages leave.
    """

    gate_ns: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """From the controller: stop and report."""


@dataclass(frozen=True, slots=True)
class Report:
    """To the controller: the generator's state and its measurements.

    Attributes:
        state: `connecting`, `ready` to start, `running`, or in the last report `ended` or `failed`.
        snapshot: the measurements since the last report; None if it failed.
        seconds: time since it was told to start.
        cpu_seconds: processor time that it has used in that time.
        waited_seconds: time that it waited for a processor in that time; for the threads engine,
            time that others used its core.
        messages_by_connection: round trips of each of its connections, in the last report only.
        failure: why it failed.
    """

    state: State
    snapshot: Snapshot | None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    waited_seconds: float = 0.0
    messages_by_connection: list[int] = field(default_factory=list)
    failure: str = ""


def generate(share: Share, controller: Connection) -> None:
    """Run a generator: connect, report, wait for the start, generate, report, end.

    The process also ends when the controller's end of the pipe is closed.
    """
    # They reach the whole process group; the controller decides, and its end is noticed.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if share.core is not None:
        os.sched_setaffinity(0, {share.core})
    raise_descriptor_limit()
    try:
        engine, recorder, wait = _make_engine(share)
        _Generator(engine, recorder, wait, share, controller).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)
    except EchoswarmError as error:
        controller.send(Report("failed", None, failure=str(error)))


def _make_engine(share: Share) -> tuple[Engine, Recorder, Callable[[Connection, float], bool]]:
    """The engine, its recorder, and a function that waits for a message of the controller."""
    recorder = Recorder(share.timeline)
    if share.plan.driven_by == "greenlets":
        from gevent import monkey

        monkey.patch_all()
    if share.plan.driven_by == "hub":
        from echo_load.engines.hub.engine import HubEngine

        return HubEngine(share, recorder), recorder, _wait_on_hub
    from echo_load.engines.threads import ThreadsEngine

    wait = _wait if share.plan.driven_by == "threads" else _wait_on_hub
    return ThreadsEngine(share, recorder), recorder, wait


def _wait(controller: Connection, seconds: float) -> bool:
    return controller.poll(seconds)


def _wait_on_hub(controller: Connection, seconds: float) -> bool:
    """Wait as `poll` does, which would block the hub."""
    from gevent.select import select

    return bool(select([controller.fileno()], [], [], seconds)[0])


class _Generator:
    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        wait: Callable[[Connection, float], bool],
        share: Share,
        controller: Connection,
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._wait = wait
        self._share = share
        self._controller = controller
        self._usage = self._measure_usage()
        self._reported = 0.0

    def run(self) -> None:
        start = self._connect()
        in_time = True
        if start is not None:
            self._usage = self._measure_usage()
            # What is allocated now stays: searching it for garbage would delay messages by
            # milliseconds.
            gc.freeze()
            self._recorder.start(start.gate_ns)
            self._engine.start(start.gate_ns)
            in_time = self._until_ended()
        self._engine.abort(verdict=None if in_time else FailureKind.TIMEOUT)
        self._engine.join(_MARGIN_SECONDS)
        self._report("ended")

    def _connect(self) -> Start | None:
        """Open the connections and wait for the start; None if told to stop instead."""
        self._engine.open()
        while not self._engine.settled:
            if self._wait(self._controller, _LOOK_SECONDS):
                return self._word()
            self._report_now_and_then("connecting")
        self._report("ready")
        while not self._wait(self._controller, SNAPSHOT_SECONDS):
            # A connection that is lost while others wait for the gate is reported at once.
            self._report("ready")
        return self._word()

    def _word(self) -> Start | None:
        word = self._controller.recv()
        return word if isinstance(word, Start) else None

    def _until_ended(self) -> bool:
        """Report until all connections have ended or it is told to stop; False if they are late."""
        # One timeout each for sending what is overdue, sending, receiving, and finding out whether
        # a late reply still comes.
        patience_ns = int((4 * self._share.plan.reply_timeout + _MARGIN_SECONDS) * 1e9)
        while not self._engine.ended:
            if time.monotonic_ns() > self._share.end_ns.value + patience_ns:
                return self._share.end_ns.value == 0
            if self._wait(self._controller, _LOOK_SECONDS):
                self._controller.recv()
                return True
            self._report_now_and_then("running")
        return True

    def _measure_usage(self) -> _Usage:
        return _Usage(threads=self._share.plan.driven_by == "threads")

    def _report_now_and_then(self, state: State) -> None:
        # Stages and seconds are reported one look early, so that none ends after the next has
        # begun.
        soon_ns = time.monotonic_ns() + int(_LOOK_SECONDS * 1e9)
        stage = self._recorder.stage_at(soon_ns)
        if stage != self._recorder.stage:
            self._report(state)
            self._recorder.stage = stage
        elif self._turn(soon_ns) != self._reported:
            self._report(state)

    def _turn(self, now_ns: int) -> float:
        """The number of the snapshot; once stages have begun, every fourth ends with a second."""
        elapsed = self._recorder.elapsed_at(now_ns)
        return (elapsed if elapsed > -math.inf else now_ns / 1e9) // SNAPSHOT_SECONDS

    def _report(self, state: State) -> None:
        self._reported = self._turn(time.monotonic_ns() + int(_LOOK_SECONDS * 1e9))
        counts = self._engine.counts()
        self._controller.send(
            Report(
                state,
                self._recorder.take(counts),
                *self._usage.now(),
                self._engine.messages_by_connection() if state == "ended" else [],
            )
        )


class _Usage:
    """The time, the processor time, and the time of waiting for a processor since it was made.

    Args:
        threads: the process has many threads, which also wait for one another.
    """

    def __init__(self, *, threads: bool) -> None:
        self._threads = threads
        self._begin = self._times()

    def now(self) -> tuple[float, float, float]:
        seconds, used, waited = (
            now - begin for now, begin in zip(self._times(), self._begin, strict=True)
        )
        if self._threads:
            # The time that others used its core, if that was fully used.
            idle = waited
            waited = max(0.0, seconds - used - idle) if idle < _IDLE_SHARE * seconds else 0.0
        return seconds, used, waited

    def _times(self) -> tuple[float, float, float]:
        third = _idle_seconds() if self._threads else _waited_seconds()
        return time.monotonic(), time.process_time(), third


def _idle_seconds() -> float:
    """Seconds that this process's only core was idle (proc_stat(5)); with several cores, all."""
    try:
        (core,) = os.sched_getaffinity(0)
        with open("/proc/stat") as file:  # noqa: PTH123  # several times a second
            (line,) = (one for one in file if one.startswith(f"cpu{core} "))
        _, _, _, _, idle, waiting, *_ = line.split()
        return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError):
        return time.monotonic()


def _waited_seconds() -> float:
    """Seconds that the main thread waited for a processor (proc_pid_schedstat(5)), or 0."""
    try:
        with open("/proc/self/schedstat") as file:  # noqa: PTH123  # several times a second
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
