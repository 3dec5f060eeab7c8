"""The search for the idle time after which a path drops a connection."""

from __future__ import annotations

import itertools
import random
import select
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from msgspec import structs

from echo_client.errors import ClientError, ConnectError, MismatchError, ReplyTimeoutError
from echo_core.limits import raise_descriptor_limit
from echo_core.units import LONGEST_SECONDS
from echo_load.limits.connector import connectors
from echo_load.limits.idle_connections import CheckedConnection, IdleConnection
from echo_load.limits.idle_control import Control, NotIdlenessError
from echo_load.limits.idle_plan import IdlePlan
from echo_load.limits.idle_verdict import reach_verdict, thresholds
from echo_load.limits.ladder import conclude, first_rungs, next_rungs
from echo_load.limits.local_tally import LocalTally
from echo_load.measure.counts import Counts
from echo_load.plan import fields
from echo_load.results.idle import IdleResult, IdleRung
from echo_load.results.result import Result
from echo_load.runner.controller import Interruption, check_arguments
from echo_load.runner.generator import SNAPSHOT_SECONDS
from echo_load.runner.observer import Observer, Progress

# Connections per pause, by scheme: a single datagram may be lost for other reasons than idleness.
_CONNECTIONS_PER_PAUSE = {"udp": 3}
_POLL_SECONDS = 0.1


def find_idle(
    idle_plan: IdlePlan,
    *,
    observer: Observer | None = None,
    handle_signals: bool = False,
    interruption: Interruption | None = None,
) -> Result:
    """Find the idle time after which a connection is dropped, and how it is dropped.

    Args:
        idle_plan: the plan of the search.
        observer: receives the progress.
        handle_signals: whether the first SIGINT, SIGTERM or SIGHUP ends the search, with a result,
            and the second one ends the process. Possible in the main thread only.
        interruption: a request to stop, which another thread may make.

    Raises:
        ClientError: the target cannot be reached, or does not echo, at the beginning.
        InvalidValueError: a source address is not one of this machine.
        TlsFileError: a file for TLS is invalid.
    """
    fields.instance_of(IdlePlan)("idle_plan", idle_plan)
    check_arguments(observer, interruption)
    observer = observer or Observer()
    raise_descriptor_limit()
    interruption = interruption or Interruption()
    with ExitStack() as stack:
        if handle_signals:
            stack.enter_context(interruption.by_signals())
        search = _Search(idle_plan, observer, lambda: interruption.requested)
        stack.callback(search.close)
        search.run()
        result = search.result(interrupted=interruption.requested)
    observer.ended(result)
    return result


