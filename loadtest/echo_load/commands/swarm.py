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
from typing import TYPE_CHECKING

import click

from echo_core.command_line import program, settings
from echo_core.command_line.arguments import Command, Example
from echo_core.command_line.environment import refuse_unknown
from echo_core.command_line.option_groups import GENERAL, Row
from echo_core.endpoint import Endpoint, parse_target
from echo_core.errors import InvalidValueError
from echo_core.lazy import installation_of
from echo_core.limits import not_started, raise_descriptor_limit
from echo_load.errors import GeneratorError
from echo_load.swarm.options import GROUPS, INSECURE, OPTIONS, PREFIX, variable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Defaults of locust's settings here; its options and the environment override them.
_DEFAULTS = {"LOCUST_WEB_HOST": "127.0.0.1"}
_USER_DEFAULTS = {"LOCUST_USERS": "100", "LOCUST_SPAWN_RATE": "100"}
_HEADLESS_DEFAULTS = {"LOCUST_RUN_TIME": "10s"}
_TARGETS = "ECHO_LOAD_TARGETS"
_USERS = ("EchoUser", "EchoBlockUser")
_HOST = ("-H", "--host")
_TARGET = re.compile(r"\w+://.*|[^\s/]+:\d+")
# Options of locust that need no host.
_NO_HOST = ("-h", "--help", "-V", "--version", "-l", "--list")
_FORWARDED = (signal.SIGTERM, signal.SIGHUP)
# Options after which the shell completes the names of files.
_TAKE_FILES = ("--tls-ca", "--tls-client-cert", "--tls-client-key", "--html", "--config")
_EXAMPLES = (
    Example("With a web page, at http://127.0.0.1:8089", "echo-load swarm 10.0.0.7:50007"),
    Example(
        "1000 users for a minute; exit code 99 if the p99 is not below 20 ms",
        'echo-load swarm 10.0.0.7 --headless -u 1000 -t 1m --threshold "p99<20ms"',
    ),
)


class _SwarmCommand(Command):
    """A command whose help also lists the options of the users."""

    def help_rows(self, ctx: click.Context) -> dict[str, list[Row]]:
        """Return the options of the users and of the command, by the groups of the help."""
        rows = {
            name: [_row(f"--{one} VALUE", one, text, default) for one, default, text in group]
            for name, group in GROUPS.items()
        }
        name, text = INSECURE
        rows["TLS"].append(_row(f"--{name}", name, text, ""))
        return rows | {GENERAL: super().help_rows(ctx)["Options"]}

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the options of the command and of the users that begin with a text."""
        from click.shell_completion import CompletionItem

        own = super().shell_complete(ctx, incomplete)
        names = {name: meaning for name, _, meaning in OPTIONS} | dict([INSECURE])
        return [
            *(
                CompletionItem(f"--{name}", help=meaning)
                for name, meaning in names.items()
                if f"--{name}".startswith(incomplete)
            ),
            *own,
        ]


def _completed(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Return what an argument can be: a file after some options, or else a class of users."""
    from click.shell_completion import CompletionItem

    before = ctx.params.get(parameter.name or "") or ("",)
    if before[-1] in _TAKE_FILES:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(user) for user in _USERS if incomplete and user.startswith(incomplete)]


def _row(names: str, option: str, text: str, default: str) -> Row:
    meaning = f"{text}  [default: {default}]" if default else text
    return Row(names, meaning, variable(option))


@click.command(
    cls=_SwarmCommand,
    context_settings={
        **settings.command_settings("ECHO_LOAD"),
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
    short_help="Run locust on an echo service, with workers and a web page.",
    examples=_EXAMPLES,
)
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[TARGET] [LOCUST OPTIONS]",
    shell_complete=_completed,
)
def swarm(arguments: tuple[str, ...]) -> int:
    """Run locust with users that talk to an echo service and check every reply.

    TARGET is HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT or
    unix:///PATH; without one, an echo-server is started, tested and stopped. All other arguments
    are locust's: --headless, -u USERS, -r SPAWN_RATE, -t TIME, --master, --worker, --processes, and
    the names of user classes, EchoUser or EchoBlockUser. By default there are 100 users; the web
    page is at http://127.0.0.1:8089, and --headless without -t lasts 10 seconds.

    The options below are those of the users; in the environment they begin with ECHO_SWARM_, and
    the target is ECHO_LOAD_TARGETS. Locust's own options can be set there, too: LOCUST_USERS.

    `echo-load swarm -- --help` lists locust's options.

    Exit codes: 0 passed, 1 failed, 2 usage error, 3 the echo-server did not start, 99 a threshold
    was crossed, 130 interrupted before it began.
    """
    with program.needs_extra("load"):
        from echo_load.runner.local_server import LocalServer
    if find_spec("locust") is None:
        raise program.MissingExtraError(
            f"the package 'locust' is missing; {installation_of('swarm')}"
        )
    names = [*(name for name, _, _ in OPTIONS), INSECURE[0]]
    refuse_unknown(PREFIX, map(variable, names))
    target, options = _split_target(arguments)
    has_host = _is_set(options, *_HOST, "LOCUST_HOST") or _is_set(
        options, "--worker", "LOCUST_MODE_WORKER", *_NO_HOST
    )
    if target is None and not has_host:
        target = _target_of_environment()
    with ExitStack() as stack:
        if target is None and not has_host:
            descriptors = raise_descriptor_limit()
            proxied = _is_set(options, "--send-proxy", variable("send-proxy"))
            server = LocalServer(descriptors // 2, descriptors, proxy_protocol=proxied)
            target = stack.enter_context(server).endpoint
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
    return _target(arguments[number]), [*arguments[:number], *arguments[number + 1 :]]


def _target_of_environment() -> Endpoint | None:
    """Return the target that the environment sets for all commands; None if there is none."""
    targets = os.environ.get(_TARGETS, "").split()
    if len(targets) > 1:
        raise click.UsageError(
            f"the command takes one target, and {_TARGETS} is set to {len(targets)}"
        )
    return _target(targets[0]) if targets else None


def _target(text: str) -> Endpoint:
    try:
        return parse_target(text)
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
    """Return whether one of these options or environment variables is set, and not empty."""
    return any(
        os.environ.get(name) or any(one == name or one.startswith(f"{name}=") for one in options)
        for name in names
    )


def _run(arguments: list[str], environment: dict[str, str]) -> int:
    """Run locust and return its exit code.

    SIGTERM and SIGHUP are forwarded to it; Ctrl-C reaches it directly.
    """
    try:
        process = subprocess.Popen(arguments, env=environment)
    except OSError as error:
        raise GeneratorError(f"cannot start locust: {not_started(error)}") from error

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
