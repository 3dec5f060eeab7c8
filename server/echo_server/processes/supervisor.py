"""The supervisor, which starts, monitors, replaces and drains the workers.

The supervisor keeps all listeners open, so that connections in a worker's backlog outlive the
worker. It is never monkey-patched and has no hub: a single loop waits for signals, messages from
workers, and the time of the next action.
"""

from __future__ import annotations

import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from types import FrameType

import structlog

from echo_core import logs
from echo_core.errors import ExitCode
from echo_core.limits import raise_descriptor_limit
from echo_server.config import ServerConfig
from echo_server.errors import WorkerStartError
from echo_server.listeners import Listeners, open_listeners
from echo_server.metrics.counters import (
    Counter,
    CounterTable,
    WorkerFigures,
    open_connections,
    snapshot,
)
from echo_server.processes.control import Message, Refused, Replace, Serving
from echo_server.processes.launcher import Launcher
from echo_server.processes.notifier import Notifier
from echo_server.processes.slots import Slot, WorkerProcess
from echo_server.processes.stop_signals import STOP_SIGNALS, StopSignals, ignore_stop_signals
from echo_server.processes.substitution import Substitution
from echo_server.streams.tls import server_context

log = structlog.get_logger()

# A worker that has served for this time resets the back-off of its slot.
STEADY_SECONDS = 10.0
# The delays before a worker is started again after failures in a row.
BACK_OFF_SECONDS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
# After this number of failures in a row the server stops, if no other worker serves either.
MAX_FAILURES = 5
_FLUSH_SECONDS = 1.0
_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD)


def supervise(config: ServerConfig) -> ExitCode:
    """Serve with worker processes until SIGTERM or SIGINT; then drain.

    SIGHUP replaces the workers one after the other by new processes on the same listeners. A second
    SIGTERM or SIGINT, more than a second later, kills the workers, and the exit code is 130.

    Raises:
        InvalidValueError: `max_connections` exceeds the descriptors that the workers may open.
        TlsFileError: a certificate or a key cannot be used.
        ListenError: an endpoint cannot be listened on.
        SharedMemoryError: the counters cannot be allocated.
        WorkerStartError: the system cannot start the workers.
    """
    config.check_fit(raise_descriptor_limit())
    if config.speaks_tls:
        # Each worker creates its own context; this one only checks the files before the start.
        server_context(config)
    stream = logs.configure(config.log_level, config.log_format)
    try:
        with open_listeners(config) as listeners:
            return Supervisor(config, listeners).run()
    finally:
        stream.close(_FLUSH_SECONDS)