class _Search:
    """A search in progress.

    Args:
        idle_plan: the plan of the search.
        observer: receives the progress.
        is_stopped: returns whether to stop; it is polled.

    Raises:
        ClientError: the target cannot be reached, or does not echo.
    """

    def __init__(
        self, idle_plan: IdlePlan, observer: Observer, is_stopped: Callable[[], bool]
    ) -> None:
        plan = idle_plan.plan
        self._idle_plan = idle_plan
        self._observer = observer
        self._is_stopped = is_stopped
        (self._connector,) = connectors(plan, plan.endpoints, plan.connect_timeout)
        self._payload = plan.payload(random.SystemRandom().getrandbits(32))
        self._timeout = plan.reply_timeout
        self._numbers = itertools.count(1)
        self._per_pause = _CONNECTIONS_PER_PAUSE.get(plan.endpoints[0].scheme, 1)
        first = first_rungs(idle_plan.up_to, idle_plan.at_least)
        self._plan = replace(
            plan, connections=len(first) * self._per_pause, duration=LONGEST_SECONDS
        )
        self._local = LocalTally(self._plan, self._payload)
        self._counts = Counts()
        self._rungs: list[IdleRung] = []
        self._round = 0
        self._waiting: list[IdleConnection] = []
        self._failure: str | None = None
        self._local.start()
        self._shown = 0.0
        # Often enough that it is never idle for a pause.
        self._control = Control(self._connected, first[0] / 2, self._timeout)

    def _connected(self) -> CheckedConnection:
        """Open a connection, and exchange its first message.

        Over UDP, where a datagram may be lost, up to three connections are tried.

        Raises:
            ClientError: it cannot be opened, or the message got no reply or a wrong one.
        """
        for _ in range(self._per_pause - 1):
            with suppress(ReplyTimeoutError):
                return self._connected_once()
        return self._connected_once()

    def _connected_once(self) -> CheckedConnection:
        try:
            connection = CheckedConnection(
                self._connector.open(),
                next(self._numbers),
                self._payload,
                self._counts,
                self._local.recorder,
            )
        except ConnectError:
            self._counts.failed += 1
            raise
        try:
            connection.begin()
        except ClientError as error:
            connection.close()
            target = self._plan.targets[0]
            raise type(error)(f"{target} does not echo: {error}") from error
        return connection

    def run(self) -> None:
        """Run rounds until the answer is precise enough, or a round does not improve it.

        A failure that is not caused by idleness ends the search, and so does a request to stop.
        """
        pauses = first_rungs(self._idle_plan.up_to, self._idle_plan.at_least)
        try:
            while pauses and not self._is_stopped():
                self._round += 1
                before = self.found()
                self._run_round(pauses)
                found = self.found()
                narrower = (found.kept_seconds, found.dropped_seconds) != (
                    before.kept_seconds,
                    before.dropped_seconds,
                )
                pauses = next_rungs(found) if narrower else []
        except (MismatchError, NotIdlenessError) as error:
            self._failure = str(error)

    def _run_round(self, pauses: Sequence[float]) -> None:
        """Leave connections idle for pauses, probe them, and add their outcomes to the rungs."""
        try:
            for pause in pauses:
                self._open(pause)
            while (self._unknown() or not self._control.proves_drops) and not self._is_stopped():
                self._step(_POLL_SECONDS)
            if not self._control.proves_drops:
                self._disregard()
        except NotIdlenessError:
            # Drops at the same time are not caused by idleness either.
            self._disregard()
            raise
        finally:
            self._rungs += self._rungs_of_round()
            for one in self._waiting:
                one.connection.close()
            self._waiting = []

    def _open(self, pause: float) -> None:
        """Open the connections of a pause."""
        for _ in range(self._per_pause):
            if self._is_stopped():
                return
            try:
                connection = self._connected()
            except ClientError as error:
                raise NotIdlenessError(f"a new connection failed: {error}") from error
            self._waiting.append(IdleConnection(connection, pause, self._timeout))
            self._step(0.0)

    def _unknown(self) -> list[IdleConnection]:
        return [one for one in self._waiting if not one.is_over]

    def _step(self, longest: float) -> None:
        """Wait for the next event, or until an action is due, and handle it.

        Args:
            longest: longest time to wait in seconds.
        """
        waiting = self._unknown()
        poll = select.poll()
        by_descriptor = {one.connection.fileno(): one for one in waiting}
        for descriptor in (*by_descriptor, self._control.fileno()):
            poll.register(descriptor, select.POLLIN)
        due = min((one.due for one in waiting), default=float("inf"))
        seconds = max(0.0, min(longest, due - time.monotonic()))
        for descriptor, _ in poll.poll(seconds * 1e3):
            if descriptor in by_descriptor:
                by_descriptor[descriptor].receive()
            else:
                self._control.receive()
        now = time.monotonic()
        for one in waiting:
            one.act(now)
        if any(one.is_over and one.outcome != "kept" for one in waiting):
            self._control.note_drop(now)
        self._control.act(now)
        if any(one.outcome == "silence" for one in waiting):
            self._control.check_target()
        if now - self._shown >= SNAPSHOT_SECONDS:
            self._shown = now
            self._update(ended=False)

    def _disregard(self) -> None:
        """Set the outcomes of this round to unknown, except for connections that were kept."""
        for one in self._waiting:
            if one.outcome != "kept":
                one.outcome, one.closed_seconds = "unknown", None

    def _rungs_of_round(self) -> list[IdleRung]:
        """Return the rungs of the current round.

        With several connections per pause, the best outcome counts.
        """
        rungs = []
        for pause, group in itertools.groupby(self._waiting, key=lambda one: one.pause):
            several = list(group)
            best = next((one for one in several if one.outcome == "kept"), None)
            best = best or next((one for one in several if not one.is_over), several[0])
            rungs.append(
                IdleRung(
                    round=self._round,
                    pause_seconds=pause,
                    idle_seconds=best.idle_seconds,
                    outcome=best.outcome,
                    closed_seconds=best.closed_seconds,
                )
            )
        return rungs

    def found(self) -> IdleResult:
        """Return the answer so far."""
        return conclude(self._idle_plan.unanswered, self._rungs + self._rungs_of_round())

    def _update(self, *, ended: bool) -> None:
        local = self._local
        local.take(local.recorder.take(self._counts.copy()), ended=ended)
        self._observer.progressed(
            Progress(
                self._round, self._round, "running", local.elapsed, local.tally, idle=self.found()
            )
        )

    def close(self) -> None:
        """Close all connections."""
        for one in self._waiting:
            one.connection.close()
        self._control.close()

    def result(self, *, interrupted: bool) -> Result:
        """Return the result of the search."""
        self.close()
        self._local.stop(time.monotonic())
        self._update(ended=True)
        found = self.found()
        verdict, reasons = reach_verdict(found, self._failure, interrupted=interrupted)
        result = self._local.result(
            "idle",
            replace(self._plan, duration=self._local.elapsed),
            self._plan.targets,
            verdict,
            reasons=reasons,
            thresholds=thresholds(found),
            idle=found,
        )
        # A connection sends too few messages for these figures.
        return structs.replace(
            result,
            totals=structs.replace(result.totals, jitter_us=None, loss_burst=None),
            stages=[structs.replace(one, jitter_us=None, loss_burst=None) for one in result.stages],
        )
