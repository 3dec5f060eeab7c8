"""The command `echo-server`: its options, and the start of a single process or a supervisor.

Nothing here imports gevent or the standard library's networking at import time: modules imported
before monkey-patching may keep references to unpatched functions, and a supervisor is never
patched.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from echo_core import optional_imports
from echo_core.command_line import option_types, program, settings
from echo_core.command_line.arguments import Command, Example, refuse_unused
from echo_core.command_line.option_groups import heading
from echo_core.endpoint import (
    DEFAULT_PORT,
    DescriptorEndpoint,
    Endpoint,
    NetworkEndpoint,
    parse_http_address,
)
from echo_core.errors import ExitCode, InvalidValueError
from echo_server.config import ServerConfig
from echo_server.faults import Fault
from echo_server.processes.activation import inherited_descriptors
from echo_server.processes.assignment import Assignment

if TYPE_CHECKING:
    from echo_server.config import IpVersion

MAX_WORKERS = 512


def _workers(text: str) -> int:
    if text == "auto":
        return _cores()
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_WORKERS):
        raise InvalidValueError(f"{text!r} is neither auto nor a number from 1 to {MAX_WORKERS}")
    return int(text)


def _cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _mode(text: str) -> int:
    digits = text.removeprefix("0o")
    if not (1 <= len(digits) <= 4 and set(digits) <= set("01234567") and int(digits, 8) <= 0o777):
        raise InvalidValueError(f"{text!r} is not a file mode; write it as in 660 or 0600")
    return int(digits, 8)


_FILE = option_types.File()
_COUNT = option_types.whole_number("count", 1, 2**31 - 1)
# The options that have no effect on datagrams.
_CONNECTION_OPTIONS = (
    "backlog",
    "max_connections",
    "max_connections_per_ip",
    "idle_timeout",
    "rate_limit",
    "proxy_protocol",
    "handshake_timeout",
    "access_log",
)

_EXAMPLES = (
    Example("TCP on all addresses", "echo-server --host '*' --port 50007"),
    Example(
        "A worker for each core, a limit and metrics",
        "echo-server --workers auto --max-connections 10k --admin 127.0.0.1:9607",
    ),
    Example(
        "TCP and UDP on the same port",
        "echo-server --listen tcp://127.0.0.1:50007 --listen udp://127.0.0.1:50007",
    ),
    Example(
        "A tenth of the replies late, and a connection reset now and then",
        'echo-server --fault "delay=50ms@10%" --fault "reset@0.1%"',
    ),
)


@click.command(
    cls=Command,
    context_settings=settings.command_settings("ECHO_SERVER"),
    examples=_EXAMPLES,
)
@heading("Listening")
@click.option(
    "--host",
    type=option_types.HOST,
    help="Host name or address to listen on; * for all addresses.  [default: 127.0.0.1, or ::1 "
    "with -6]",
)
@click.option(
    "--port",
    type=option_types.PORT,
    default=DEFAULT_PORT,
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--listen",
    type=option_types.ENDPOINT,
    multiple=True,
    metavar="URL",
    help="Endpoint to listen on, instead of --host and --port: tcp://HOST:PORT, tls://…, udp://…, "
    "unix:///PATH, unix://@NAME (abstract) or fd://N. Repeatable.",
)
@click.option("-4", "--ipv4", is_flag=True, help="Listen on IPv4 addresses only.")
@click.option("-6", "--ipv6", is_flag=True, help="Listen on IPv6 addresses only.")
@click.option(
    "--backlog",
    type=_COUNT,
    default=4096,
    help="Maximum number of connections waiting to be accepted.",
)
@click.option(
    "--unix-mode",
    type=option_types.Parsed("mode", _mode, only_text=True),
    default="666",
    help="File mode of unix sockets, in octal.",
)
@heading("Workers")
@click.option(
    "--workers",
    type=option_types.Parsed("count", _workers),
    default="1",
    metavar="COUNT|auto",
    help="Number of worker processes; auto starts one per core.",
)
@heading("Limits")
@click.option(
    "--max-connections",
    type=_COUNT,
    help="Maximum number of open connections, over all workers.",
)
@click.option(
    "--when-full",
    type=click.Choice(["close", "wait"]),
    default="close",
    help="Close connections beyond --max-connections at once, or let them wait in the backlog.",
)
@click.option(
    "--max-connections-per-ip",
    type=_COUNT,
    help="Maximum number of open connections per client address, in each worker.",
)
@click.option(
    "--idle-timeout",
    type=option_types.POSITIVE_DURATION,
    help="Close connections that transfer no data for this long.",
)
@click.option(
    "--rate-limit",
    type=option_types.RATE_OF_BYTES,
    metavar="BYTES/S",
    help="Maximum bytes per second that each connection may send, such as 64KiB or 10MB.",
)
@heading("Workers")
@click.option(
    "--drain-timeout",
    type=option_types.DURATION,
    default="10s",
    help="Time that open connections have to finish after SIGTERM or SIGINT.",
)
@heading("TLS and PROXY protocol")
@click.option(
    "--tls-cert",
    type=_FILE,
    metavar="FILE",
    help="PEM file with the certificate and its chain, for --listen tls://HOST:PORT.",
)
@click.option(
    "--tls-key",
    type=_FILE,
    metavar="FILE",
    help="PEM file with the private key, without a passphrase.",
)
@click.option(
    "--tls-client-ca",
    type=_FILE,
    metavar="FILE",
    help="Require a client certificate signed by a CA in this PEM file.",
)
@click.option(
    "--proxy-protocol",
    is_flag=True,
    help="Expect each connection to begin with a PROXY protocol header, version 1 or 2.",
)
@click.option(
    "--handshake-timeout",
    type=option_types.POSITIVE_DURATION,
    default="10s",
    help="Time that a connection has for its PROXY header and TLS handshake together.",
)
@heading("Listening")
@click.option("--udp-low-ports", is_flag=True, help="Also answer datagrams from ports below 1024.")
@heading("Faults")
@click.option(
    "--fault",
    "faults",
    type=option_types.Parsed("fault", Fault.parse),
    multiple=True,
    metavar="FAULT",
    help="Inject a fault into a share of the reads or datagrams: KIND@PERCENT, or "
    "KIND=TIME[+-JITTER]@PERCENT for delay and stall. Kinds: delay, corrupt, truncate; for "
    "connections also stall, reset, close; for datagrams also drop, duplicate, reorder. "
    "Repeatable.",
)
@click.option(
    "--fault-seed",
    type=option_types.whole_number("number", 0, 2**63 - 1),
    default=0,
    help="Seed that decides which reads and datagrams are hit by the faults.",
)
@heading("Metrics and logs")
@click.option(
    "--admin",
    type=option_types.Parsed("endpoint", parse_http_address),
    metavar="HOST:PORT",
    help="Serve /metrics, /healthz and /readyz on this address.",
)
@click.option("--access-log", is_flag=True, help="Log one line per connection when it ends.")
@click.option(
    "--access-log-sample",
    type=option_types.PERCENTAGE,
    default="100%",
    metavar="PERCENT",
    help="Share of connections that --access-log logs, chosen at random.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="Minimum severity to log.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    help="Log format; auto is console on a terminal and JSON lines otherwise.",
)
@click.option("--worker", type=option_types.Parsed("assignment", Assignment.parse), hidden=True)
@settings.config_option
@program.version_option
@click.pass_context
def echo_server(
    context: click.Context,
    /,
    host: str | None,
    port: int,
    listen: tuple[Endpoint, ...],
    ipv4: bool,
    ipv6: bool,
    access_log: bool,
    access_log_sample: float,
    worker: Assignment | None,
    **settings: Any,
) -> ExitCode:
    """Echo every byte of many concurrent connections, with one thread per worker.

    Prints `listening tcp://HOST:PORT` on standard output as soon as a listener accepts connections,
    and `admin http://HOST:PORT` for --admin; logs go to standard error. Without --listen, listeners
    passed by systemd are served.

    SIGTERM or Ctrl-C drains: connections in the backlog are still accepted, then no more, and open
    ones may finish. A second signal, more than a second later, ends the server at once. With
    --workers 2 or more, or with --admin, a supervisor watches the workers: it replaces one that
    dies, and on SIGHUP replaces all of them by new processes, one after the other, without refusing
    a connection.

    Every option can also be set in the environment: ECHO_SERVER_PORT=50007.

    Exit codes: 0 drained, 2 usage error, 3 could not listen or start workers, 130 ended by a second
    signal.
    """
    if ipv4 and ipv6:
        raise click.UsageError("-4 and -6 cannot be combined; omit both to listen on both")
    version: IpVersion | None = 4 if ipv4 else 6 if ipv6 else None
    if listen:
        refuse_unused(
            context,
            ("host", "port"),
            "cannot be combined with --listen; write --listen tcp://HOST:PORT",
        )
    if not access_log:
        refuse_unused(
            context, ("access_log_sample",), "has no effect without --access-log; add --access-log"
        )
    config = ServerConfig(
        listen=listen or _inherited() or (_host_and_port(host, port, version),),
        ip_version=version,
        access_log=access_log_sample if access_log else 0.0,
        **settings,
    )
    if worker is None:
        config.check_faults()
        _refuse_ineffective(context, config)
    # structlog would import rich, for tracebacks that the logs do not use: a fifth of the memory
    # and of the time that a worker costs.
    with optional_imports.without("rich"):
        import structlog  # noqa: F401
    if worker is None and config.is_supervised:
        from echo_server.processes.supervisor import supervise

        return supervise(config)
    from gevent import monkey

    monkey.patch_all()
    from echo_server.processes.worker import serve, serve_slot

    return serve(config) if worker is None else serve_slot(config, worker)


def _refuse_ineffective(context: click.Context, config: ServerConfig) -> None:
    """Refuse options that have no effect with the other options given."""
    if config.max_connections is None:
        refuse_unused(
            context,
            ("when_full",),
            "has no effect without --max-connections; add --max-connections",
        )
    if not config.faults:
        refuse_unused(context, ("fault_seed",), "has no effect without --fault; add --fault")
    schemes = {endpoint.scheme for endpoint in config.listen}
    if "fd" in schemes:
        # Whether a descriptor is a unix or a UDP socket is known only when it is opened.
        return
    if schemes == {"udp"}:
        refuse_unused(
            context,
            _CONNECTION_OPTIONS,
            "applies only to connections; add --listen tcp://HOST:PORT",
        )
    if not (config.speaks_tls or config.proxy_protocol):
        refuse_unused(
            context,
            ("handshake_timeout",),
            "applies only to TLS and PROXY headers; add --listen tls://HOST:PORT or "
            "--proxy-protocol",
        )
    if "unix" not in schemes:
        refuse_unused(
            context, ("unix_mode",), "applies only to unix sockets; add --listen unix:///PATH"
        )
    if "udp" not in schemes:
        refuse_unused(
            context, ("udp_low_ports",), "applies only to UDP; add --listen udp://HOST:PORT"
        )


def _inherited() -> tuple[Endpoint, ...]:
    return tuple(DescriptorEndpoint(number) for number in inherited_descriptors())


def _host_and_port(host: str | None, port: int, version: IpVersion | None) -> Endpoint:
    return NetworkEndpoint(host or ("::1" if version == 6 else "127.0.0.1"), port)
