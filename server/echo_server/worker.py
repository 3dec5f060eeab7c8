"""One serving process: listens, echoes, and on a signal drains and ends.

Import and run it in a monkey-patched process, before anything else has imported `ssl`.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType

import gevent
import structlog
from gevent import monkey
from gevent.event import Event
from gevent.hub import get_hub

from echo_core import logs
from echo_core.errors import ExitCode
from echo_core.limits import raise_descriptor_limit
from echo_core.logs import DrainedStream
from echo_server.admission import Admission
from echo_server.assignment import Assignment
from echo_server.config import ServerConfig
from echo_server.counters import Counter, Counters, CounterTable
from echo_server.datagram import DatagramEcho
from echo_server.datagram_batch import best_datagram_kind
from echo_server.echo_set import EchoSet, best_kind
from echo_server.faults import DATAGRAM_ONLY, STREAM_ONLY, FaultPlan
from echo_server.faulty import best_faulty_kind
from echo_server.faulty_datagram import FaultyDatagramEcho
from echo_server.handshake import Handshake
from echo_server.idle import IdleSweep
from echo_server.listeners import inherited_listener, open_listeners
from echo_server.notifier import Notifier
from echo_server.stream import EchoServer
from echo_server.tls import server_context
from echo_server.vitals import Vitals

log = structlog.get_logger()

# What a reader of standard error gets to take the last lines before the process ends anyway.
_FLUSH_SECONDS = 1.0


def serve(config: ServerConfig) -> ExitCode:
    """Serve in this process alone, until SIGTERM or SIGINT; then drain.

    Prints `listening tcp://HOST:PORT` for each address on standard output once it can be connected
    to. A second signal ends the process at once, with exit code 130.

    Raises:
        InvalidValueError: more connections are allowed than there can be descriptors.
        ListenError: an endpoint cannot be listened on.
    """
    config.check_fit(raise_descriptor_limit())
    with _process(config) as log_stream:
        signals = _StopSignals()
        gevent.signal_handler(signal.SIGHUP, _explain_hangup)
        with open_listeners(config) as listeners:
            notifier = Notifier()
            worker = _Worker(config, CounterTable.create().row(0), log_stream)
            worker.start(listeners.of_slot(0))
            listeners.announce()
            notifier.ready()
            reason = signals.wait()
            notifier.stopping()
            listeners.remove_files()
            worker.drain(reason)
    return ExitCode.OK


def serve_slot(config: ServerConfig, assignment: Assignment) -> ExitCode:
    """Serve as one of a supervisor's workers, until a signal or until the supervisor is gone.

    Raises:
        ListenError: a descriptor that was handed over is no listener.
    """
    raise_descriptor_limit()
    with _process(config, worker=assignment.slot) as log_stream:
        signals = _StopSignals()
        # Only the supervisor knows what a hangup means.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        counters = CounterTable(assignment.counters).row(assignment.row)
        worker = _Worker(config, counters, log_stream)
        worker.start(
            [(scheme, inherited_listener(number)) for scheme, number in assignment.listeners]
        )
        control = socket.socket(fileno=assignment.control)
        control.sendall(str(config.drain_timeout).encode())

        def watch_supervisor() -> None:
            control.recv(1)
            signals.stop("the supervisor is gone")

        gevent.spawn(watch_supervisor)
        worker.drain(signals.wait())
    return ExitCode.OK


def _explain_hangup() -> None:
    log.warning(
        "not restarted: one worker has no supervisor; with --workers 2 or --admin it has",
        signal="SIGHUP",
    )


class _Worker:
    """Accepts on some listeners and echoes, within the limits of a configuration."""

    def __init__(self, config: ServerConfig, counters: Counters, log_stream: DrainedStream) -> None:
        self._config = config
        self._counters = counters
        self._admission = Admission(config, counters)
        self._echo_set = self._make_echo_set()
        self._servers: list[EchoServer] = []
        self._datagrams: list[DatagramEcho] = []
        # Of all workers: each slot has the same.
        self._udp_ports: frozenset[int] = frozenset()
        self._tls = server_context(config) if config.speaks_tls else None
        self._vitals = Vitals(counters, log_stream)
        self._sweep = (
            IdleSweep(self._echo_set, config.idle_timeout) if config.idle_timeout else None
        )

    def start(self, listeners: Sequence[tuple[str, socket.socket]]) -> None:
        """Serve listeners, each with its scheme."""
        self._udp_ports |= {
            listener.getsockname()[1] for scheme, listener in listeners if scheme == "udp"
        }
        for scheme, listener in listeners:
            if scheme == "udp":
                self._start_datagrams(listener)
            else:
                self._start_stream(scheme, listener)
        log.info("serving", pid=os.getpid())

    def _make_echo_set(self) -> EchoSet:
        arguments = (self._counters, self._admission.leave, self._config.rate_limit)
        if not self._config.faults:
            return best_kind()(*arguments)
        return best_faulty_kind()(*arguments, plan=self._fault_plan(without=DATAGRAM_ONLY))

    def _fault_plan(self, without: Collection[Counter]) -> FaultPlan:
        return FaultPlan(self._config.faults, self._config.fault_seed, without=without)

    def _start_stream(self, scheme: str, listener: socket.socket) -> None:
        config = self._config
        handshake = None
        if scheme == "tls" or config.proxy_protocol:
            handshake = Handshake(
                config.handshake_timeout,
                proxy_protocol=config.proxy_protocol,
                context=self._tls if scheme == "tls" else None,
            )
        server = EchoServer(
            listener, self._echo_set, self._admission, self._counters, config.backlog, handshake
        )
        server.start()
        self._servers.append(server)

    def _start_datagrams(self, listener: socket.socket) -> None:
        kind = best_datagram_kind()
        if self._config.faults:
            kind = partial(FaultyDatagramEcho, plan=self._fault_plan(without=STREAM_ONLY))
        echo = kind(
            listener,
            self._counters,
            own_ports=self._udp_ports,
            low_ports=self._config.udp_low_ports,
        )
        echo.start()
        self._vitals.looks.append(echo.look_at_drops)
        self._datagrams.append(echo)

    def drain(self, reason: str) -> None:
        """Stop accepting, let open connections finish, close those that do not."""
        self._vitals.looks.clear()
        for echo in self._datagrams:
            echo.stop()
        for server in self._servers:
            server.stop()
        seconds = self._config.drain_timeout
        log.info("draining", reason=reason, open=self._counters.places[0], seconds=seconds)
        deadline = time.monotonic() + seconds
        for server in self._servers:
            server.join_handshakes(max(0.0, deadline - time.monotonic()))
        if not self._echo_set.join(max(0.0, deadline - time.monotonic())):
            log.warning("closing connections that did not finish", open=len(self._echo_set))
        if self._sweep is not None:
            self._sweep.close()
        self._echo_set.close()
        self._vitals.close()
        log.info("stopped", accepted=self._counters.cells[Counter.ACCEPTED])


class _StopSignals:
    """The first SIGTERM or SIGINT asks for a stop; the second ends the process."""

    def __init__(self) -> None:
        self._asked = Event()
        self._reason = ""
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_signal, number)

    def wait(self) -> str:
        """Wait until a stop is asked for and return why."""
        self._asked.wait()
        return self._reason

    def stop(self, reason: str) -> None:
        """Ask for a stop without a signal."""
        self._reason = self._reason or reason
        self._asked.set()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            os._exit(ExitCode.INTERRUPTED)
        self.stop(number.name)


@contextmanager
def _process(config: ServerConfig, **bound: object) -> Iterator[DrainedStream]:
    """Log, in a way that never blocks the hub, while the block runs."""
    stream = logs.configure(
        config.log_level,
        config.log_format,
        monkey.get_original("_thread", "start_new_thread"),
        **bound,
    )
    try:
        _log_hub_errors()
        yield stream
    finally:
        stream.close(_FLUSH_SECONDS)


def _log_hub_errors() -> None:
    """Send the hub's tracebacks through the log: printed, they could block the hub."""

    def print_exception(
        context: object,
        kind: type[BaseException] | None,
        error: BaseException | str | None,
        traceback: TracebackType | None,
    ) -> None:
        known = isinstance(error, BaseException)
        log.error(
            "unhandled error",
            context=repr(context),
            error=kind.__name__ if kind else str(error),
            exc_info=(kind, error, traceback) if known else None,
        )

    get_hub().print_exception = print_exception  # type: ignore[assignment]  # no other hook
