"""A generator: a process that runs an engine, with a pipe to the controller.

It is spawned, not forked, so that it does not inherit the modules that the controller has imported.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

from echo_client.failure_kinds import FailureKind
from echo_core.errors import EchoswarmError
from echo_core.limits import raise_descriptor_limit
from echo_load.engines.engine import Engine
from echo_load.engines.recorder import Recorder, Snapshot
from echo_load.engines.several import SeveralEngines
from echo_load.engines.share import Share

SNAPSHOT_SECONDS = 0.25
# Interval at which the engine is polled: whether all connections are open, or have ended.
_POLL_SECONDS = 0.02
# Extra time for threads to be woken by their timeouts and to end.
_MARGIN_SECONDS = 1.0
# A core that is idle for a smaller share of the time than this counts as fully used.
_IDLE_SHARE = 0.05

# Signals on which the controller stops the test: Ctrl-C, a service manager, a closed terminal.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

State = Literal["connecting", "ready", "running", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class Start:
    """A command to a generator to start sending.

    Attributes:
        gate_ns: instant at which the first messages leave, the same for all generators, in
            nanoseconds of the monotonic clock.
    """

    gate_ns: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A command to a generator to stop and to send its last update."""


@dataclass(frozen=True, slots=True)
class Update:
    """The state and the latest measurements of a generator, sent to the controller.

    Attributes:
        state: `connecting`, `ready` or `running`; in the last update `ended` or `failed`.
        snapshots: measurements since the previous update, by the index of the target; empty if the
            generator failed.
        seconds: seconds since the generator received `Start`, or was created if it has not yet.
        cpu_seconds: processor time that it has used since then.
        waited_seconds: time that it has waited for a processor since then; with the threads engine,
            time in which other processes used its core.
        messages_by_connection: round trips of each of its connections, in the last update only.
        failure: the reason for which it failed.
    """

    state: State
    snapshots: dict[int, Snapshot]
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    waited_seconds: float = 0.0
    messages_by_connection: list[int] = field(default_factory=list)
    failure: str = ""


def generate(share: Share, controller: Connection) -> None:
    """Run a generator: connect, wait for `Start`, and generate load; send updates meanwhile.

    The process also ends when the controller closes its end of the pipe.

    Args:
        share: the share of the generator.
        controller: pipe to the controller.
    """
    # The terminal sends signals to the whole process group; only the controller stops the test.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if share.core is not None:
        os.sched_setaffinity(0, {share.core})
    raise_descriptor_limit()
    try:
        _patch(share)
        parts = _parts(share)
        wait = _wait if share.plan.driven_by == "threads" else _wait_on_hub
        _Generator(parts, wait, share, controller).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)
    except EchoswarmError as error:
        controller.send(Update("failed", {}, failure=str(error)))


def _patch(share: Share) -> None:
    """Monkey-patch the process if the engine's threads are to be greenlets."""
    if share.plan.driven_by == "greenlets":
        from gevent import monkey

        monkey.patch_all()


class _Part(NamedTuple):
    """The connections to one target: their engine, and where that records."""

    engine: Engine
    recorder: Recorder


def _parts(share: Share) -> dict[int, _Part]:
    """Return the part of each target, by the target's index.

    In an open loop each target is due its own part of the rate, whatever becomes of the others.
    """
    parts = {}
    for target, one in share.by_target().items():
        recorder = Recorder(one.timeline, one.payload)
        parts[target] = _Part(_make_engine(one, recorder), recorder)
    return parts


def _make_engine(share: Share, recorder: Recorder) -> Engine:
    if share.plan.driven_by == "hub":
        from echo_load.engines.hub.engine import HubEngine

        return HubEngine(share, recorder)
    from echo_load.engines.threads import ThreadsEngine

    return ThreadsEngine(share, recorder)


def _wait(controller: Connection, seconds: float) -> bool:
    return controller.poll(seconds)


def _wait_on_hub(controller: Connection, seconds: float) -> bool:
    """Wait for a command as `_wait` does, but without blocking the hub."""
    from gevent.select import select

    return bool(select([controller.fileno()], [], [], seconds)[0])


