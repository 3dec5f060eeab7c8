"""The result of a test: one JSON object, the same for every command that tests."""

from __future__ import annotations

import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import psutil

from echo_core.errors import ExitCode
from echo_load.errors import ResultFileError
from echo_load.measure.distributions import Measured
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import ThresholdResult
from echo_load.results.reconciliation import Reconciliation

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
        """Summarize a histogram."""
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
        response: from when a message was due until its reply was in.
        service: from when it left. In a closed loop a message is due when it leaves, and the two
            are the same.
        first_byte: from a connection's first message to the first byte that came back on it.
        connect: what the path took to establish a connection: over TCP the round trip of the
            handshake as the kernel measured it (tcp(7), TCP_INFO), if nothing of that was lost.
        handshake: from then until TLS was.
        kernel: round trips as the kernel's TCP smoothed them (tcp(7), TCP_INFO), one a connection.
    """

    response: Latency
    service: Latency
    first_byte: Latency
    connect: Latency
    handshake: Latency
    kernel: Latency

    @classmethod
    def of(cls, measured: Measured) -> Latencies:
        """Summarize what was measured."""
        return cls(**{name: Latency.of(times) for name, times in measured.by_name().items()})


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a stage or of a test, without the warm-up.

    Attributes:
        seconds: as long as messages could leave, also where the target was silent long before; or
            until the last reply, if that came later.
        connections_opened: established.
        connections_failed: attempts to establish one that failed.
        connections_lost: given up before the end, for an error.
        messages: round trips completed, right or wrong.
        bytes_sent: payload bytes handed to the kernel.
        bytes_received: payload bytes that came back.
        datagrams_sent: datagrams handed to the kernel.
        datagrams_received: datagrams that came back.
        retransmits: segments that this end's TCP sent again; None where nothing goes over TCP.
        errors: failures by kind.
        attempts: what errors are a share of: messages, and the failures of which no message came.
    """

    seconds: float
    connections_opened: int
    connections_failed: int
    connections_lost: int
    messages: int
    messages_per_second: float
    bytes_sent: int
    bytes_received: int
    datagrams_sent: int
    datagrams_received: int
    retransmits: int | None
    errors: dict[str, int]
    attempts: int


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """The generating side.

    Attributes:
        processes: generators.
        cpu_seconds: their processor time while they generated.
        cpu_cores: the same as cores kept busy; a threads generator keeps little more than one.
        waited_seconds: time that they waited for a processor.
        lateness_us: how late messages left that were due and had a free connection.
        hub_lag_us: how late their event loops were.
        bound: the generator was the limit, or disturbed what was measured.
        findings: why, a line each, and what to raise.
    """

    processes: int
    cpu_seconds: float
    cpu_cores: float
    waited_seconds: float
    lateness_us: Latency
    hub_lag_us: Latency
    bound: bool
    findings: list[str]

    @property
    def waiting(self) -> float:
        """The cores that would also have been busy if the processes had not waited for them."""
        return self.cpu_cores * self.waited_seconds / self.cpu_seconds if self.cpu_seconds else 0.0


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The spread of the messages over the connections.

    Attributes:
        connections: those that there were, by their numbers.
        least: messages of the one with the fewest.
        median: messages of the one in the middle.
        most: messages of the one with the most.
        starved: connections without a single round trip.
        percentiles: messages that 0, 1, 2 and so on to 100 percent of the connections do not
            exceed; none without connections.
        fairness: 1 if all have the same, 1/connections if one has all (R. Jain, D. Chiu and
            W. Hawe, A Quantitative Measure of Fairness, DEC-TR-301, 1984).
    """

    connections: int
    least: int
    median: float
    most: int
    starved: int
    percentiles: list[int]
    fairness: float

    @classmethod
    def of(cls, messages: list[int]) -> Spread:
        """Summarize the messages of each connection."""
        squares = sum(one * one for one in messages)
        percentiles = (
            np.percentile(messages, range(101), method="inverted_cdf").astype(int).tolist()
            if messages
            else []
        )
        return cls(
            connections=len(messages),
            least=min(messages, default=0),
            median=statistics.median(messages) if messages else 0.0,
            most=max(messages, default=0),
            starved=messages.count(0),
            percentiles=percentiles,
            fairness=sum(messages) ** 2 / (len(messages) * squares) if squares else 1.0,
        )


class StageResult(Totals, frozen=True, kw_only=True):
    """The totals of one stage, its latencies and its generators.

    Messages and their times are those that were due in the stage, exactly. What else is counted
    belongs to it to within a fiftieth of a second.
    """

    name: str
    latency_us: Latencies
    generator: Generator


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """One second of a test: the round trips that ended in it, and what else was counted.

    Attributes:
        second: counted from the beginning of the first stage. Stages and repeats that open
            connections of their own begin with a whole one; in between there may be none.
        repeat: number of the repeat, from 1.
        stage: the one that was under way when it began.
        connections: open at its end.
        messages: how many round trips.
        bytes_sent: payload bytes handed to the kernel, to within a fiftieth of a second.
        bytes_received: payload bytes that came back, likewise.
        errors: failures by kind, likewise.
        p50_us: response time of half of them, in microseconds; 0 where there were none, as in
            the others.
        p90_us: of all but 10 %.
        p99_us: of all but 1 %.
        p99_9_us: of all but 0.1 %.
        max_us: the longest.
    """

    second: int
    repeat: int
    stage: str
    connections: int
    messages: int
    bytes_sent: int
    bytes_received: int
    errors: dict[str, int]
    p50_us: float
    p90_us: float
    p99_us: float
    p99_9_us: float
    max_us: float


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """One of several times that a plan was run, kept apart.

    Attributes:
        started_at: ISO 8601, UTC.
        stages: what came of them in this repeat.
    """

    started_at: str
    stages: list[StageResult]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of the generators."""

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


