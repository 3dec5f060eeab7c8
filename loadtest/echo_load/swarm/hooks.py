"""Ties the swarm's parts to locust's events."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from typing import Any

import gevent
import locust.stats
from locust import User
from locust.env import Environment
from locust.runners import WorkerRunner

from echo_core.errors import EchoswarmError, ExitCode
from echo_load.swarm.duration import duration_of
from echo_load.swarm.options import add_options
from echo_load.swarm.precision import bucket, precision_of
from echo_load.swarm.reporting import add_microseconds, conclude
from echo_load.swarm.settings import Settings, parse_host
from echo_load.swarm.shapes import StagesShape
from echo_load.swarm.users import EchoBlockUser, EchoUser

logger = logging.getLogger(__name__)


def install(events: Any) -> None:
    """Listen to locust's events, from a locustfile.

    Response times are kept to three digits from now on, also below a millisecond: in all of
    locust's own tables, charts and files.
    """
    locust.stats.bucket_response_time = bucket  # type: ignore[assignment]  # milliseconds, as floats
    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(_on_init)


def _on_init(environment: Environment, web_ui: Any = None, **_: object) -> None:
    precision = precision_of(environment)
    if isinstance(environment.runner, WorkerRunner):
        return
    assert environment.parsed_options is not None
    if not environment.parsed_options.user_classes:
        environment.user_classes = _unnamed(environment.user_classes)
    if not _is_sound(environment, hosts_needed=web_ui is None):
        sys.exit(int(ExitCode.USAGE))
    if Settings.of(environment.parsed_options).stages:
        environment.shape_class = StagesShape()  # type: ignore[no-untyped-call]  # locust's
        environment.shape_class.runner = environment.runner
    events: Any = environment.events
    duration_of(environment)
    events.test_start.add_listener(_on_test_start)
    events.quitting.add_listener(_on_quitting)
    add_microseconds(environment.stats, precision)
    if web_ui is not None:
        from echo_load.swarm.web import extend

        extend(web_ui, environment, precision, check)


def _unnamed(classes: list[type[User]]) -> list[type[User]]:
    """Those that run where no user class was named."""
    return [one for one in classes if not getattr(one, "only_if_named", False)] or classes


def _on_test_start(environment: Environment, **_: object) -> None:
    """What was set since the beginning is looked at here."""
    if not _is_sound(environment, hosts_needed=True) and environment.runner is not None:
        gevent.spawn(environment.runner.stop)


def _is_sound(environment: Environment, *, hosts_needed: bool) -> bool:
    """Say in one line what is wrong with the options, if something is."""
    assert environment.parsed_options is not None
    try:
        check(environment, environment.parsed_options, hosts_needed=hosts_needed)
    except EchoswarmError as error:
        logger.error("%s", error)  # noqa: TRY400  # the line says it all
        return False
    return True


def check(environment: Environment, options: Namespace, *, hosts_needed: bool) -> None:
    """Look at the options, before a run, as its users will.

    Args:
        environment: locust's, with the users' classes.
        options: the command line, or the web form.
        hosts_needed: users need to have a host by now.

    Raises:
        EchoswarmError: one is not what it should be, or they do not go together.
    """
    settings = Settings.of(options)
    for user in environment.user_classes:
        host = options.host or user.host
        if issubclass(user, EchoUser | EchoBlockUser) and (host or hosts_needed):
            user.check(settings, parse_host(host))


def _on_quitting(environment: Environment, **_: object) -> None:
    conclude(environment, precision_of(environment))