class _Generator:
    def __init__(
        self,
        parts: Mapping[int, _Part],
        wait: Callable[[Connection, float], bool],
        share: Share,
        controller: Connection,
    ) -> None:
        self._parts = parts
        engines = [part.engine for part in parts.values()]
        self._engine = engines[0] if len(engines) == 1 else SeveralEngines(engines)
        self._recorders = [part.recorder for part in parts.values()]
        self._wait = wait
        self._share = share
        self._controller = controller
        self._usage = self._measure_usage()
        self._last_interval = 0.0

    def run(self) -> None:
        start = self._connect()
        in_time = True
        if start is not None:
            self._usage = self._measure_usage()
            # Objects that exist by now are kept until the end. Collecting garbage among them would
            # delay messages by milliseconds.
            gc.freeze()
            for recorder in self._recorders:
                recorder.start(start.gate_ns)
            self._engine.start(start.gate_ns)
            in_time = self._until_ended()
        self._engine.abort(verdict=None if in_time else FailureKind.TIMEOUT)
        self._engine.join(_MARGIN_SECONDS)
        self._send_update("ended")

    def _connect(self) -> Start | None:
        """Open the connections and wait for `Start`; return None if `Interrupt` arrives instead."""
        self._engine.open()
        while not self._engine.settled:
            if self._wait(self._controller, _POLL_SECONDS):
                return self._receive_start()
            self._send_update_if_due("connecting")
        self._send_update("ready")
        while not self._wait(self._controller, SNAPSHOT_SECONDS):
            # These updates report connections that are lost before the start.
            self._send_update("ready")
        return self._receive_start()

    def _receive_start(self) -> Start | None:
        command = self._controller.recv()
        return command if isinstance(command, Start) else None

    def _until_ended(self) -> bool:
        """Send updates until all connections have ended, or `Interrupt` arrives.

        Returns:
            False if connections had not ended long after the end of the test.
        """
        # One timeout each for sending overdue messages, for the last send, for its reply, and for a
        # late reply.
        grace_ns = int((4 * self._share.plan.reply_timeout + _MARGIN_SECONDS) * 1e9)
        while not self._engine.ended:
            if time.monotonic_ns() > self._share.end_ns.value + grace_ns:
                return self._share.end_ns.value == 0
            if self._wait(self._controller, _POLL_SECONDS):
                self._controller.recv()
                return True
            self._send_update_if_due("running")
        return True

    def _measure_usage(self) -> _Usage:
        return _Usage(threads=self._share.plan.driven_by == "threads")

    def _send_update_if_due(self, state: State) -> None:
        # Updates at the end of a stage or a second are sent one poll early, so that none is sent
        # after the next one has begun.
        soon_ns = time.monotonic_ns() + int(_POLL_SECONDS * 1e9)
        stage = self._recorders[0].stage_at(soon_ns)
        if stage != self._recorders[0].stage:
            self._send_update(state)
            for recorder in self._recorders:
                recorder.stage = stage
        elif self._interval_at(soon_ns) != self._last_interval:
            self._send_update(state)

    def _interval_at(self, now_ns: int) -> float:
        """Return the number of the interval between updates; each fourth one ends with a second."""
        elapsed = self._recorders[0].elapsed_at(now_ns)
        return (elapsed if elapsed > -math.inf else now_ns / 1e9) // SNAPSHOT_SECONDS

    def _send_update(self, state: State) -> None:
        self._last_interval = self._interval_at(time.monotonic_ns() + int(_POLL_SECONDS * 1e9))
        snapshots = {
            target: part.recorder.take(part.engine.counts()) for target, part in self._parts.items()
        }
        self._controller.send(
            Update(
                state,
                snapshots,
                *self._usage.now(),
                self._engine.messages_by_connection() if state == "ended" else [],
            )
        )


class _Usage:
    """A measurement of elapsed time, processor time and time spent waiting for a processor.

    It begins with its creation.

    Args:
        threads: whether the process has many threads, which also wait for one another.
    """

    def __init__(self, *, threads: bool) -> None:
        self._threads = threads
        self._begin = self._times()

    def now(self) -> tuple[float, float, float]:
        """Return the three times so far in seconds."""
        seconds, used, waited = (
            now - begin for now, begin in zip(self._times(), self._begin, strict=True)
        )
        if self._threads:
            # If the core was fully used, the time in which other processes used it.
            idle = waited
            waited = max(0.0, seconds - used - idle) if idle < _IDLE_SHARE * seconds else 0.0
        return seconds, used, waited

    def _times(self) -> tuple[float, float, float]:
        third = _idle_seconds() if self._threads else _waited_seconds()
        return time.monotonic(), time.process_time(), third


def _idle_seconds() -> float:
    """Return the seconds for which the core of this process has been idle (proc_stat(5)).

    If they are unknown, or the process may use several cores, the core counts as always idle.
    """
    try:
        (core,) = os.sched_getaffinity(0)
        with open("/proc/stat") as file:  # noqa: PTH123  # several times a second
            (line,) = (one for one in file if one.startswith(f"cpu{core} "))
        _, _, _, _, idle, waiting, *_ = line.split()
        return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError):
        return time.monotonic()


def _waited_seconds() -> float:
    """Return the seconds for which the main thread has waited for a processor.

    They are read from proc_pid_schedstat(5); 0 if the kernel does not provide them.
    """
    try:
        with open("/proc/self/schedstat") as file:  # noqa: PTH123  # several times a second
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
