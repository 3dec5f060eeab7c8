"""`echo-load swarm`: run locust on an echo service, from one or more machines."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import pairwise
from types import FrameType

import click

from echo_core.command_line import program, settings
from echo_core.command_line.environment import refuse_unknown
from echo_core.endpoint import Endpoint, parse_target
from echo_core.errors import InvalidValueError
from echo_load.errors import GeneratorError
from echo_load.swarm.options import INSECURE, OPTIONS, PREFIX, variable

# Defaults of locust's settings here; its options and the environment override them.
_DEFAULTS = {"LOCUST_WEB_HOST": "127.0.0.1"}
_USER_DEFAULTS = {"LOCUST_USERS": "100", "LOCUST_SPAWN_RATE": "100"}
_HEADLESS_DEFAULTS = {"LOCUST_RUN_TIME": "10s"}
_USERS = ("EchoUser", "EchoBlockUser")
_HOST = ("-H", "--host")
_TARGET = re.compile(r"\w+://.*|[^\s/]+:\d+")
# Options of locust that need no host.
_NO_HOST = ("-h", "--help", "-V", "--version", "-l", "--list")
_FORWARDED = (signal.SIGTERM, signal.SIGHUP)


class _SwarmCommand(click.Command):
    """A command whose help also lists the options of the users."""

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("User options (environment: ECHO_SWARM_...)"):
            described = [
                (f"--{name} TEXT", _with_default(text, default)) for name, default, text in OPTIONS
            ]
            formatter.write_dl([*described, (f"--{INSECURE[0]}", INSECURE[1])])


def _with_default(help_text: str, default: str) -> str:
    return f"{help_text}  [default: {default}]" if default else help_text


@click.command(
    cls=_SwarmCommand,
    context_settings={
        **settings.command_settings("ECHO_LOAD"),
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
    short_help="Run locust on an echo service, with workers and a web page.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[TARGET] [LOCUST OPTIONS]")
def swarm(arguments: tuple[str, ...]) -> int:
    """Run locust with users that talk to an echo service and check every reply.

    TARGET is HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT or
    unix:///PATH; without one, an echo-server is started, tested and stopped. All other arguments
    are locust's: --headless, -u USERS, -r SPAWN_RATE, -t TIME, --master, --worker, --processes, and
    the names of user classes, EchoUser or EchoBlockUser. By default there are 100 users; the web
    page is at http://127.0.0.1:8089, and --headless without -t lasts 10 seconds.

    `echo-load swarm -- --help` lists locust's options.

    Exit codes: 0 passed, 1 failed, 2 usage error, 3 the echo-server did not start, 99 a threshold
    was crossed, 130 interrupted before it began.
    """
    with program.needs_extra("load"):
        from echo_core.limits import raise_descriptor_limit
        from echo_load.runner.local_server import LocalServer
    if find_spec("locust") is None:
        raise program.MissingExtraError(
            f"the package 'locust' is missing; install it with pip install "
            f"'{program.DISTRIBUTION}[swarm]'"
        )
    names = [*(name for name, _, _ in OPTIONS), INSECURE[0]]
    refuse_unknown(PREFIX, map(variable, names))
    target, options = _split_target(arguments)
    with ExitStack() as stack:
        if target is None and not (
            _is_set(options, *_HOST, "LOCUST_HOST")
            or _is_set(options, "--worker", "LOCUST_MODE_WORKER", *_NO_HOST)
        ):
            descriptors = raise_descriptor_limit()
            target = stack.enter_context(LocalServer(descriptors // 2, descriptors)).endpoint
        host = ["--host", str(target)] if target is not None else []
        return _run([*_locust(), *host, *options], _environment(options))


def _split_target(arguments: tuple[str, ...]) -> tuple[Endpoint | None, list[str]]:
    """Return the target, or None, and the other arguments, which are for locust."""
    found = [
        number
        for number, (before, argument) in enumerate(pairwise(["", *arguments]))
        if before not in _HOST and _may_be_target(argument, first=not number)
    ]
    if not found:
        return None, list(arguments)
    if len(found) > 1:
        raise click.UsageError(
            f"{arguments[found[0]]} and {arguments[found[1]]} are both targets; give only one"
        )
    number = found[0]
    try:
        return parse_target(arguments[number]), [*arguments[:number], *arguments[number + 1 :]]
    except InvalidValueError as error:
        raise click.UsageError(str(error)) from error


def _may_be_target(argument: str, *, first: bool) -> bool:
    """Return whether an argument can be a target, not an option, its value or a user class."""
    if argument.startswith("-") or argument in _USERS:
        return False
    return first or _TARGET.fullmatch(argument) is not None


def _locust() -> list[str]:
    spec = find_spec("echo_load.swarm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return [
        # -P: do not import a locust.py in the current directory, which is a locustfile.
        *(sys.executable, "-P", "-m", "echo_load.swarm", "-f"),
        f"{spec.submodule_search_locations[0]}/locustfile.py",
    ]


def _environment(options: list[str]) -> dict[str, str]:
    """Return the environment of locust, with defaults for variables that are not set."""
    defaults = dict(_DEFAULTS)
    # Stages set the number of users and the run time.
    if not _is_set(options, "--stages", variable("stages")):
        defaults |= _USER_DEFAULTS
        if _is_set(options, "--headless", "LOCUST_HEADLESS"):
            defaults |= _HEADLESS_DEFAULTS
    return {**defaults, **os.environ}


def _is_set(options: list[str], *names: str) -> bool:
    """Return whether one of these options or environment variables is set."""
    return any(
        name in os.environ or any(one == name or one.startswith(f"{name}=") for one in options)
        for name in names
    )


def _run(arguments: list[str], environment: dict[str, str]) -> int:
    """Run locust and return its exit code.

    SIGTERM and SIGHUP are forwarded to it; Ctrl-C reaches it directly.
    """
    try:
        process = subprocess.Popen(arguments, env=environment)
    except OSError as error:
        raise GeneratorError(
            f"cannot start locust: {error.strerror}; raise the limit on processes (ulimit -u)"
        ) from error

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
