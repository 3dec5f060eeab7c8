"""The parsed options of a swarm."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import Any, get_args

from echo_client.opening_options import proxy_source
from echo_client.proxy_header import ProxyHeaders
from echo_client.tls import TlsOptions
from echo_core.command_line import option_types
from echo_core.endpoint import Endpoint, parse_target
from echo_core.errors import InvalidValueError
from echo_core.proxy_protocol import Version
from echo_core.units import parse_size_range
from echo_load.flags import errors_name_flags
from echo_load.plan.bounds import MOST_CONNECTIONS
from echo_load.plan.engine_name import EngineName
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan, parse_stages
from echo_load.plan.thresholds import Threshold
from echo_load.swarm.options import DEFAULTS

# The stress test of the tutorial.
STRESS_STAGES = tuple(StagePlan(first=users, last=users, duration=30.0) for users in (100, 1000))

_CONNECTIONS = option_types.whole_number("count", 1, MOST_CONNECTIONS)
DEFAULT_BLOCK_CONNECTIONS: int = _CONNECTIONS.parse(DEFAULTS["block-connections"])
# Figures that a threshold can limit; a swarm does not measure others.
_MEASURED = frozenset(
    {"errors", "loss", "messages", "messages_per_second", "connections_opened"}
    | {"connections_failed"}
)
_MEASURED_TIMES = ("response.", "connect.")


@dataclass(frozen=True, slots=True)
class Settings:
    """The parsed options of a swarm.

    Attributes:
        wait: shortest and longest pause of an EchoUser between two messages, in seconds.
        payload_size: smallest and largest size of a message in bytes.
        timeout: seconds after which a reply is overdue.
        connect_timeout: seconds after which an attempt to connect fails.
        tls: options of TLS.
        send_proxy: version of the PROXY header that connections begin with; None for no header.
        send_proxy_source: addresses of the clients in these headers; None for the true ones.
        block_connections: number of connections of an EchoBlockUser.
        rate: messages per second of an EchoBlockUser; None for a closed loop.
        stages: numbers of users over time.
        thresholds: conditions that the figures have to meet.
    """

    wait: tuple[float, float]
    payload_size: tuple[int, int]
    timeout: float
    connect_timeout: float
    tls: TlsOptions
    send_proxy: Version | None
    send_proxy_source: str | None
    block_connections: int
    rate: float | None
    stages: tuple[StagePlan, ...]
    thresholds: tuple[Threshold, ...]

    @classmethod
    def of(cls, options: Namespace) -> Settings:
        """Parse the options that locust has read as text.

        Raises:
            InvalidValueError: an option, which the message names, is invalid.
        """

        def read(name: str, parse: Any, default: Any = None) -> Any:
            given = getattr(options, name.replace("-", "_"), None) or ""
            text = ",".join(given) if isinstance(given, list) else str(given)
            text = text.strip() or DEFAULTS[name]
            if not text:
                return default
            try:
                return parse(text)
            except InvalidValueError as error:
                raise InvalidValueError(f"--{name}: {error}") from error

        return cls(
            wait=read("wait", _durations),
            payload_size=read("payload-size", parse_size_range),
            timeout=read("timeout", option_types.POSITIVE_DURATION.parse),
            connect_timeout=read("connect-timeout", option_types.POSITIVE_DURATION.parse),
            tls=TlsOptions(
                ca=getattr(options, "tls_ca", None) or None,
                cert=getattr(options, "tls_client_cert", None) or None,
                key=getattr(options, "tls_client_key", None) or None,
                server_name=getattr(options, "tls_server_name", None) or None,
                insecure=bool(getattr(options, "tls_insecure", False)),
            ),
            send_proxy=read("send-proxy", _proxy_version),
            send_proxy_source=read("send-proxy-source", proxy_source),
            block_connections=read("block-connections", _CONNECTIONS.parse),
            rate=read("rate", option_types.RATE.parse),
            stages=read("stages", _stages, ()),
            thresholds=read("threshold", _thresholds, ()),
        )

    @property
    def proxy_headers(self) -> ProxyHeaders | None:
        """The PROXY headers of all connections; None if they have none."""
        return ProxyHeaders.of(self.send_proxy, self.send_proxy_source)

    def plan(self, target: Endpoint, engine: EngineName | None = None) -> Plan:
        """Return the plan of an EchoBlockUser; for an EchoUser only its payload is used.

        Args:
            target: the service.
            engine: engine that drives the connections; None for the default.

        Raises:
            InvalidValueError: options contradict each other.
        """
        with errors_name_flags():
            return Plan(
                targets=(str(target),),
                engine=engine,
                connections=self.block_connections,
                duration=_WITHOUT_END,
                rate=self.rate,
                payload_size=self.payload_size,
                timeout=self.timeout,
                connect_timeout=self.connect_timeout,
                tls=self.tls if target.scheme == "tls" else TlsOptions(),
                send_proxy=self.send_proxy,
                send_proxy_source=self.send_proxy_source,
            )


# A year: it is locust that stops the users.
_WITHOUT_END = 365 * 24 * 3600.0


def parse_host(host: str | None) -> Endpoint:
    """Parse the value of `--host`.

    Raises:
        InvalidValueError: it is missing, or not an endpoint.
    """
    if not host:
        raise InvalidValueError("--host is missing; write it as in --host tcp://HOST:50007")
    try:
        return parse_target(host)
    except InvalidValueError as error:
        raise InvalidValueError(f"--host: {error}") from error


def _durations(text: str) -> tuple[float, float]:
    first, dash, last = text.partition("-")
    least: float = option_types.DURATION.parse(first)
    most: float = option_types.DURATION.parse(last if dash else first)
    if least > most:
        raise InvalidValueError(f"{text!r} is not a range of durations; write it as in 1s-3s")
    return least, most


def _proxy_version(text: str) -> str:
    if text not in get_args(Version):
        raise InvalidValueError(f"{text!r} is not v1 or v2")
    return text


def _stages(text: str) -> tuple[StagePlan, ...]:
    return STRESS_STAGES if text == "stress" else parse_stages(text, rates=False)


def _thresholds(text: str) -> tuple[Threshold, ...]:
    return tuple(_threshold(one.strip()) for one in text.split(","))


def _threshold(text: str) -> Threshold:
    one = Threshold.parse(text)
    if one.scope.stage is not None:
        raise InvalidValueError(
            f"{text!r}: a swarm has no figures of a single stage; omit {one.scope}"
        )
    if one.scope.target is not None:
        raise InvalidValueError(
            f"{text!r}: a swarm has one target, which needs no name; omit {{…}}"
        )
    if one.metric not in _MEASURED and not one.metric.startswith(_MEASURED_TIMES):
        raise InvalidValueError(
            f"{text!r}: a swarm does not measure {one.metric}; it measures response and connect "
            f"times, and {', '.join(sorted(_MEASURED))}"
        )
    return one
