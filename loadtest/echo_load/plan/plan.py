"""The plan of a test: targets, connections, pacing, payload, deadlines."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from echo_client.proxy_header import ProxyHeaders
from echo_client.socket_options import SocketOptions
from echo_client.tls import TlsOptions
from echo_core.endpoint import Endpoint, NetworkEndpoint, parse_target
from echo_core.errors import InvalidValueError
from echo_core.limits import LARGEST_DATAGRAM
from echo_core.proxy_protocol import Version
from echo_core.units import format_bandwidth, format_count, format_duration
from echo_load.plan import fields
from echo_load.plan.bandwidth import Bandwidth, mean_size
from echo_load.plan.bounds import LARGEST_PAYLOAD
from echo_load.plan.converters import CONVERTERS
from echo_load.plan.engine_name import EngineName
from echo_load.plan.fields import Count, Duration, Rate, Size, Sizes, Texts
from echo_load.plan.payload import FixedPayload, HelloPayload, Payload, StampedPayload
from echo_load.plan.stages import StagePlan, Stages
from echo_load.plan.thresholds import Threshold, written_rate
from echo_load.plan.validation import check_plan

DEFAULT_SECONDS = 10.0
DEFAULT_TIMEOUT = 10.0
DEFAULT_DATAGRAM_TIMEOUT = 1.0
_DEFAULT_TLS = TlsOptions()


@dataclass(frozen=True, kw_only=True, init=False, repr=False)
class Plan:
    """A complete, immutable description of a test.

    Attributes:
        targets: URLs of the services to test, such as `tcp://127.0.0.1:50007`; the connections are
            distributed over them in turn. If empty, an `echo-server` is started, tested and
            stopped.
        engine: engine that drives the connections; None for `hub`.
        processes: number of generator processes, which share the connections; None for half of the
            cores, or for more if the limit of open descriptors demands it.
        connections: number of connections; not used if the stages give it.
        duration: seconds during which messages are sent; None for 10 seconds, or until the stages
            end or `messages` have been sent.
        messages: largest number of messages to send in total, divided evenly between the
            connections; None for no limit.
        rate: messages per second in total, each sent when it is due (open loop); None to send each
            message when the reply to the previous one has arrived (closed loop). With
            `staged_rate` it is the rate of the warm-up.
        bytes_per_message: mean size of the messages, if the rates were given in bytes or bits per
            second; multiplied by it, they are bytes per second again. None if they were given in
            messages per second.
        arrivals: with a rate, whether messages are due at constant intervals or as a Poisson
            process.
        stages: numbers of connections over time, or rates if `staged_rate` is set.
        staged_rate: whether the stages are rates, in messages per second.
        loop: whether the first stage follows the last one, until `duration` is over.
        reopen: whether each stage has connections of its own, all opened before its first message.
        warmup: seconds of load before the first stage (before each stage with `reopen`), at the
            level with which that begins and on connections of its own; not part of the result.
        pipeline: largest number of messages in flight at once on each connection.
        payload_size: smallest and largest size of a message in bytes.
        payload_file: path of a file whose content is sent as each message.
        message: text that is sent as each message.
        hello: whether to send `hello 0`, `hello 1` and so on.
        churn: number of messages after which a connection is replaced by a new one; None for never.
        reconnect: whether to reopen a connection that was lost.
        connect_rate: largest number of connections opened per second in total; None for no limit.
        connects_in_flight: largest number of connections that one generator opens at once.
        timeout: seconds after which a reply is overdue; None for 10, or for 1 if a target is
            `udp://`.
        connect_timeout: seconds after which an attempt to connect fails.
        source_ips: local addresses and networks (`127.0.1.0/24`) to connect from, in turn; if
            empty, the kernel chooses.
        ip_version: 4 or 6 to use that IP version only; None for both.
        tls: options of TLS for `tls://` targets.
        tls_resume: whether a TLS handshake resumes the session of an earlier connection of the same
            generator to the same address, once there is one on which a reply has come; the `hub`
            engine only.
        send_proxy: version of the PROXY protocol header with which each connection begins; None for
            no header.
        send_proxy_source: address of the client in that header: a network, whose addresses the
            connections have in turn, an address, or an address and a port; None for the
            connection's own address.
        dscp: differentiated services code point of the packets, from 0 to 63; None for the
            system's default.
        nodelay: whether TCP sends small segments at once; False for Nagle's algorithm.
        keepalive: interval of TCP keep-alives in whole seconds; None for no keep-alives.
        buffer_size: bytes to request for the send buffer and for the receive buffer of each socket;
            None for the system's default.
        repeat: number of times that the whole test is run, each time on new connections.
        thresholds: conditions that the figures have to meet, such as `p99<5ms`.
        abort_on: thresholds that end the test as soon as they are crossed.

    Raises:
        InvalidValueError: a field is out of its range, or fields contradict each other.
    """

    targets: tuple[str, ...] = ()
    engine: EngineName | None = None
    processes: int | None = None
    connections: int = 100
    duration: float | None = None
    messages: int | None = None
    rate: float | None = None
    bytes_per_message: float | None = None
    arrivals: Literal["constant", "poisson"] = "constant"
    stages: tuple[StagePlan, ...] = ()
    staged_rate: bool = False
    loop: bool = False
    reopen: bool = False
    warmup: float = 0.0
    pipeline: int = 1
    payload_size: tuple[int, int] = (64, 64)
    payload_file: str | None = None
    message: str | None = None
    hello: bool = False
    churn: int | None = None
    reconnect: bool = True
    connect_rate: float | None = None
    connects_in_flight: int = 64
    timeout: float | None = None
    connect_timeout: float = 5.0
    source_ips: tuple[str, ...] = ()
    ip_version: Literal[4, 6] | None = None
    tls: TlsOptions = _DEFAULT_TLS
    tls_resume: bool = False
    send_proxy: Version | None = None
    send_proxy_source: str | None = None
    dscp: int | None = None
    nodelay: bool = True
    keepalive: float | None = None
    buffer_size: int | None = None
    repeat: int = 1
    thresholds: tuple[str, ...] = ()
    abort_on: tuple[str, ...] = ()

    @fields.by_name(CONVERTERS)
    def __init__(
        self,
        *,
        targets: Texts = (),
        engine: EngineName | None = None,
        processes: Count | None = None,
        connections: Count = 100,
        duration: Duration | None = None,
        messages: Count | None = None,
        rate: Rate | None = None,
        bytes_per_message: float | None = None,
        arrivals: Literal["constant", "poisson"] = "constant",
        stages: Stages = (),
        staged_rate: bool = False,
        loop: bool = False,
        reopen: bool = False,
        warmup: Duration = 0.0,
        pipeline: Count = 1,
        payload_size: Sizes = 64,
        payload_file: str | os.PathLike[str] | None = None,
        message: str | None = None,
        hello: bool = False,
        churn: Count | None = None,
        reconnect: bool = True,
        connect_rate: Rate | None = None,
        connects_in_flight: Count = 64,
        timeout: Duration | None = None,
        connect_timeout: Duration = 5.0,
        source_ips: Texts = (),
        ip_version: Literal[4, 6] | None = None,
        tls: TlsOptions = _DEFAULT_TLS,
        tls_resume: bool = False,
        send_proxy: Version | None = None,
        send_proxy_source: str | None = None,
        dscp: int | str | None = None,
        nodelay: bool = True,
        keepalive: Duration | None = None,
        buffer_size: Size | None = None,
        repeat: Count = 1,
        thresholds: Texts = (),
        abort_on: Texts = (),
    ) -> None:
        """Make a plan from fields that are exact or written as on the command line.

        A duration may be `"10s"`, a count or a rate `"10k"`, sizes `64`, `"64KiB"` or `"64-16KiB"`,
        stages `"0-100/10s,100/30s"`, and one text may stand for a tuple of one.
        """

    def __repr__(self) -> str:
        """Return the plan as Python would write it, without fields that have their defaults."""
        return fields.written(self)

    def __post_init__(self) -> None:
        self._convert_bandwidth()
        check_plan(self)
        targets = [str(endpoint) for endpoint in self.endpoints]
        for limit in self.limits:
            limit.check_measured(self.schemes, targets, len(self.run_stages))

    def _convert_bandwidth(self) -> None:
        """Convert a rate in bytes per second by the mean size of the messages."""
        if isinstance(self.rate, Bandwidth):
            size = mean_size(
                payload_size=self.payload_size,
                payload_file=self.payload_file,
                message=self.message,
                hello=self.hello,
            )
            # The dataclass is frozen.
            object.__setattr__(self, "bytes_per_message", size)
            object.__setattr__(self, "rate", self.rate.bytes_per_second / size)

    @property
    def limits(self) -> tuple[Threshold, ...]:
        """The parsed `thresholds` and `abort_on`."""
        return (
            *map(Threshold.parse, self.thresholds),
            *map(Threshold.parse_abort, self.abort_on),
        )

    @property
    def socket_options(self) -> SocketOptions:
        """The options of the sockets that are opened."""
        return SocketOptions(
            nodelay=self.nodelay,
            keepalive=self.keepalive,
            dscp=self.dscp,
            buffer_size=self.buffer_size,
        )

    @property
    def proxy_headers(self) -> ProxyHeaders | None:
        """The PROXY headers of the connections; None if they have none."""
        return ProxyHeaders.of(self.send_proxy, self.send_proxy_source)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The parsed `targets`."""
        return tuple(parse_target(target) for target in self.targets)

    @property
    def driven_by(self) -> EngineName:
        """The engine, or the default one if `engine` is None."""
        return self.engine or "hub"

    @property
    def open_loop(self) -> bool:
        """True for an open loop (messages are sent when they are due), False for a closed loop."""
        return self.rate is not None or self.staged_rate

    def stage_name(self, stage: StagePlan) -> str:
        """Return the name of a stage: `100 connections`, `10,000 msg/s on 100 connections`."""
        return self._named(self._levels(stage), one=stage.levels == "1")

    @property
    def rate_name(self) -> str:
        """The rate as text, also as a bandwidth if it was given as one; empty without a rate."""
        if self.rate is None:
            return ""
        levels = self._levels(StagePlan(first=self.rate, last=self.rate, duration=None))
        return levels if self.bytes_per_message is not None else f"{levels} msg/s"

    @property
    def description(self) -> str:
        """The test in one line of text."""
        stages = self.run_stages
        levels = [self._levels(stage) for stage in stages]
        parts = [self._named(", then ".join(levels), one=levels == ["1"])]
        durations = [stage.duration for stage in stages if stage.duration is not None]
        if durations:
            same = len(durations) > 1 and len(set(durations)) == 1
            seconds = durations[0] if same else sum(durations)
            parts[0] += f", {format_duration(seconds)}{' each' if same else ''}"
        if self.open_loop:
            parts.append(f"{self.arrivals} arrivals")
        if self.messages is not None:
            parts.append(format_count(self.messages, "message"))
        if self.repeat > 1:
            parts.append(f"{self.repeat} times")
        return "; ".join(parts)

    def _named(self, levels: str, *, one: bool) -> str:
        if not self.open_loop:
            return f"{levels} {'connection' if one else 'connections'}"
        unit = " msg/s" if self.bytes_per_message is None else ""
        return f"{levels}{unit} on {self.connections:,} connection{'s' * (self.connections > 1)}"

    def _levels(self, stage: StagePlan) -> str:
        """Return the levels of a stage, without a unit unless they are bandwidths."""
        if self.bytes_per_message is None:
            return stage.levels
        ends = dict.fromkeys((stage.first, stage.last))
        bandwidths = (
            format_bandwidth(rate * self.bytes_per_message) if rate else "0" for rate in ends
        )
        return f"{' to '.join(bandwidths)}, {' to '.join(map(written_rate, ends))} msg/s"

    @property
    def run_stages(self) -> tuple[StagePlan, ...]:
        """The stages, or a single one made of the other fields if the plan has none."""
        if self.stages:
            return self.stages
        level = self.connections if self.rate is None else self.rate
        return (StagePlan(first=level, last=level, duration=self.seconds),)

    @property
    def seconds(self) -> float | None:
        """Seconds during which messages are sent; None if no time is set for the end."""
        if self.duration is not None:
            return self.duration
        if self.stages:
            durations = [stage.duration for stage in self.stages if stage.duration is not None]
            return None if self.loop or len(durations) < len(self.stages) else sum(durations)
        return DEFAULT_SECONDS if self.messages is None else None

    def warm_up(self, first: StagePlan) -> Plan:
        """Return the plan of the warm-up before a stage: `warmup` seconds at a constant level.

        The level is the one with which the stage begins, or its highest if it begins with 0. If
        the stages are rates and `rate` is set, the level is `rate`.
        """
        level = first.first or first.highest
        if self.staged_rate and self.rate is not None:
            level = self.rate
        return replace(
            self,
            stages=(StagePlan(first=level, last=level, duration=self.warmup),),
            staged_rate=self.open_loop,
            rate=None,
            loop=False,
            duration=None,
            messages=None,
            warmup=0.0,
            repeat=1,
            thresholds=(),
            abort_on=(),
        )

    @property
    def most_connections(self) -> int:
        """The largest number of connections open at once."""
        return self.connections_of(self.stages)

    def connections_of(self, stages: Collection[StagePlan]) -> int:
        """Return the largest number of connections that some stages of the plan have open."""
        if not stages or self.open_loop:
            return self.connections
        return math.ceil(max(stage.highest for stage in stages))

    @property
    def reply_timeout(self) -> float:
        """Seconds after which a reply is overdue: `timeout`, or its default."""
        if self.timeout is not None:
            return self.timeout
        return DEFAULT_DATAGRAM_TIMEOUT if self.speaks("udp") else DEFAULT_TIMEOUT

    def payload(self, run: int) -> Payload:
        """Return the payload of a test run.

        Args:
            run: number of up to 32 bits that distinguishes the messages of this run from those of
                other runs.

        Raises:
            InvalidValueError: the payload file cannot be read, is empty or too large, or a message
                is too large for a datagram.
        """
        payload = self._make_payload(run)
        for endpoint in self.endpoints:
            if isinstance(endpoint, NetworkEndpoint) and endpoint.transport == "udp":
                # A name may resolve to either IP version, and an IPv4 datagram holds less.
                largest = LARGEST_DATAGRAM[endpoint.ip_version or self.ip_version or 4]
                if payload.largest > largest:
                    raise InvalidValueError(
                        f"messages of {payload.largest} bytes are too large: a datagram can hold "
                        f"at most {largest}"
                    )
        return payload

    def _make_payload(self, run: int) -> Payload:
        if self.hello:
            return HelloPayload()
        if self.message is not None:
            return FixedPayload(self.message.encode())
        if self.payload_file is not None:
            return FixedPayload(_read(self.payload_file))
        return StampedPayload(*self.payload_size, run)

    @property
    def schemes(self) -> frozenset[str]:
        """The targets' schemes: `tcp`, `tls`, `udp` or `unix`; `tcp` if there are no targets."""
        return frozenset(endpoint.scheme for endpoint in self.endpoints) or frozenset({"tcp"})

    def speaks(self, scheme: str) -> bool:
        """Return whether one of the targets has this scheme."""
        return scheme in self.schemes

    @property
    def uses_tcp(self) -> bool:
        """True if a target is reached over TCP, for which the kernel keeps statistics (tcp(7))."""
        return not self.schemes.isdisjoint({"tcp", "tls"})


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # the message names the path as it was given
            content = file.read(LARGEST_PAYLOAD + 1)
    except OSError as error:
        raise InvalidValueError(f"`payload_file` {path}: {error.strerror}") from error
    if not 1 <= len(content) <= LARGEST_PAYLOAD:
        raise InvalidValueError(
            f"`payload_file` {path} is empty or too large; it must have 1 to {LARGEST_PAYLOAD} "
            "bytes"
        )
    return content