class Supervisor:
    """The supervisor: it runs one worker per slot, and replaces workers that die.

    Args:
        config: the settings of the server; each worker reads its settings again when it starts.
        listeners: the listeners of all slots.
    """

    def __init__(self, config: ServerConfig, listeners: Listeners) -> None:
        self._config = config
        self._listeners = listeners
        # That of the worker that began to serve last: a restart may have changed it.
        self._max_connections = config.max_connections
        self._table = CounterTable.create()
        self._launcher = Launcher(listeners, self._table, config.drain_timeout)
        self._slots = [Slot(number) for number in range(config.workers)]
        self._substitution = Substitution(self._slots, listeners)
        self._workers: list[WorkerProcess] = []
        self._restart_queue: deque[Slot] = deque()
        self._notifier = Notifier()
        self._announced = False
        self._exit_code: ExitCode | None = None
        self._signals: deque[int] = deque()
        self._stop_signals = StopSignals()
        self._selector = selectors.DefaultSelector()
        # Protects the workers and the sums of their counters, which the admin thread reads.
        self._figures_lock = threading.Lock()

    def run(self) -> ExitCode:
        """Serve until a stop signal, or until the workers have failed; return the exit code."""
        admin = None
        if self._config.admin is not None:
            from echo_server.metrics.admin import AdminServer

            descriptors = raise_descriptor_limit()
            admin = AdminServer(self._config.admin, self._config, self, descriptors)
        self._catch_signals()
        try:
            self._start_all()
            while self._workers or self._exit_code is None:
                messages = self._wait_for_events()
                # Signals first: if all processes of a service get a stop signal, the workers
                # request replacements, but the server is to stop.
                self._handle_signals()
                for worker, message in messages:
                    self._on_message(worker, message)
                self._reap()
                self._start_due_workers()
                self._kill_overdue()
                if self._announced and self._exit_code is None:
                    self._substitution.update()
                if not self._announced and all(slot.is_up for slot in self._slots):
                    self._announced = True
                    self._listeners.announce()
                    if admin is not None:
                        admin.announce()
                    self._notifier.ready()
        finally:
            for worker in self._workers:
                worker.process.kill()
        ignore_stop_signals()
        log.info("stopped", accepted=sum(one.cells[Counter.ACCEPTED] for one in self.figures()))
        return self._exit_code

    def readiness(self) -> tuple[bool, str]:
        """Return the readiness, and the state as text.

        The server is ready if all its listeners are served and it neither starts nor drains.
        """
        if not self._announced or self._exit_code is not None:
            return False, "starting or draining"
        down = sum(not slot.is_up for slot in self._slots)
        if not down:
            return True, "ready"
        state = f"{down} of {len(self._slots)} workers {'is' if down == 1 else 'are'} down"
        if all(slot.is_served for slot in self._slots):
            return True, f"ready, but {state}"
        return False, state

    @property
    def max_connections(self) -> int | None:
        """The maximum number of open connections, over all workers; None for no limit."""
        return self._max_connections

    def figures(self) -> Sequence[WorkerFigures]:
        """Return the figures of each slot; can be called from any thread."""
        with self._figures_lock:
            processes = snapshot(self._table.row(worker.row) for worker in self._workers)
            by_slot = [
                (worker.slot, cells) for worker, cells in zip(self._workers, processes, strict=True)
            ]
            return [
                self._figures(slot, [cells for owner, cells in by_slot if owner is slot])
                for slot in self._slots
            ]

    def _figures(self, slot: Slot, processes: Sequence[Sequence[int]]) -> WorkerFigures:
        current = slot.current
        return WorkerFigures(
            slot.number,
            current.process.pid if current else None,
            slot.is_up,
            slot.restarts,
            [sum(cells) for cells in zip(slot.ended, *processes, strict=True)],
        )

    def _catch_signals(self) -> None:
        wake_reader, wake_writer = socket.socketpair()
        wake_reader.setblocking(False)
        wake_writer.setblocking(False)
        self._selector.register(wake_reader, selectors.EVENT_READ)
        # A full buffer does no harm: the handlers record the signals.
        signal.set_wakeup_fd(wake_writer.detach(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _wait_for_events(self) -> list[tuple[WorkerProcess, Message]]:
        """Wait for signals, messages, or the time of the next action; return the messages."""
        due_times = [slot.start_at for slot in self._slots if slot.start_at is not None]
        due_times += [slot.substitute_at for slot in self._slots if slot.substitute_at is not None]
        due_times += [worker.deadline for worker in self._workers if worker.deadline is not None]
        timeout = max(0.0, min(due_times) - time.monotonic()) if due_times else None
        messages: list[tuple[WorkerProcess, Message]] = []
        for key, _ in self._selector.select(timeout):
            worker = key.data
            if worker is None:
                key.fileobj.recv(4096)  # type: ignore[union-attr]  # a socket
                continue
            received = worker.control.receive()
            if received is None:
                self._selector.unregister(worker.control)
            else:
                messages.append((worker, received[0]))
        return messages

    def _on_message(self, worker: WorkerProcess, message: Message) -> None:
        match message:
            case Serving(drain_timeout, max_connections):
                self._max_connections = max_connections
                self._on_serving(worker, drain_timeout)
            case Replace(reason):
                self._replace(worker, reason)
            case Refused(slot):
                self._substitution.on_refused(worker, self._slots[slot])

    def _handle_signals(self) -> None:
        while self._signals:
            number = self._signals.popleft()
            if number == signal.SIGHUP:
                self._restart_all()
            elif number != signal.SIGCHLD:
                if self._stop_signals.is_second():
                    self._exit_code = ExitCode.INTERRUPTED
                    for worker in self._workers:
                        worker.process.kill()
                elif self._exit_code is None:
                    self._stop(signal.Signals(number).name, ExitCode.OK)

    def _start_all(self) -> None:
        try:
            for slot in self._slots:
                slot.current = self._start(slot)
        except OSError as error:
            raise WorkerStartError(f"cannot start workers: {error.strerror}") from error

    def _start(self, slot: Slot) -> WorkerProcess:
        """Start a worker for a slot.

        Raises:
            OSError: the system cannot start another process.
        """
        slot.start_at = None
        worker = self._launcher.start(slot)
        self._selector.register(worker.control, selectors.EVENT_READ, worker)
        with self._figures_lock:
            self._workers.append(worker)
        return worker

    def _on_serving(self, worker: WorkerProcess, drain_timeout: float) -> None:
        worker.served_at = time.monotonic()
        worker.drain_timeout = drain_timeout
        if self._exit_code is not None:
            return
        worker.deadline = None
        slot = worker.slot
        if worker is slot.replacement:
            old, slot.current, slot.replacement = slot.current, worker, None
            slot.start_at = None
            if old is not None:
                old.drain(final=False)
            self._restart_next()

    def _stop(self, reason: str, exit_code: ExitCode) -> None:
        """Drain all workers, and stop with an exit code when they have exited."""
        if exit_code is ExitCode.OK and self._announced:
            self._serve_unserved_backlogs()
            if self._exit_code is not None:
                return
        log.info("draining", reason=reason, workers=len(self._workers))
        self._exit_code = exit_code
        self._notifier.stopping()
        self._restart_queue.clear()
        for slot in self._slots:
            slot.start_at = slot.substitute_at = None
        self._listeners.remove_files()
        if self._config.when_full == "wait":
            self._listeners.stop_queueing()
        # A listener is closed only when all its descriptors are: from now on when its worker closes
        # it, which it does once its backlog is empty.
        self._listeners.close()
        for worker in self._workers:
            if worker.served_at is None and not self._announced:
                # The listeners have not been announced, so no client connects to them.
                worker.process.kill()
            worker.drain(final=True)

    def _serve_unserved_backlogs(self) -> None:
        """Let substitutes or new workers accept the backlogs of the slots that are down."""
        self._reap()
        self._substitution.update()
        for slot in self._slots:
            if slot.current is None and not slot.is_served and self._exit_code is None:
                try:
                    slot.current = self._start(slot)
                except OSError as error:
                    log.error("worker not started", worker=slot.number, reason=error.strerror)  # noqa: TRY400

    def _restart_all(self) -> None:
        """Start a rolling restart of all workers."""
        if self._announced and self._exit_code is None:
            self._restart_slots(self._slots)

    def _replace(self, worker: WorkerProcess, reason: str) -> None:
        """Replace a worker that has requested it, unless it is being replaced already."""
        slot = worker.slot
        is_newest = worker is (slot.replacement or slot.current)
        if self._exit_code is not None or slot in self._restart_queue or not is_newest:
            return
        log.info("replacing a worker", reason=reason, worker=slot.number, pid=worker.process.pid)
        self._restart_slots([*self._restart_queue, slot])

    def _restart_slots(self, slots: Iterable[Slot]) -> None:
        """Replace the workers of some slots, one after the other."""
        if self._launcher.capacity_left <= len(self._slots):
            log.warning("not restarted: too many earlier workers still drain")
            return
        is_restarting = bool(self._restart_queue) or any(slot.replacement for slot in self._slots)
        self._restart_queue = deque(slots)
        if not is_restarting:
            log.info("restarting workers", workers=len(self._restart_queue))
            self._notifier.reloading()
            self._restart_next()

    def _restart_next(self) -> None:
        if not self._restart_queue:
            log.info("workers restarted")
            self._notifier.ready()
            return
        slot = self._restart_queue.popleft()
        try:
            slot.replacement = self._start(slot)
        except OSError as error:
            self._abort_restart(slot, str(error))

    def _reap(self) -> None:
        for worker in [one for one in self._workers if one.process.poll() is not None]:
            self._remove_exited(worker)
            if self._exit_code is None:
                self._on_death(worker)

    def _remove_exited(self, worker: WorkerProcess) -> None:
        """Add the counters of a worker that has exited to its slot's sums, and release its row."""
        counters = self._table.row(worker.row)
        with self._figures_lock:
            counters.add(Counter.CLOSED_WORKER_DIED, open_connections(counters.cells))
            for cell, value in enumerate(counters.cells):
                worker.slot.ended[cell] += value
            counters.clear()
            self._workers.remove(worker)
        if worker.control in self._selector.get_map():
            self._selector.unregister(worker.control)
        self._launcher.release(worker)

    def _on_death(self, worker: WorkerProcess) -> None:
        slot, how = worker.slot, worker.exit_reason
        if worker is slot.replacement:
            self._abort_restart(slot, how)
            if slot.current is None and slot.start_at is None:
                self._schedule_start(slot, worker)
        elif worker is slot.current:
            slot.current = None
            log.error("worker died", worker=slot.number, pid=worker.process.pid, how=how)
            self._schedule_start(slot, worker)

    def _abort_restart(self, slot: Slot, how: str) -> None:
        slot.replacement = None
        self._restart_queue.clear()
        log.error(
            "restart given up: the new worker did not become ready", worker=slot.number, how=how
        )
        self._notifier.ready()

    def _schedule_start(self, slot: Slot, worker: WorkerProcess) -> None:
        """Schedule the next start after a worker has died, or stop if starting is hopeless."""
        now = time.monotonic()
        if worker.served_at and now - worker.served_at >= STEADY_SECONDS:
            slot.failures = 0
        if not worker.served_at and (not self._announced or self._is_hopeless(slot)):
            self._stop("workers fail to start", ExitCode.SERVER)
            return
        self._back_off(slot)

    def _is_hopeless(self, slot: Slot) -> bool:
        """Return True if a slot has failed repeatedly and no slot has a serving worker."""
        return slot.failures >= MAX_FAILURES and not any(one.is_up for one in self._slots)

    def _back_off(self, slot: Slot) -> None:
        delay = BACK_OFF_SECONDS[min(slot.failures, len(BACK_OFF_SECONDS) - 1)]
        slot.failures += 1
        slot.start_at = time.monotonic() + delay

    def _start_due_workers(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.start_at is not None and slot.start_at <= now:
                try:
                    slot.current = self._start(slot)
                    slot.restarts += 1
                except OSError as error:
                    log.error("worker not started", worker=slot.number, reason=error.strerror)  # noqa: TRY400
                    if self._is_hopeless(slot):
                        self._stop("no worker can be started", ExitCode.SERVER)
                        return
                    self._back_off(slot)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.deadline is not None and worker.deadline <= now:
                log.error(
                    "worker killed: it did not stop or become ready in time",
                    worker=worker.slot.number,
                )
                worker.deadline = None
                worker.process.kill()
