"""One serving process: listens, echoes, and on a signal drains and ends.

Import and run it in a monkey-patched process, before anything else has imported `ssl`.
"""

from __future__ import annotations

import os
import signal
from types import TracebackType

import gevent
import structlog
from gevent import monkey
from gevent.event import Event
from gevent.hub import get_hub

from echo_core import logs
from echo_core.errors import ExitCode
from echo_core.limits import raise_descriptor_limit
from echo_server.config import ServerConfig
from echo_server.echo_set import best_echo_set
from echo_server.listeners import bound_endpoint, listen
from echo_server.stream import EchoServer

log = structlog.get_logger()

# What a reader of standard error gets to take the last lines before the process ends anyway.
_FLUSH_SECONDS = 1.0


def serve(config: ServerConfig) -> ExitCode:
    """Serve until SIGTERM or SIGINT, then drain.

    Prints `listening tcp://HOST:PORT` on standard output once it can be connected to. A second
    signal ends the process at once, with exit code 130.

    Raises:
        ListenError: the endpoint cannot be listened on.
    """
    stream = logs.configure(
        config.log_level,
        config.log_format,
        monkey.get_original("_thread", "start_new_thread"),
    )
    try:
        _log_hub_errors()
        _serve(config)
    finally:
        stream.close(_FLUSH_SECONDS)
    return ExitCode.OK


def _serve(config: ServerConfig) -> None:
    descriptors = raise_descriptor_limit()
    signals = _SignalledStop()
    echo_set = best_echo_set()
    listener = listen(config.endpoint, config.backlog)
    server = EchoServer(listener, echo_set, config.backlog)
    server.start()
    print(f"listening {bound_endpoint(listener)}", flush=True)
    log.info("serving", pid=os.getpid(), descriptor_limit=descriptors)

    signal_name = signals.wait()
    server.stop()
    log.info("draining", signal=signal_name, open=len(echo_set), seconds=config.drain_timeout)
    if not echo_set.join(config.drain_timeout):
        log.warning("closing connections that did not finish", open=len(echo_set))
    echo_set.close()
    log.info("stopped", accepted=server.accepted)


class _SignalledStop:
    """The first SIGTERM or SIGINT asks for a stop; the second ends the process."""

    def __init__(self) -> None:
        self._asked = Event()
        self._name = ""
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_signal, number)

    def wait(self) -> str:
        """Wait for the first signal and return its name."""
        self._asked.wait()
        return self._name

    def _on_signal(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            os._exit(ExitCode.INTERRUPTED)
        self._name = number.name
        self._asked.set()


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
