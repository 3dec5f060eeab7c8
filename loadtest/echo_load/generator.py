"""One load-generating process: an engine, and a pipe to the controller.

The process is started fresh (spawned), so that what the controller imports and patches does not
reach the engine, and the screen does not share its interpreter.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

from echo_load.engines import Engine, Share, Snapshot
from echo_load.engines.threads import ThreadsEngine

SNAPSHOT_SECONDS = 0.25
# How often it is looked at whether all connections are open, or have ended.
_LOOK_SECONDS = 0.02
# What replies that are due get beyond their own timeouts before their threads are woken.
_MARGIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """From the controller: begin at an instant of the monotonic clock, which all share.

    Attributes:
        begin_ns: when the first messages leave.
    """

    begin_ns: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """From the controller: break off and report."""


@dataclass(frozen=True, slots=True)
class Report:
    """To the controller: how far the generator is, and what has happened.

    Attributes:
        state: `connecting`, `ready` to start, `running`, or `ended`, which is the last report.
        snapshot: what has happened.
        cpu_seconds: processor time of the process since it was told to start.
    """

    state: Literal["connecting", "ready", "running", "ended"]
    snapshot: Snapshot
    cpu_seconds: float


def generate(share: Share, controller: Connection) -> None:
    """Be a generator: connect, report, wait for the start, generate, report, end.

    The controller's end closing means that nobody is interested any more: the process ends.
    """
    # The terminal sends Ctrl-C to every process of the group; the controller decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if share.core is not None:
        os.sched_setaffinity(0, {share.core})
    try:
        _Generator(ThreadsEngine(share), share, controller).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)


class _Generator:
    def __init__(self, engine: Engine, share: Share, controller: Connection) -> None:
        self._engine = engine
        self._share = share
        self._controller = controller
        self._cpu_begin = 0.0

    def run(self) -> None:
        start = self._connect()
        in_time = True
        if start is not None:
            self._cpu_begin = time.process_time()
            self._engine.start(start.begin_ns)
            in_time = self._until_ended()
        self._engine.abort(verdict=None if in_time else "timeout")
        self._engine.join(_MARGIN_SECONDS)
        self._report("ended")

    def _connect(self) -> Start | None:
        """Open the connections and wait for the word; None if that is to break off."""
        self._engine.open()
        reported = time.monotonic()
        while not self._engine.settled:
            if self._controller.poll(_LOOK_SECONDS):
                return self._word()
            if time.monotonic() - reported >= SNAPSHOT_SECONDS:
                self._report("connecting")
                reported = time.monotonic()
        self._report("ready")
        return self._word()

    def _word(self) -> Start | None:
        word = self._controller.recv()
        return word if isinstance(word, Start) else None

    def _until_ended(self) -> bool:
        """Report until all connections have ended or it is to break off; False if they are late."""
        # Sending, receiving, and finding out whether a late reply still comes: a timeout each.
        patience_ns = int((3 * self._share.timeout + _MARGIN_SECONDS) * 1e9)
        reported = time.monotonic()
        while not self._engine.ended:
            if time.monotonic_ns() > self._share.end_ns.value + patience_ns:
                return self._share.end_ns.value == 0
            if self._controller.poll(_LOOK_SECONDS):
                self._controller.recv()
                return True
            if time.monotonic() - reported >= SNAPSHOT_SECONDS:
                self._report("running")
                reported = time.monotonic()
        return True

    def _report(self, state: Literal["connecting", "ready", "running", "ended"]) -> None:
        cpu = time.process_time() - self._cpu_begin if self._cpu_begin else 0.0
        self._controller.send(Report(state, self._engine.snapshot(), cpu))
