"""`echo-load swarm`: locust on an echo service, for load from more than one machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from types import FrameType

import click

from echo_core import command
from echo_core.endpoint import Endpoint, parse_target
from echo_core.errors import InvalidValueError

# What locust is told where the command line does not say it.
_DEFAULTS = (
    (("-u", "--users"), "100"),
    (("-r", "--spawn-rate"), "100"),
    (("--web-host",), "127.0.0.1"),
)
_DEFAULT_RUN_TIME = "10s"
_FORWARDED = (signal.SIGTERM, signal.SIGHUP)


@click.command(
    context_settings={
        **command.command_settings("ECHO_LOAD"),
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
    short_help="Locust's users and web page on an echo service.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[TARGET] [LOCUST OPTIONS]")
def swarm(arguments: tuple[str, ...]) -> int:
    """Run locust with users that talk to an echo service and check every reply.

    TARGET is HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH; without one, an
    echo-server is started, tested and stopped. All that follows is locust's: --headless, -u USERS,
    -r SPAWN_RATE, -t TIME, --master, --worker, --processes, and the names of user classes, EchoUser
    or EchoBlockUser. By default there are 100 users; the web page is at http://127.0.0.1:8089, and
    --headless without -t lasts 10 seconds.

    `locust -f loadtest/locustfile.py --help` lists the options, also those of the users: --wait,
    --payload-size, --timeout, --block-connections, --rate, --stages, --threshold.

    Exit codes: those of locust, and 2 usage, 3 the echo-server did not start, 99 a threshold was
    crossed.
    """
    with command.needs_extra("load"):
        from echo_core.limits import raise_descriptor_limit
        from echo_load.local_server import LocalServer
    if find_spec("locust") is None:
        raise command.MissingExtraError(
            f"the package 'locust' is missing; install it with pip install "
            f"'{command.DISTRIBUTION}[swarm]'"
        )
    target, options = _parted(arguments)
    with ExitStack() as stack:
        if target is None and not {"--worker", "-H", "--host"} & set(options):
            descriptors = raise_descriptor_limit()
            target = stack.enter_context(LocalServer(descriptors // 2, descriptors)).endpoint
        return _run([*_locust(), *_completed(target, options)])


def _parted(arguments: tuple[str, ...]) -> tuple[Endpoint | None, list[str]]:
    """The target, if the first argument is one, and what is locust's."""
    if not arguments or arguments[0].startswith("-"):
        return None, list(arguments)
    try:
        return parse_target(arguments[0]), list(arguments[1:])
    except InvalidValueError as error:
        raise click.UsageError(str(error)) from error


def _locust() -> list[str]:
    spec = find_spec("echo_load.swarm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return [
        *(sys.executable, "-m", "locust", "-f"),
        f"{spec.submodule_search_locations[0]}/locustfile.py",
    ]


def _completed(target: Endpoint | None, options: list[str]) -> list[str]:
    """The options, and those that are not among them."""
    completed = ["--host", str(target)] if target is not None else []
    if "--worker" not in options:
        for names, value in _DEFAULTS:
            if not _has(options, names):
                completed += [names[-1], value]
        if "--headless" in options and not _has(options, ("-t", "--run-time")):
            completed += ["--run-time", _DEFAULT_RUN_TIME]
    return [*completed, *options]


def _has(options: list[str], names: tuple[str, ...]) -> bool:
    return any(one == name or one.startswith(f"{name}=") for one in options for name in names)


def _run(arguments: list[str]) -> int:
    """Run locust to its end; what ends this process ends that one, Ctrl-C reaches it anyhow."""
    process = subprocess.Popen(arguments)

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
