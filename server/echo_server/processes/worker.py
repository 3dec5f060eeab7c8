"""The worker process, which accepts connections, echoes, and drains before it stops.

Import this module in a monkey-patched process, before anything else imports `ssl`.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from echo_core.tls_files import TlsFileError
from echo_server.config import ServerConfig
from echo_server.datagrams.batch import BatchedDatagramEcho, is_supported
from echo_server.datagrams.echo import DatagramEcho
from echo_server.datagrams.faulty import FaultyDatagramEcho
from echo_server.faults import DATAGRAM_ONLY, STREAM_ONLY, FaultPlan
from echo_server.listeners import inherited_listener, open_listeners
from echo_server.metrics.counters import Counter, Counters, CounterTable
from echo_server.metrics.vitals import Vitals
from echo_server.processes.assignment import Assignment
from echo_server.processes.control import (
    Adopt,
    ControlSocket,
    Drain,
    Message,
    Refused,
    Release,
    Replace,
    Serving,
)
from echo_server.processes.notifier import Notifier
from echo_server.processes.stop_signals import STOP_SIGNALS, StopSignals, ignore_stop_signals
from echo_server.streams.acceptor import EchoServer
from echo_server.streams.admission import Admission
from echo_server.streams.echo_set import EchoSet
from echo_server.streams.faulty import FaultyEchoSet
from echo_server.streams.handshake import Handshake
from echo_server.streams.idle import IdleSweep
from echo_server.streams.tls import server_context

log = structlog.get_logger()

# The maximum time to wait at exit until the last log lines are written.
_FLUSH_SECONDS = 1.0


def serve(config: ServerConfig) -> ExitCode:
    """Serve in this process, without a supervisor, until SIGTERM or SIGINT; then drain.

    Print `listening tcp://HOST:PORT` for each address to standard output as soon as connections are
    accepted. A second signal, more than a second later, ends the process at once, with exit code
    130.

    Raises:
        InvalidValueError: `max_connections` exceeds the descriptors that this process may open.
        ListenError: an endpoint cannot be listened on.
        SharedMemoryError: the counters cannot be allocated.
        TlsFileError: a certificate or a key cannot be used.
    """
    config.check_fit(raise_descriptor_limit())
    with _configured_logs(config) as log_stream:
        stop = _Stop()
        _handle_stop_signals(stop.on_signal)
        gevent.signal_handler(signal.SIGHUP, _on_hangup)
        with open_listeners(config) as listeners:
            notifier = Notifier()
            worker = _Worker(config, CounterTable.create().row(0), log_stream)
            worker.serve(0, listeners.for_slot(0))
            log.info("serving", pid=os.getpid())
            listeners.announce()
            notifier.ready()
            stop.wait()
            notifier.stopping()
            listeners.remove_files()
            if config.when_full == "wait":
                listeners.stop_queueing()
            worker.drain(stop)
            ignore_stop_signals()
    return ExitCode.OK


def serve_slot(config: ServerConfig, assignment: Assignment) -> ExitCode:
    """Serve as a supervisor's worker, until the supervisor requests a stop or has exited.

    On SIGTERM or SIGINT the worker asks the supervisor to replace it. If the supervisor has exited,
    the signals have the same effect as in `serve`.

    Raises:
        ListenError: a descriptor of the assignment is not a listener.
        TlsFileError: a certificate or a key cannot be used, or is missing for a TLS listener.
    """
    # Workers are background processes: a terminal with `stty tostop` would stop them when they log.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    raise_descriptor_limit()
    with _configured_logs(config, worker=assignment.slot) as log_stream:
        stop = _Stop()
        control = ControlSocket(socket.socket(fileno=assignment.control))

        def on_signal(number: signal.Signals) -> None:
            if not control.send(Replace(number.name)):
                stop.on_signal(number)

        _handle_stop_signals(on_signal)
        # SIGHUP requests a restart, which is the supervisor's task.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # The launcher blocked these until the handlers above were installed.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOP_SIGNALS, signal.SIGHUP))
        counters = CounterTable(assignment.counters).row(assignment.row)
        worker = _Worker(config, counters, log_stream)
        worker.serve(
            assignment.slot,
            [(scheme, inherited_listener(number)) for scheme, number in assignment.listeners],
        )
        log.info("serving", pid=os.getpid())
        control.send(Serving(config.drain_timeout, config.max_connections))
        gevent.spawn(_handle_commands, control, worker, stop)
        stop.wait()
        worker.drain(stop)
        ignore_stop_signals()
    return ExitCode.OK


def _handle_commands(control: ControlSocket, worker: _Worker, stop: _Stop) -> None:
    """Execute the supervisor's commands until it has exited; then request a stop."""
    try:
        while (received := control.receive()) is not None:
            reply = _handle_command(*received, worker, stop)
            if reply is not None:
                control.send(reply)
    finally:
        control.close()
        stop.request("the supervisor has exited")


