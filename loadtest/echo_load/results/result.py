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

from echo_client.socket_options import BufferSizes
from echo_core.errors import ExitCode
from echo_core.units import format_count
from echo_load.errors import ResultFileError
from echo_load.measure.distributions import Measured
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan import fields
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import ThresholdResult
from echo_load.results.capacity import CapacityResult
from echo_load.results.evidence import Evidence
from echo_load.results.idle import IdleResult
from echo_load.results.reconciliation import Reconciliation
from echo_load.results.short import Times, short_figures, short_latency, shortened
from echo_load.results.watch import WatchResult

SCHEMA = "echoswarm/result/1"

_PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of latencies in microseconds; all figures are 0 if nothing was measured.

    Attributes:
        count: number of latencies.
        p50: median. The other percentiles are named alike: `p99_9` is the 99.9th.
        max: longest latency.
        mean: arithmetic mean.
        histogram: the whole distribution in nanoseconds, as an HdrHistogram (V2, compressed,
            base64).
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

    def __repr__(self) -> str:
        """Return the percentiles in one line, without the histogram."""
        return short_latency(
            self.count,
            [
                *(("p50", self.p50), ("p90", self.p90), ("p99", self.p99)),
                *(("p99.9", self.p99_9), ("max", self.max)),
            ],
        )

    @property
    def key_percentiles(self) -> Times:
        """The percentiles that a line of text has space for; empty without a latency."""
        return [("p50", self.p50), ("p99", self.p99)] if self.count else []

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
    """The latency distributions of a stage or of a whole test.

    Attributes:
        response: response time: from the instant at which a message was due until its reply had
            arrived. It includes the time that the message waited for a free connection.
        service: service time: from the instant at which the message was sent until its reply had
            arrived. In a closed loop a message is due when it is sent, and both are the same.
        first_byte: from the first message of a connection until the first byte of a reply.
        connect: time that the network took to establish a connection. Over TCP it is the round
            trip of the handshake as measured by the kernel (tcp(7), TCP_INFO), unless a segment of
            the handshake was lost.
        handshake: duration of the TLS handshake, which follows.
        kernel: smoothed round-trip time of the kernel's TCP (tcp(7), TCP_INFO), one value per
            connection.
    """

    response: Latency
    service: Latency
    first_byte: Latency
    connect: Latency
    handshake: Latency
    kernel: Latency

    @classmethod
    def of(cls, measured: Measured) -> Latencies:
        """Summarize measured distributions."""
        return cls(**{name: Latency.of(times) for name, times in measured.by_name().items()})


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a stage or of a whole test, without its warm-up.

    Attributes:
        seconds: time in which messages could be sent, even if the target fell silent before its
            end; or the time until the last reply, if that is longer.
        connections_opened: connections that were established.
        connections_failed: failed attempts to establish a connection.
        connections_lost: connections that were given up before the end because of an error.
        messages: completed round trips, with a right or a wrong reply.
        messages_per_second: `messages` divided by `seconds`.
        bytes_sent: payload bytes handed to the kernel.
        bytes_received: payload bytes received back.
        bytes_per_second: `bytes_received` divided by `seconds`, the bandwidth in one direction;
            times 8, it is in bits per second.
        datagrams_sent: datagrams handed to the kernel.
        datagrams_received: datagrams received back.
        retransmits: segments that the TCP of this machine retransmitted; None without TCP.
        tls_handshakes: number of TLS handshakes by the version and the cipher of TLS, such as
            `TLSv1.3 TLS_AES_256_GCM_SHA384`; None without TLS.
        handshakes_resumed: TLS handshakes that resumed the session of an earlier connection; None
            if sessions were not to be resumed.
        jitter_us: jitter of the round trips over UDP in microseconds: the estimate of RFC 3550
            (section 6.4.1) from consecutive round trips of a connection, averaged over all replies;
            None without UDP, or without two round trips on a connection.
        loss_burst: largest number of consecutive datagrams that a connection lost; None without
            UDP.
        errors: number of failures by kind, such as `timeout` or `corrupt`.
        attempts: denominator of error shares: completed round trips, and failures without one. In
            a stage, those and its `errors` happened while it ran; its `messages` were due in it.
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
    jitter_us: float | None = None
    loss_burst: int | None = None
    handshakes_resumed: int | None = None
    bytes_per_second: float = 0.0
    tls_handshakes: dict[str, int] | None = None

    def __post_init__(self) -> None:
        if not self.bytes_per_second and self.seconds:
            # In results of earlier versions it is missing.
            rate = self.bytes_received / self.seconds
            msgspec.structs.force_setattr(self, "bytes_per_second", rate)

    @property
    def tls(self) -> str:
        """The versions and ciphers of TLS in one line of text; empty without a TLS handshake."""
        found = self.tls_handshakes or {}
        if len(found) < 2:
            return "".join(found)
        most_first = sorted(found.items(), key=lambda one: -one[1])
        return ", ".join(f"{name} ({count:,} connections)" for name, count in most_first)

    def short(self, times: Times) -> str:
        """Return the figures in one line, with percentiles of the response time."""
        return short_figures(self.messages, self.messages_per_second, times, self.errors)


