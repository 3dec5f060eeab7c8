"""The plan of a test: targets, connections, pacing, payload, deadlines."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from echo_client.tls import TlsOptions
from echo_core.endpoint import Endpoint, NetworkEndpoint, parse_target
from echo_core.errors import InvalidValueError
from echo_core.limits import LARGEST_DATAGRAM
from echo_core.units import format_count, format_duration
from echo_load.plan.bounds import (
    HIGHEST_RATE,
    MOST_CONNECTIONS,
    MOST_MESSAGES,
    MOST_PIPELINED,
    MOST_PROCESSES,
    MOST_REPEATS,
)
from echo_load.plan.payload import FixedPayload, HelloPayload, Payload, StampedPayload
from echo_load.plan.stages import StagePlan
from echo_load.plan.thresholds import Threshold

EngineName = Literal["hub", "greenlets", "threads"]
# The transports that each engine speaks.
SPOKEN: dict[EngineName, frozenset[str]] = {
    "hub": frozenset({"tcp", "udp", "unix"}),
    "greenlets": frozenset({"tcp", "tls", "unix"}),
    "threads": frozenset({"tcp", "tls", "unix"}),
}
LARGEST_PAYLOAD = 64 << 20
DEFAULT_SECONDS = 10.0
DEFAULT_TIMEOUT = 10.0
DEFAULT_DATAGRAM_TIMEOUT = 1.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A test from beginning to end. Bad combinations are refused with an `InvalidValueError`.

    Attributes:
        targets: endpoints, over which the connections are spread in turns; without any, an
            `echo-server` is started and tested.
        engine: how connections are driven; None for `hub`, or `greenlets` where a target is TLS.
        processes: generators that share the connections; None for as many as suit.
        connections: how many; with stages of connections, these say.
        duration: seconds to send; None for 10, or until `messages` have been sent, or until the
            stages are over.
        messages: how many to send in all, spread evenly over the connections; None for no limit.
        rate: messages a second in all, sent when they are due (open loop); None for each when the
            reply to the last is in (closed loop).
        arrivals: whether messages are due at even distances, or at random ones (Poisson).
        stages: how the number of connections changes, or the rate where `staged_rate` is set.
        staged_rate: the stages are rates.
        loop: begin again with the first stage after the last.
        reopen: each stage has connections of its own, all open before its first message.
        warmup: seconds before the first stage, at its first level and with connections of its own,
            that no figure knows of.
        pipeline: messages under way at once on a connection.
        payload_size: bytes of a message, from and to.
        payload_file: a file that is the message.
        message: a text that is the message.
        hello: the messages are `hello 0`, `hello 1` and on.
        churn: messages after which a connection is closed and opened anew; None for never.
        reconnect: open a connection that was lost anew.
        connect_rate: connections opened a second in all, at most; None for no limit.
        connects_in_flight: connections that a generator opens at once.
        timeout: seconds that a reply may take; None for 10, or 1 over UDP.
        connect_timeout: seconds that opening a connection may take.
        source_ips: addresses to connect from: addresses and networks.
        ip_version: 4 or 6 only; None for both.
        tls: how TLS is spoken.
        repeat: how many times all of this is done, with connections of its own each time.
        thresholds: what has to be kept, as in `p99<5ms`.
        abort_on: thresholds that end the test as soon as they are crossed.
    """

    targets: tuple[str, ...] = ()
    engine: EngineName | None = None
    processes: int | None = None
    connections: int = 100
    duration: float | None = None
    messages: int | None = None
    rate: float | None = None
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
    tls: TlsOptions = TlsOptions()
    repeat: int = 1
    thresholds: tuple[str, ...] = ()
    abort_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_time()
        self._check_payload()
        self._check_targets()
        for limit in self.limits:
            limit.check_measured(self.schemes)

    @property
    def limits(self) -> tuple[Threshold, ...]:
        """The parsed thresholds, including those that abort the test."""
        return (
            *map(Threshold.parse, self.thresholds),
            *map(Threshold.parse_abort, self.abort_on),
        )

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The parsed targets."""
        return tuple(parse_target(target) for target in self.targets)

    @property
    def driven_by(self) -> EngineName:
        """The engine; a default if the plan names none."""
        if self.engine is not None:
            return self.engine
        return "greenlets" if self.speaks("tls") else "hub"

    @property
    def open_loop(self) -> bool:
        """Whether messages leave when they are due, not when the last reply has arrived."""
        return self.rate is not None or self.staged_rate

    def stage_name(self, stage: StagePlan) -> str:
        """The name of a stage: `100 connections`, `10,000 msg/s on 100 connections`."""
        return self._named(stage.levels, one=stage.levels == "1")

    @property
    def description(self) -> str:
        """A description of the test in one line."""
        stages = self.run_stages
        levels = [stage.levels for stage in stages]
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
        return f"{levels} msg/s on {self.connections:,} connection{'s' * (self.connections > 1)}"

    @property
    def run_stages(self) -> tuple[StagePlan, ...]:
        """The stages; a single one if the plan has none."""
        if self.stages:
            return self.stages
        level = self.connections if self.rate is None else self.rate
        return (StagePlan(first=level, last=level, duration=self.seconds),)

    @property
    def seconds(self) -> float | None:
        """Seconds of sending; None if only the messages or an interruption end it."""
        if self.duration is not None:
            return self.duration
        if self.stages:
            durations = [stage.duration for stage in self.stages if stage.duration is not None]
            return None if self.loop or len(durations) < len(self.stages) else sum(durations)
        return DEFAULT_SECONDS if self.messages is None else None

    def warm_up(self, first: StagePlan) -> Plan:
        """Return the warm-up of a stage: the level that it begins with, for `warmup` seconds."""
        level = first.first or first.highest
        if self.staged_rate and self.rate is not None:
            level = self.rate
        return msgspec.structs.replace(
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
        if not self.stages or self.staged_rate:
            return self.connections
        return math.ceil(max(stage.highest for stage in self.stages))

    @property
    def reply_timeout(self) -> float:
        """Seconds that a reply may take; a default if the plan has no timeout."""
        if self.timeout is not None:
            return self.timeout
        return DEFAULT_DATAGRAM_TIMEOUT if self.speaks("udp") else DEFAULT_TIMEOUT

    def payload(self, run: int) -> Payload:
        """The payload of a run.

        Args:
            run: a number that distinguishes this run's messages from others', up to 32 bits.

        Raises:
            InvalidValueError: the file cannot be read, is empty or too large, or a message is too
                large for a datagram.
        """
        payload = self._make_payload(run)
        for endpoint in self.endpoints:
            if isinstance(endpoint, NetworkEndpoint) and endpoint.transport == "udp":
                # A name may resolve to either IP version; an IPv4 datagram holds less.
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
        """Whether a target is reached over TCP, for which the kernel has figures."""
        return not self.schemes.isdisjoint({"tcp", "tls"})

    def _check_numbers(self) -> None:
        for name, value, least, most in (
            ("connections", self.connections, 1, MOST_CONNECTIONS),
            ("processes", self.processes, 1, MOST_PROCESSES),
            ("messages", self.messages, 1, MOST_MESSAGES),
            ("pipeline", self.pipeline, 1, MOST_PIPELINED),
            ("churn", self.churn, 1, MOST_MESSAGES),
            ("connects in flight", self.connects_in_flight, 1, MOST_CONNECTIONS),
            ("repeats", self.repeat, 1, MOST_REPEATS),
        ):
            if value is not None and not least <= value <= most:
                raise InvalidValueError(f"{value} {name}: not between {least} and {most}")
        for name, amount in (
            ("duration", self.duration),
            ("timeout", self.timeout),
            ("connect timeout", self.connect_timeout),
            ("rate", self.rate),
            ("connect rate", self.connect_rate),
        ):
            if amount is not None and not 0 < amount < math.inf:
                raise InvalidValueError(f"a {name} of {amount} is not above 0 and finite")
        if not 0 <= self.warmup < math.inf:
            raise InvalidValueError(f"a warm-up of {self.warmup} seconds is negative or infinite")
        rates = [self.rate or 0, *(one.highest for one in self.stages if self.staged_rate)]
        if max(rates) > HIGHEST_RATE:
            raise InvalidValueError(f"a rate of {max(rates):g} is above {HIGHEST_RATE:g}")
        if self.most_connections > MOST_CONNECTIONS:
            raise InvalidValueError(
                f"{self.most_connections} connections: not between 1 and {MOST_CONNECTIONS}"
            )

    def _check_time(self) -> None:
        if self.stages and self.duration is not None and not self.loop:
            raise InvalidValueError(
                f"`duration` {format_duration(self.duration)} and `stages` both give the "
                "duration; omit one, or add `loop` to repeat the stages for the duration"
            )
        if self.loop and not self.stages:
            raise InvalidValueError("`loop` repeats `stages`, but there are none; add `stages`")
        if self.staged_rate and not self.stages:
            raise InvalidValueError("`rate` needs a number, or `stages`")
        if self.staged_rate and self.rate is not None and not self.warmup:
            raise InvalidValueError(
                f"`rate` {self.rate:g} has no effect: the stages are rates, and there is no "
                "warm-up; give `rate` without a number, or add `warmup`"
            )
        if self.reopen and not self.stages:
            raise InvalidValueError("`reopen` needs `stages`, and there are none")
        if self.rate is not None and self.stages and not self.staged_rate:
            raise InvalidValueError(
                "`rate` and `stages` are both given; set `staged_rate` to make the stages rates"
            )
        if self.stages and not any(stage.highest for stage in self.stages):
            raise InvalidValueError("all stages are 0; at least one must be above 0")
        if not self.staged_rate and any(
            level % 1 for stage in self.stages for level in (stage.first, stage.last)
        ):
            raise InvalidValueError("the number of connections of a stage must be whole")
        if self.arrivals != "constant" and not self.open_loop:
            raise InvalidValueError(
                f"`arrivals` {self.arrivals} has no effect without `rate`; add `rate`"
            )

    def _check_payload(self) -> None:
        least, most = self.payload_size
        if not 1 <= least <= most <= LARGEST_PAYLOAD:
            raise InvalidValueError(
                f"messages of {least} to {most} bytes: not between 1 and {LARGEST_PAYLOAD}"
            )
        if self.message is not None and not self.message:
            raise InvalidValueError("`message` is empty; it needs at least one byte")
        if self.message is not None and any("\ud800" <= one <= "\udfff" for one in self.message):
            raise InvalidValueError(
                f"`message` {self.message!r} is not valid text; use `payload_file` to send "
                "arbitrary bytes"
            )
        if (self.message is not None) + (self.payload_file is not None) + self.hello > 1:
            raise InvalidValueError("`message` and `payload_file` both give what is sent; give one")

    def _check_targets(self) -> None:
        for endpoint in self.endpoints:
            version = endpoint.ip_version if isinstance(endpoint, NetworkEndpoint) else None
            if version and self.ip_version and version != self.ip_version:
                raise InvalidValueError(
                    f"`ip_version` {self.ip_version}: {endpoint} is an IPv{version} address; "
                    f"omit it, or give an IPv{self.ip_version} address"
                )
            if endpoint.scheme not in SPOKEN[self.driven_by]:
                able = " or ".join(
                    name for name, spoken in SPOKEN.items() if endpoint.scheme in spoken
                )
                raise InvalidValueError(
                    f"the {self.driven_by} engine does not support {endpoint.scheme}, which "
                    f"{endpoint} needs; use `engine` {able}"
                )
        if self.schemes == {"unix"}:
            for option, value in (
                ("`source_ips`", self.source_ips),
                ("`ip_version`", self.ip_version),
            ):
                if value:
                    raise InvalidValueError(
                        f"{option} applies only to IP targets, not to {self.targets[0]}"
                    )
        if self.tls != TlsOptions() and not self.speaks("tls"):
            raise InvalidValueError("TLS options are given, but no target is tls://HOST:PORT")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a path of the user's, not one of ours
            content = file.read(LARGEST_PAYLOAD + 1)
    except OSError as error:
        raise InvalidValueError(f"`payload_file` {path}: {error.strerror}") from error
    if not 1 <= len(content) <= LARGEST_PAYLOAD:
        raise InvalidValueError(
            f"`payload_file` {path} is empty or too large; it must have 1 to {LARGEST_PAYLOAD} "
            "bytes"
        )
    return content
