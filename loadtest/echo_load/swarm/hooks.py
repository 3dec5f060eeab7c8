"""Listeners that connect the parts of a swarm to locust's events."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import locust.stats
from locust import User
from locust.env import Environment
from locust.runners import STATE_INIT, MasterRunner, WorkerRunner

from echo_core.endpoint import NetworkEndpoint
from echo_core.errors import EchoswarmError, ExitCode, InvalidValueError
from echo_core.interrupts import quit_on_interrupt
from echo_load.swarm.duration import duration_of
from echo_load.swarm.evidence import evidence_in
from echo_load.swarm.histograms import bucket, histograms_of
from echo_load.swarm.html_report import extend_html_report
from echo_load.swarm.microseconds import add_microseconds
from echo_load.swarm.options import add_options
from echo_load.swarm.settings import DEFAULT_BLOCK_CONNECTIONS, Settings, parse_host
from echo_load.swarm.shapes import StagesShape
from echo_load.swarm.users import EchoBlockUser, EchoUser
from echo_load.swarm.verdict import conclude

_POLL_SECONDS = 0.1
_SPARE_SECONDS = 1.0
# `python -m locust`
_PROGRAMS = {"__main__.py": "locust"}


def install(events: Any) -> None:
    """Add the listeners to locust's events; a locustfile has to call this once.

    All tables, charts and files of locust then have response times with three significant digits,
    also below a millisecond.
    """
    locust.stats.bucket_response_time = bucket  # type: ignore[assignment]  # milliseconds, as floats
    extend_html_report()
    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(_on_init)


def _on_init(environment: Environment, web_ui: Any = None, **_: object) -> None:
    # The event loop has cached a time from before the imports, by which timers would expire early.
    gevent.get_hub().loop.update_now()
    gevent.spawn(_allow_interrupts, environment, web_ui and gevent.getcurrent())
    histograms = histograms_of(environment)
    # It listens from now on.
    evidence_in(environment)
    events: Any = environment.events
    events.spawning_complete.add_listener(partial(_on_spawning_complete, environment))
    events.test_start.add_listener(_on_test_start)
    if isinstance(environment.runner, WorkerRunner):
        events.test_stop.add_listener(_on_worker_stop)
        return
    assert environment.parsed_options is not None
    if not environment.parsed_options.user_classes:
        environment.user_classes = _default_classes(environment.user_classes)
    if not _are_options_valid(environment, hosts_needed=web_ui is None) or not _can_serve(web_ui):
        sys.exit(int(ExitCode.USAGE))
    if Settings.of(environment.parsed_options).stages:
        environment.shape_class = StagesShape()  # type: ignore[no-untyped-call]  # locust's
        environment.shape_class.runner = environment.runner
        # The stages set the spawn rate, so that locust's warning about it does not apply.
        logging.getLogger("locust.runners").addFilter(_is_no_spawn_rate_warning)
    duration_of(environment)
    events.quitting.add_listener(_on_quitting)
    add_microseconds(environment.stats, histograms)
    if web_ui is not None:
        from echo_load.swarm.web import extend

        extend(web_ui, environment, histograms, check)


def _allow_interrupts(environment: Environment, main: Any) -> None:
    """Make Ctrl-C end locust in order, as soon as locust supports that.

    Until then, for example while a master waits for workers, Ctrl-C ends the process at once.
    Without a handler it would raise an error in the request of a user.

    Args:
        environment: locust's environment.
        main: greenlet that waits for the end of the web server; None without a web page.
    """
    options, runner = environment.parsed_options, environment.runner
    assert options is not None
    while (
        isinstance(runner, MasterRunner)
        and (options.headless or options.autostart)
        and runner.state == STATE_INIT
    ):
        gevent.sleep(_POLL_SECONDS)

    def interrupt() -> None:
        # A second Ctrl-C ends the process at once.
        quit_on_interrupt()
        assert runner is not None
        runner.quit()
        if main is not None:
            gevent.kill(main, KeyboardInterrupt)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        gevent.signal_handler(signal.SIGINT, interrupt)


def _is_no_spawn_rate_warning(record: logging.LogRecord) -> bool:
    return "spawn rate is very high" not in record.getMessage()


def _default_classes(classes: list[type[User]]) -> list[type[User]]:
    """Return the user classes that run if none is named."""
    return [one for one in classes if not getattr(one, "only_if_named", False)] or classes


def _can_serve(web_ui: Any) -> bool:
    """Return whether the web page, if there is one, can be served; if not, print an error."""
    if web_ui is None:
        return True
    host, port = web_ui.host, web_ui.port
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except OSError as error:
        where = NetworkEndpoint(host, port).location if host else f"*:{port}"
        number = error.errno or 0
        # Errors of getaddrinfo(3) are negative. The text of create_server would repeat the address.
        reason = os.strerror(number) if number > 0 else "no such host"
        _print_error(f"--web-port: cannot serve the page on {where}: {reason}")
        return False
    return True


def _print_error(message: str) -> None:
    """Print an error in one line that begins with the name of the program."""
    program = Path(sys.argv[0]).name
    print(f"{_PROGRAMS.get(program, program)}: error: {message}", file=sys.stderr)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _on_test_start(environment: Environment, **_: object) -> None:
    """Check the options as set in the web form or, in a worker, as sent by the master.

    Raises:
        SystemExit: this is a worker, and its users could not run.
    """
    assert environment.parsed_options is not None
    if _are_options_valid(environment, hosts_needed=True):
        if not environment.parsed_options.stop_timeout:
            # After this time every message in flight was answered or has failed.
            timeout = Settings.of(environment.parsed_options).timeout
            environment.stop_timeout = 2 * timeout + _SPARE_SECONDS
    elif isinstance(environment.runner, WorkerRunner):
        # Otherwise the test would pass, because without users there are no failures.
        sys.exit(int(ExitCode.USAGE))
    elif environment.runner is not None:
        gevent.spawn(environment.runner.stop)


def _on_worker_stop(environment: Environment, **_: object) -> None:
    """Set the stop timeout to 0: the users have ended, and locust would wait for them again."""
    environment.stop_timeout = 0.0


def _on_spawning_complete(environment: Environment, **_: object) -> None:
    if environment.reset_stats:
        events: Any = environment.events
        events.reset_stats.fire()


def _are_options_valid(environment: Environment, *, hosts_needed: bool) -> bool:
    """Return whether the options are valid; if not, print an error and fire `user_error`."""
    assert environment.parsed_options is not None
    try:
        check(environment, environment.parsed_options, hosts_needed=hosts_needed)
    except EchoswarmError as error:
        _print_error(str(error))
        events: Any = environment.events
        events.user_error.fire(user_instance=None, exception=error, tb=None)
        return False
    return True


def check(environment: Environment, options: Namespace, *, hosts_needed: bool) -> None:
    """Check the options before a test.

    Args:
        environment: locust's environment, with the user classes.
        options: options of the command line or of the web form.
        hosts_needed: whether every user class must have a host.

    Raises:
        EchoswarmError: an option is invalid, or options contradict each other.
    """
    settings = Settings.of(options)
    if isinstance(environment.runner, WorkerRunner):
        # The master has checked everything except the files of this machine.
        if parse_host(environment.host).scheme == "tls":
            settings.tls.context()
        return
    _refuse_unused(settings, environment.user_classes)
    for user in environment.user_classes:
        host = options.host or user.host
        if issubclass(user, EchoUser | EchoBlockUser) and (host or hosts_needed):
            user.check(settings, parse_host(host))


def _refuse_unused(settings: Settings, classes: Sequence[type[User]]) -> None:
    """Check that no option is given of a user class that does not run.

    Raises:
        InvalidValueError: there is such an option.
    """
    blocks = any(issubclass(one, EchoBlockUser) for one in classes)
    if settings.rate is not None and not blocks:
        raise InvalidValueError(
            "--rate applies only to EchoBlockUser, which is not running; add EchoBlockUser"
        )
    if settings.block_connections != DEFAULT_BLOCK_CONNECTIONS and not blocks:
        raise InvalidValueError(
            "--block-connections applies only to EchoBlockUser, which is not "
            "running; add EchoBlockUser"
        )
    if settings.wait != (0.0, 0.0) and all(issubclass(one, EchoBlockUser) for one in classes):
        raise InvalidValueError("--wait applies only to EchoUser, which is not running; omit it")


def _on_quitting(environment: Environment, **_: object) -> None:
    conclude(environment, histograms_of(environment))