class GeneratorResult(msgspec.Struct, frozen=True, kw_only=True):
    """The resources that the generators used, and whether they were the bottleneck.

    Attributes:
        processes: number of generator processes.
        cpu_seconds: processor time of all generators together while they generated load.
        cpu_cores: average number of cores that this kept busy; a generator of the `threads` engine
            keeps little more than one busy.
        waited_seconds: time that the generators were ready to run, but waited for a processor.
        lateness_us: delay in sending messages that were due and had a free connection.
        hub_lag_us: delay of the generators' event loops.
        bound: a generator was the bottleneck, or its delays distorted the measurements.
        findings: the reasons, one line each, and then a line of advice; empty unless `bound`.
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
        """The average number of further cores that the generators could have used."""
        return self.cpu_cores * self.waited_seconds / self.cpu_seconds if self.cpu_seconds else 0.0


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of the messages over the connections.

    Attributes:
        connections: number of connections; one that was reopened counts once.
        least: messages of the connection with the fewest.
        median: median of the messages of a connection.
        most: messages of the connection with the most.
        starved: number of connections without a completed round trip.
        percentiles: 101 percentiles, from 0 to 100, of the messages of a connection; empty without
            connections.
        fairness: Jain's fairness index: 1 if all connections have the same number of messages,
            1/connections if one connection has all of them (R. Jain, D. Chiu and W. Hawe, A
            Quantitative Measure of Fairness, DEC-TR-301, 1984).
    """

    connections: int
    least: int
    median: float
    most: int
    starved: int
    percentiles: list[int]
    fairness: float

    def __repr__(self) -> str:
        """Return the range in one line, without the percentiles."""
        return (
            f"<Spread over {format_count(self.connections, 'connection')}: {self.least:,} to "
            f"{self.most:,} messages, median {self.median:,.0f}, fairness {self.fairness:.3f}>"
        )

    @classmethod
    def of(cls, messages: list[int]) -> Spread:
        """Summarize the numbers of messages of the connections."""
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
    """The counts, latencies and generators of one stage.

    Messages and their latencies belong to exactly the stage in which the messages were due. So do
    their bytes; among messages of different sizes a stage has the share of all bytes that it has of
    all messages. Other counts are attributed to a stage to within 20 ms.

    Attributes:
        name: name of the stage, such as `100 connections`.
        latency_us: latency distributions in microseconds.
        generator: resources that the generators used.
    """

    name: str
    latency_us: Latencies
    generator: GeneratorResult

    def __repr__(self) -> str:
        """Return the figures in one line."""
        figures = self.short(self.latency_us.response.key_percentiles)
        return shortened(f"StageResult {self.name}: {figures}")


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """One second of a test.

    Round trips belong to exactly the second in which their replies arrived. Bytes and errors are
    attributed to a second to within 20 ms.

    Attributes:
        second: number of the second since the beginning of the first stage, from 0. A stage or a
            repeat with connections of its own begins with a new second; seconds in between, when
            nothing was tested, are left out.
        repeat: number of the repeat, from 1.
        stage: name of the stage in which the second began.
        connections: number of open connections at its end.
        messages: number of completed round trips.
        bytes_sent: payload bytes handed to the kernel.
        bytes_received: payload bytes received back.
        errors: number of failures by kind.
        p50_us: median of the response time in microseconds; 0 without a round trip, as are the
            following ones.
        p90_us: 90th percentile of the response time.
        p99_us: 99th percentile.
        p99_9_us: 99.9th percentile.
        max_us: longest response time.
        jitter_us: jitter over UDP in microseconds, as in the totals; None without replies over UDP.
        generator_cores: average number of cores that the generators kept busy; None if it was not
            measured, and for a single target.
        late_p99_us: 99th percentile of the delay in sending messages that were due and had a free
            connection, in microseconds; None if no message was due, as in a closed loop.
        lag_p99_us: 99th percentile of the delay of the generators' event loops, in microseconds;
            None if it was not measured.
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
    jitter_us: float | None = None
    generator_cores: float | None = None
    late_p99_us: float | None = None
    lag_p99_us: float | None = None


class TargetResult(Totals, frozen=True, kw_only=True):
    """The counts and latencies of one of several targets, over all stages and repeats.

    The jitter and the losses are those over UDP, and `retransmits` are those over TCP, of this
    target. Its figures per second are calculated from the same `seconds` as those of the whole
    test.

    Attributes:
        target: URL of the service.
        latency_us: latency distributions in microseconds.
        series: figures of each second.
    """

    target: str
    latency_us: Latencies
    series: list[Second]

    def __repr__(self) -> str:
        """Return the figures in one line."""
        figures = self.short(self.latency_us.response.key_percentiles)
        return shortened(f"TargetResult {self.target}: {figures}")


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat of a test that was run several times.

    Attributes:
        started_at: when the repeat began (ISO 8601, UTC).
        stages: results of the stages in this repeat.
    """

    started_at: str
    stages: list[StageResult]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine that ran the generators.

    Attributes:
        platform: operating system and version, as from `platform.platform()`.
        processor: architecture of the processor, such as `x86_64`.
        cores: number of logical cores.
        memory_bytes: size of the memory in bytes.
        python: version of Python.
        echoswarm: version of echoswarm.
    """

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
    """The result of a test.

    Attributes:
        schema: name and version of this format.
        command: command that ran the test: `run`, `stress`, `hold`, `capacity`, `idle` or `watch`.
        plan: the plan of the test, as it was given.
        targets: URLs of the tested services, including that of a server started for the test.
        machine: the machine that ran the generators.
        started_at: when the test began (ISO 8601, UTC).
        stages: result of each stage, over all repeats.
        totals: counts over all stages and repeats.
        latency_us: latency distributions over all stages and repeats, in microseconds.
        series: figures of each second.
        repeats: result of each repeat; empty unless there were several.
        generator: resources that the generators used, over all stages and repeats.
        spread: distribution of the messages over the connections.
        reconciliation: comparison with the counters of the server; None if they were not read.
        thresholds: each threshold, and whether it was kept.
        verdict: `interrupted` if a user or a signal stopped the test; otherwise `failed` if
            anything failed that no threshold allows, was lost, or was not run; otherwise `crossed`
            if a threshold was crossed; otherwise `passed`.
        passed: whether the verdict is `passed`.
        reasons: reasons for which the test did not pass, one line each; empty if it passed.
        evidence: the first failures of each kind.
        by_target: result of each target, in the order of `targets`; empty unless `run`, `hold` or
            `capacity` tested several.
        watch: outages that `echo-load watch` found; None for any other command.
        capacity: the answer of `echo-load capacity`, and its steps; the rest of the result is of
            the test that confirmed the answer. None for other commands.
        idle: the answer of `echo-load idle`, and its connections; None for other commands.
        buffers: sizes of the socket buffers; None unless the plan requests a `buffer_size`.
        series_started_at: when the first second of the series began (ISO 8601, UTC); None if it
            never did, and in results of earlier versions.
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
    generator: GeneratorResult
    spread: Spread
    reconciliation: Reconciliation | None
    thresholds: list[ThresholdResult]
    verdict: Verdict
    passed: bool
    reasons: list[str]
    evidence: Evidence = Evidence()
    by_target: tuple[TargetResult, ...] = ()
    watch: WatchResult | None = None
    capacity: CapacityResult | None = None
    idle: IdleResult | None = None
    buffers: BufferSizes | None = None
    series_started_at: str | None = None

    def __repr__(self) -> str:
        """Return the verdict, the figures, the failures and the reasons in one line."""
        answers = [one.answer for one in (self.capacity, self.idle, self.watch) if one is not None]
        figures = self.totals.short(self.latency_us.response.key_percentiles)
        bound = ["generator-bound"] if self.generator.bound else []
        parts = [f"Result of {self.command}: {self.verdict}", *(answers or [figures]), *bound]
        return shortened("; ".join(parts + self.reasons))

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command that ran the test."""
        return _EXIT_CODES[self.verdict]

    def to_json(self) -> bytes:
        """Return the result as indented JSON that ends with a line feed.

        Bytes of file names and arguments that are not UTF-8 are written as escapes.
        """
        try:
            encoded = msgspec.json.encode(self)
        except UnicodeEncodeError:
            encoded = msgspec.json.encode(_printable(msgspec.to_builtins(self)))
        return msgspec.json.format(encoded, indent=2) + b"\n"


def _printable(content: Any) -> Any:
    """Return a copy of nested lists, dicts and strings in which surrogates are escaped."""
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
    """The name of a result file's schema, which is checked before the rest is decoded."""

    schema: str


def load_result(path: str | os.PathLike[str]) -> Result:
    """Read the result file of a test.

    Raises:
        ResultFileError: the file cannot be read, is not a complete result, or has another schema.
        InvalidValueError: `path` is not a path.
    """
    file = Path(fields.path("path", path))
    try:
        content = file.read_bytes()
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
    """Return the JSON Schema (2020-12) of results, indented, with a line feed at its end."""
    schema = msgspec.json.schema(Result)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = SCHEMA
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"
