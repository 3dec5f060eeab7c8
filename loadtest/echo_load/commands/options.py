"""Options that several commands have, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from echo_client.tls import TlsOptions
from echo_core import command
from echo_core.errors import ExitCode, InvalidValueError
from echo_core.units import parse_size

if TYPE_CHECKING:
    from echo_load.plan import Plan

CONNECTIONS = command.whole_number("count", 1, 2_000_000)
MESSAGES = command.whole_number("count", 1, 10**15)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in this order in the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


processes_option = click.option(
    "--processes",
    type=command.whole_number("count", 1, 1024),
    help="Generators that share the connections.  [default: half of the cores, or what the "
    "descriptors demand]",
)
timeout_options = together(
    click.option(
        "--timeout",
        type=command.POSITIVE_DURATION,
        help="What a reply may take.  [default: 10s; 1s over UDP]",
    ),
    click.option(
        "--connect-timeout",
        type=command.POSITIVE_DURATION,
        default="5s",
        help="What opening a connection may take.",
    ),
)
connecting_options = together(
    click.option(
        "--connect-rate",
        type=command.RATE,
        help="Connections opened a second in all, at most.",
    ),
    click.option(
        "--source-ip",
        "source_ips",
        metavar="ADDRESS|NETWORK",
        multiple=True,
        help="Connect from these addresses in turns; a list with commas, or given again.",
    ),
    click.option("-4", "--ipv4", is_flag=True, help="Use IPv4 addresses only."),
    click.option("-6", "--ipv6", is_flag=True, help="Use IPv6 addresses only."),
    command.tls_options,
)
result_options = together(
    click.option(
        "--reconcile",
        metavar="ADMIN_URL",
        help="Compare with the counters of the echo-server whose --admin page this is; done by "
        "itself where the test starts the server.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else."
    ),
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write the result as JSON to a file as well.",
    ),
)


def parse_payload_size(text: str) -> tuple[int, int]:
    """Read `64`, `16KiB` or a range, `64-16KiB`: the smallest and the largest.

    Raises:
        InvalidValueError: it is neither.
    """
    match = re.fullmatch(r"([^-]+)(?:-([^-]+))?", text.strip())
    if match is None:
        raise InvalidValueError(f"{text!r} is not a size; write it as in 64, 16KiB or 64-16KiB")
    least = parse_size(match[1])
    most = parse_size(match[2]) if match[2] else least
    if not 1 <= least <= most:
        raise InvalidValueError(
            f"{text!r} is no range of sizes from 1 byte on; write it as in 64-16KiB"
        )
    return least, most


payload_size_option = click.option(
    "--payload-size",
    type=command.Parsed("size", parse_payload_size),
    default="64",
    metavar="SIZE|FROM-TO",
    help="Bytes of a message, or the smallest and the largest: 64-16KiB.",
)


def connecting(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of `connecting_options` out of a command's, as fields of a plan."""
    if options["ipv4"] and options["ipv6"]:
        raise click.UsageError("-4 and -6 leave no address; give one of them")
    versions = {4: options.pop("ipv4"), 6: options.pop("ipv6")}
    sources = [one for text in options.pop("source_ips") for one in text.split(",")]
    return {
        "ip_version": next((number for number, only in versions.items() if only), None),
        "connect_rate": options.pop("connect_rate"),
        "source_ips": tuple(sources),
        "tls": TlsOptions(
            ca=options.pop("tls_ca"),
            cert=options.pop("tls_cert"),
            key=options.pop("tls_key"),
            server_name=options.pop("tls_server_name"),
            insecure=options.pop("tls_insecure"),
        ),
    }


def run_and_report(
    name: str, plan: Plan, *, reconcile: str | None, as_json: bool, output: Path | None
) -> ExitCode:
    """Run a plan, show how it goes, print what came of it, and say with which code to exit."""
    with command.needs_extra("load"):
        from echo_load import controller
        from echo_load.report.console import ConsoleReport
        from echo_load.report.files import check_writable, write
    if output is not None:
        check_writable(output)
    report = ConsoleReport(quiet=as_json)
    try:
        result = controller.run(
            plan, command=name, observer=report, reconcile=reconcile, handle_signals=True
        )
    finally:
        report.close()
    # First what does not depend on who reads the screen.
    if output is not None:
        write(output, result.to_json())
    if as_json:
        report.print_json(result)
    report.raise_failure()
    if result.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.OK if result.passed else ExitCode.FAILED