def _handle_command(
    command: Message, descriptors: list[int], worker: _Worker, stop: _Stop
) -> Message | None:
    """Execute a command; return the reply to the supervisor, if any."""
    match command:
        case Drain(final):
            stop.request("requested by the supervisor", final=final)
        case Adopt(slot, schemes) if len(schemes) == len(descriptors):
            listeners = map(inherited_listener, descriptors)
            worker.serve(slot, list(zip(schemes, listeners, strict=True)))
        case Adopt(slot):
            for descriptor in descriptors:
                os.close(descriptor)
            return Refused(slot)
        case Release(slot):
            worker.release(slot)
    return None


def _on_hangup() -> None:
    log.warning(
        "not restarted: there is no supervisor; use --workers 2 or more, or --admin",
        signal="SIGHUP",
    )


@dataclass(slots=True)
class _SlotServers:
    """The servers of a slot's listeners."""

    streams: list[EchoServer] = field(default_factory=list)
    datagrams: list[DatagramEcho] = field(default_factory=list)


class _Worker:
    """The echo service of this process, on the listeners of one or several slots."""

    def __init__(self, config: ServerConfig, counters: Counters, log_stream: DrainedStream) -> None:
        self._config = config
        self._counters = counters
        self._admission = Admission(config, counters)
        self._echo_set = self._make_echo_set()
        self._servers: dict[int, _SlotServers] = {}
        # Closed servers that may still have connections in their handshake.
        self._released: list[EchoServer] = []
        # The ports of all UDP listeners of the server: they are the same in each slot.
        self._udp_ports: frozenset[int] = frozenset()
        self._tls: ssl.SSLContext | None = None
        self._vitals = Vitals(counters, log_stream)
        self._sweep = (
            IdleSweep(self._echo_set, config.idle_timeout) if config.idle_timeout else None
        )

    def serve(self, slot: int, listeners: Sequence[tuple[str, socket.socket]]) -> None:
        """Serve the listeners of a slot, each given with its scheme."""
        self._udp_ports |= {
            listener.getsockname()[1] for scheme, listener in listeners if scheme == "udp"
        }
        servers = self._servers.setdefault(slot, _SlotServers())
        for scheme, listener in listeners:
            if scheme == "udp":
                servers.datagrams.append(self._start_datagrams(listener))
            else:
                servers.streams.append(self._start_stream(scheme, listener))

    def release(self, slot: int) -> None:
        """Close the listeners of a slot; other processes that share them serve their backlogs."""
        servers = self._servers.pop(slot, _SlotServers())
        for echo in servers.datagrams:
            self._vitals.probes.remove(echo.count_drops)
            echo.close()
        for server in servers.streams:
            server.close()
        self._released = [one for one in (*self._released, *servers.streams) if one.has_handshakes]

    def _make_echo_set(self) -> EchoSet:
        arguments = (self._counters, self._admission.release, self._config.rate_limit)
        if not self._config.faults:
            return EchoSet(*arguments)
        return FaultyEchoSet(*arguments, plan=self._fault_plan(without=DATAGRAM_ONLY))

    def _fault_plan(self, without: Collection[Counter]) -> FaultPlan:
        return FaultPlan(self._config.faults, self._config.fault_seed, without=without)

    def _start_stream(self, scheme: str, listener: socket.socket) -> EchoServer:
        config = self._config
        handshake = None
        if scheme == "tls" or config.proxy_protocol:
            handshake = Handshake(
                config.handshake_timeout,
                proxy_protocol=config.proxy_protocol,
                context=self._tls_context() if scheme == "tls" else None,
            )
        server = EchoServer(
            listener, self._echo_set, self._admission, self._counters, config.backlog, handshake
        )
        server.start()
        return server

    def _tls_context(self) -> ssl.SSLContext:
        """Return the TLS context of all TLS listeners.

        A worker that replaces another one has the listeners of the original configuration, which
        may need a certificate although its own configuration no longer names one.

        Raises:
            TlsFileError: a file cannot be used, or the configuration names no certificate.
        """
        if self._tls is None:
            if not (self._config.tls_cert and self._config.tls_key):
                raise TlsFileError(
                    "a tls:// listener remains, but the configuration no longer has its "
                    "certificate; set --tls-cert and --tls-key"
                )
            self._tls = server_context(self._config)
        return self._tls

    def _start_datagrams(self, listener: socket.socket) -> DatagramEcho:
        kind: Callable[..., DatagramEcho] = DatagramEcho
        if is_supported():
            kind = BatchedDatagramEcho
        if self._config.faults:
            kind = partial(FaultyDatagramEcho, plan=self._fault_plan(without=STREAM_ONLY))
        echo = kind(
            listener,
            self._counters,
            own_ports=self._udp_ports,
            low_ports=self._config.udp_low_ports,
        )
        echo.start()
        self._vitals.probes.append(echo.count_drops)
        return echo

    def drain(self, stop: _Stop) -> None:
        """Stop accepting, let open connections finish, and close the rest at the drain timeout.

        If no other process will serve the listeners, connections in their backlogs are accepted as
        soon as the limits admit them.
        """
        self._vitals.probes.clear()
        servers = [server for slot in self._servers.values() for server in slot.streams]
        for echo in [echo for slot in self._servers.values() for echo in slot.datagrams]:
            echo.stop()
        for server in servers:
            if stop.final:
                server.drain_backlog()
            else:
                server.stop()
        seconds = self._config.drain_timeout
        log.info("draining", reason=stop.reason, open=self._counters.reserved[0], seconds=seconds)
        deadline = time.monotonic() + seconds
        for server in servers:
            server.join_backlog(max(0.0, deadline - time.monotonic()))
        for server in (*servers, *self._released):
            server.join_handshakes(max(0.0, deadline - time.monotonic()))
        if not self._echo_set.join(max(0.0, deadline - time.monotonic())):
            log.warning("closing connections that did not finish", open=len(self._echo_set))
        if self._sweep is not None:
            self._sweep.close()
        self._echo_set.close()
        self._vitals.close()
        log.info("stopped", accepted=self._counters.cells[Counter.ACCEPTED])


class _Stop:
    """The request to stop this process; a second signal ends it at once.

    Attributes:
        reason: why the process is to stop, for the log.
        final: True if no other process will serve its listeners.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.final = True
        self._requested = Event()
        self._signals = StopSignals()

    def wait(self) -> None:
        """Wait until a stop is requested."""
        self._requested.wait()

    def request(self, reason: str, *, final: bool = True) -> None:
        """Request a stop; only the first request has an effect."""
        if not self._requested.is_set():
            self.reason, self.final = reason, final
            self._requested.set()

    def on_signal(self, number: signal.Signals) -> None:
        """Request a stop because of a signal, or exit at once if it is a second one."""
        if self._signals.is_second():
            os._exit(ExitCode.INTERRUPTED)
        self.request(number.name)


def _handle_stop_signals(call: Callable[[signal.Signals], None]) -> None:
    for number in STOP_SIGNALS:
        gevent.signal_handler(number, call, number)


@contextmanager
def _configured_logs(config: ServerConfig, **bound: object) -> Iterator[DrainedStream]:
    """Configure logs that never block the hub; at the end of the block, write the last lines."""
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
    """Log the hub's tracebacks, which gevent would print to standard error and so could block."""

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