Verdict = Literal["passed", "crossed", "failed", "interrupted"]

_EXIT_CODES: dict[Verdict, ExitCode] = {
    "passed": ExitCode.OK,
    "crossed": ExitCode.THRESHOLD,
    "failed": ExitCode.FAILED,
    "interrupted": ExitCode.INTERRUPTED,
}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A test and what came of it.

    Attributes:
        targets: what was tested.
        started_at: ISO 8601, UTC.
        stages: each of them, over all repeats.
        totals: of all stages and repeats.
        latency_us: the same.
        series: by the second.
        repeats: each of them, where there were several.
        spread: of the messages over the connections.
        reconciliation: with the server's counters; None if they were not read.
        thresholds: what was asked for, and whether it was kept.
        verdict: `passed`: nothing failed, nothing was lost, every threshold was kept, and it came
            to its end. Otherwise the first of these that is true: it was `interrupted`, something
            `failed`, or a threshold was `crossed`.
        passed: the verdict is that it did.
        reasons: why it did not pass, a line each.
    """

    schema: str = SCHEMA
    command: str
    plan: Plan
    targets: list[str]
    machine: Machine
    started_at: str
    stages: list[StageResult]
    totals: Totals
    latency_us: Latencies
    series: list[Second]
    repeats: list[Repeat]
    generator: Generator
    spread: Spread
    reconciliation: Reconciliation | None
    thresholds: list[ThresholdResult]
    verdict: Verdict
    passed: bool
    reasons: list[str]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command that ran the test."""
        return _EXIT_CODES[self.verdict]

    def to_json(self) -> bytes:
        """The object as indented JSON, with a line feed at its end.

        Bytes of a name that are not UTF-8 are written as escapes.
        """
        try:
            encoded = msgspec.json.encode(self)
        except UnicodeEncodeError:
            encoded = msgspec.json.encode(_printable(msgspec.to_builtins(self)))
        return msgspec.json.format(encoded, indent=2) + b"\n"


def _printable(content: Any) -> Any:
    """The same lists, dicts and strings, with surrogates escaped."""
    match content:
        case str():
            return content.encode(errors="backslashreplace").decode()
        case list() | tuple():
            return [_printable(one) for one in content]
        case dict():
            return {_printable(key): _printable(value) for key, value in content.items()}
        case _:
            return content


class _AnySchema(msgspec.Struct):
    """The head of a result file, which is checked before the rest is read."""

    schema: str


def load_result(path: Path) -> Result:
    """Read the result file of a test.

    Raises:
        ResultFileError: it cannot be read, is not a whole result, or has another schema.
    """
    try:
        content = path.read_bytes()
        schema = msgspec.json.decode(content, type=_AnySchema).schema
        if schema != SCHEMA:
            raise ResultFileError(
                f"{path}: its schema is {schema!r}; this version reads {SCHEMA!r}"
            )
        result = msgspec.json.decode(content, type=Result)
        for name in Latencies.__struct_fields__:
            LatencyHistogram.decode(getattr(result.latency_us, name).histogram)
    except OSError as error:
        raise ResultFileError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ResultFileError(f"{path} is not a complete result of echo-load: {error}") from error
    return result


def json_schema() -> bytes:
    """The JSON Schema (2020-12) of results, indented, with a line feed at its end."""
    schema = msgspec.json.schema(Result)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = SCHEMA
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"
