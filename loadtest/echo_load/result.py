"""The result of a test: one JSON object, the same for every command that tests."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import msgspec
import psutil

from echo_load.latency import LatencyHistogram
from echo_load.plan import Plan

SCHEMA = "echoswarm/result/1"

_PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One distribution of latencies, in microseconds.

    Attributes:
        count: latencies in it.
        histogram: all of it, as an HdrHistogram (V2 compressed, base64) of nanoseconds.
    """

    count: int
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float
    mean: float
    histogram: str

    @classmethod
    def of(cls, latencies: LatencyHistogram) -> Latency:
        """Sum up a histogram."""
        p50, p75, p90, p95, p99, p99_9 = latencies.percentiles_us(_PERCENTILES)
        return cls(
            count=latencies.count,
            p50=p50,
            p75=p75,
            p90=p90,
            p95=p95,
            p99=p99,
            p99_9=p99_9,
            max=latencies.max_us,
            mean=latencies.mean_us,
            histogram=latencies.encode(),
        )


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """The distributions of a stage or of a test.

    Attributes:
        response: from when a message was meant to leave until its reply was in.
        service: from when it left. In a closed loop a message is meant to leave when it leaves,
            and the two are the same.
        connect: from connect(2) until the connection was established.
    """

    response: Latency
    service: Latency
    connect: Latency


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted in a stage or in a test.

    Attributes:
        seconds: from the first message to the last reply.
        connections_opened: established.
        connections_failed: not established.
        connections_lost: given up before the end, for an error.
        messages: round trips completed, right or wrong.
        bytes_sent: payload bytes handed to the kernel.
        bytes_received: payload bytes that came back.
        retransmits: segments that this end's TCP sent again.
        errors: failures by kind.
    """

    seconds: float
    connections_opened: int
    connections_failed: int
    connections_lost: int
    messages: int
    messages_per_second: float
    bytes_sent: int
    bytes_received: int
    retransmits: int
    errors: dict[str, int]


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """The generating side.

    Attributes:
        processes: generators.
        cpu_seconds: their processor time while they generated.
        cpu_cores: the same as cores kept busy; a threads generator keeps little more than one.
    """

    processes: int
    cpu_seconds: float
    cpu_cores: float


class StageResult(Totals, frozen=True, kw_only=True):
    """The totals of one stage, its latencies and its generators."""

    name: str
    latency_us: Latencies
    generator: Generator


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """The round trips that ended in one second of a stage."""

    stage: str
    second: int
    messages: int
    p50_us: float
    p99_us: float


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where the generators ran."""

    platform: str
    processor: str
    cores: int
    memory_bytes: int
    python: str
    echoswarm: str

    @classmethod
    def here(cls) -> Machine:
        """Describe this machine."""
        return cls(
            platform=platform.platform(),
            processor=platform.machine(),
            cores=os.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
            python=platform.python_version(),
            echoswarm=version("echoswarm"),
        )


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A test and what came of it.

    Attributes:
        started_at: ISO 8601, UTC.
        interrupted: it was stopped before its end.
        passed: nothing failed, nothing was lost, and it came to its end.
        reasons: why it did not pass, a line each.
    """

    schema: str = SCHEMA
    command: str
    plan: Plan
    target: str
    machine: Machine
    started_at: str
    stages: list[StageResult]
    totals: Totals
    latency_us: Latencies
    series: list[Second]
    generator: Generator
    interrupted: bool
    passed: bool
    reasons: list[str]

    def to_json(self) -> bytes:
        """The object as indented JSON, with a line feed at its end."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
