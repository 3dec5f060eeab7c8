"""`echo-load run` as users run it: every kind of load, on good and bad services."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from threading import Event

import msgspec
import pytest
from hdrh.histogram import HdrHistogram

from echo_load.results.result import SCHEMA, Latency, Result, Totals
from support.certificates import make_certificates
from support.misbehaving import (
    Service,
    in_pieces,
    silent,
)
from support.processes import (
    LOAD,
    EchoServerProcess,
    StartServer,
    loaded,
    run,
    until,
)

ENGINES = ("hub", "threads", "greenlets")
ADMIN = ("--admin", "127.0.0.1:0")
DEBUG = ("--log-level", "debug")


def passed(*arguments: str) -> Result:
    """Return the result of a run that must pass and whose figures must agree."""
    code, result = loaded("run", *arguments)
    assert (code, result.reasons) == (0, [])
    assert result.passed
    assert result.totals.errors == {}
    assert result.totals.connections_failed == result.totals.connections_lost == 0
    assert result.totals.bytes_sent == result.totals.bytes_received
    assert result.totals.datagrams_sent == result.totals.datagrams_received
    assert result.latency_us.connect.count == result.totals.connections_opened
    agree(result)
    return result


def agree(result: Result) -> None:
    """Check that the figures of a result do not contradict each other."""
    totals = result.totals
    assert totals.messages == sum(second.messages for second in result.series)
    for name in ("messages", "connections_opened", "connections_failed", "connections_lost"):
        assert getattr(totals, name) == sum(getattr(stage, name) for stage in result.stages), name
    for part, latencies in (
        (totals, result.latency_us),
        *((stage, stage.latency_us) for stage in result.stages),
    ):
        assert isinstance(part, Totals)
        assert latencies.response.count == latencies.service.count == part.messages
        for latency in (latencies.response, latencies.service, latencies.connect):
            check_latency(latency)


def check_latency(latency: Latency) -> None:
    histogram = HdrHistogram.decode(latency.histogram)
    assert histogram.get_total_count() == latency.count
    figures = [getattr(latency, name) for name in ("p50", "p75", "p90", "p95", "p99", "p99_9")]
    assert [*figures, latency.max] == sorted([*figures, latency.max])
    assert 0 <= latency.mean <= latency.max
    if latency.count:
        p50 = histogram.get_value_at_percentile(50) / 1000
        assert latency.p50 == pytest.approx(min(p50, latency.max), rel=2e-3)


def listens(start_server: StartServer, directory: Path, *schemes: str) -> list[str]:
    """Start a server with these schemes; return its targets and the options to trust it."""
    urls = {"unix": f"unix://{directory}/echo.sock"}
    options: tuple[str, ...] = ()
    trust: list[str] = []
    if "tls" in schemes:
        certificates = make_certificates(directory)
        options = certificates.options
        trust = ["--tls-ca", str(certificates.authority)]
    for scheme in schemes:
        options += ("--listen", urls.get(scheme, f"{scheme}://127.0.0.1:0"))
    server = start_server(*options)
    more = [server.read_line().removeprefix("listening ") for _ in schemes[1:]]
    return [server.url, *more, *trust]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "schemes"),
    [
        ("hub", ["tcp"]),
        ("hub", ["unix"]),
        ("hub", ["udp"]),
        ("hub", ["tls"]),
        ("hub", ["tcp", "unix", "udp", "tls"]),
        ("threads", ["tcp", "unix", "tls"]),
        ("greenlets", ["tcp", "unix", "tls"]),
    ],
)
def test_each_engine_speaks_its_transports(
    start_server: StartServer, tmp_path: Path, engine: str, schemes: Sequence[str]
) -> None:
    targets = listens(start_server, tmp_path, *schemes)
    result = passed(*targets, "--engine", engine, "-c", "12", "-n", "600", "--timeout", "10s")
    totals, each = result.totals, 12 // len(schemes)
    assert result.targets == targets[: len(schemes)]
    assert (totals.messages, totals.bytes_sent, totals.connections_opened) == (600, 600 * 64, 12)
    assert (result.spread.least, result.spread.most, result.spread.fairness) == (50, 50, 1.0)
    assert totals.datagrams_sent == (50 * each if "udp" in schemes else 0)
    assert result.latency_us.handshake.count == (each if "tls" in schemes else 0)
    assert result.latency_us.first_byte.count == 12


@pytest.mark.slow
def test_connections_are_distributed_over_targets_in_turn(start_server: StartServer) -> None:
    servers = [start_server(*ADMIN), start_server(*ADMIN)]
    result = passed(*(server.url for server in servers), "-c", "5", "-n", "50", "--processes", "2")
    accepted = [server.metric("connections_accepted_total") for server in servers]
    received = [server.metric("received_bytes_total") for server in servers]
    assert (accepted, received) == ([3, 2], [64 * 30, 64 * 20])
    assert result.generator.processes == 2


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_an_exact_number_of_pipelined_messages_of_many_sizes_is_sent(
    start_server: StartServer, engine: str
) -> None:
    server = start_server(*ADMIN)
    result = passed(
        *(server.url, "--engine", engine, "-c", "3", "-n", "200", "--pipeline", "7"),
        *("--payload-size", "1-20KiB"),
    )
    assert result.totals.messages == 200
    assert (result.spread.least, result.spread.most) == (66, 67)
    assert result.totals.bytes_sent == server.metric("received_bytes_total")
    # Sizes are distributed evenly from the smallest to the largest.
    assert 0.8 < result.totals.bytes_sent / (200 * 10 * 1024) < 1.2


@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_messages_larger_than_the_kernels_buffers_come_back(
    start_server: StartServer, engine: str
) -> None:
    server = start_server()
    size = 8 << 20
    result = passed(
        *(server.url, "--engine", engine, "-c", "2", "-n", "4", "--payload-size", str(size))
    )
    assert (result.totals.messages, result.totals.bytes_sent) == (4, 4 * size)


def test_a_text_or_a_file_is_sent_as_each_message(tmp_path: Path) -> None:
    arrived = bytearray()

    def echo(connection: socket, _over: Event) -> None:
        while data := connection.recv(65536):
            arrived.extend(data)
            connection.sendall(data)

    file = tmp_path / "payload"
    file.write_bytes(bytes(range(256)) * 3)
    with Service(echo) as service:
        passed(service.target, "-c", "1", "-n", "4", "--message", "höre 1")
        assert arrived == "höre 1".encode() * 4
        arrived.clear()
        passed(service.target, "-c", "1", "-n", "4", "--payload-file", str(file))
        assert arrived == file.read_bytes() * 4


@pytest.mark.parametrize(
    ("engine", "pacing"),
    [*((engine, []) for engine in ENGINES), ("hub", ["--rate", "1k"])],
)
def test_churn_replaces_connections(
    start_server: StartServer, engine: str, pacing: list[str]
) -> None:
    server = start_server(*ADMIN)
    result = passed(
        *(server.url, "--engine", engine, "-c", "1", "-n", "60", "--churn", "5", *pacing)
    )
    # An open loop may open one more connection before it knows that no other message is due.
    assert result.totals.messages == 60
    assert result.totals.connections_opened in ({12, 13} if pacing else {12})
    assert server.metric("connections_accepted_total") == result.totals.connections_opened
    assert result.spread.most == 60


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_connections_are_opened_no_faster_than_the_connect_rate(engine: str) -> None:
    begin = time.monotonic()
    with Service(in_pieces) as service:
        passed(
            *(service.target, "--engine", engine, "-c", "30", "-n", "30", "--connect-rate", "20"),
            *("--message", "x"),
        )
    # The thirtieth is opened 29/20 s after the first; a late engine catches up by 2 connections.
    assert time.monotonic() - begin > 1.4


@pytest.mark.parametrize(
    ("engine", "given", "expected"),
    [
        ("hub", ["127.0.0.2,127.0.0.3", "--source-ip", "127.0.0.5"], [2, 3, 5]),
        ("threads", ["127.0.0.4/30"], [5, 6]),
    ],
)
def test_source_addresses_are_used_in_turn(
    start_server: StartServer, engine: str, given: list[str], expected: list[int]
) -> None:
    server = start_server(*DEBUG)
    passed(server.url, "--engine", engine, "-c", "6", "-n", "6", "--source-ip", *given)
    until(lambda: server.log().count("connection accepted") == 6, "six lines in the log")
    peers = Counter(
        json.loads(line)["peer"].rpartition(":")[0]
        for line in server.log().splitlines()
        if "connection accepted" in line
    )
    assert peers == {f"127.0.0.{last}": 6 // len(expected) for last in expected}


@pytest.mark.slow
@pytest.mark.parametrize(("option", "host"), [("-4", "127.0.0.1"), ("-6", "::1")])
def test_one_ip_version_can_be_selected(start_server: StartServer, option: str, host: str) -> None:
    server = start_server("--host", host)
    passed(server.url, option, "-c", "2", "-n", "2")
    other = {"-4": "-6", "-6": "-4"}[option]
    process = run([*LOAD, "run", server.url, other])
    assert process.returncode == 2
    assert process.stderr.decode() == (
        f"echo-load: error: {other}: {server.url} is an IPv{option[1]} address; omit it, or give "
        f"an IPv{other[1]} address\n"
    )


def open_at_once(log: str) -> int:
    """Return the largest number of connections open at once, according to a server's log."""
    now = most = 0
    for line in log.splitlines():
        now += ("connection accepted" in line) - ("connection closed" in line)
        most = max(most, now)
    return most


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_stages_change_the_number_of_connections(start_server: StartServer, engine: str) -> None:
    server = start_server(*DEBUG)
    result = passed(
        server.url, "--engine", engine, "--stages", "2-6/1200ms,6/800ms,6-1/1200ms,3/400ms"
    )
    names = [stage.name for stage in result.stages]
    assert names == ["2-6 connections", "6 connections", "6-1 connections", "3 connections"]
    assert all(stage.messages for stage in result.stages)
    # Two at the beginning, then four more, and two again after some were closed.
    assert result.totals.connections_opened == 8
    assert result.stages[0].connections_opened in {5, 6}
    until(lambda: server.log().count("connection closed") == 8, "all to be closed")
    assert open_at_once(server.log()) == 6


@pytest.mark.slow
def test_a_loop_of_stages_turns_the_load_on_and_off(start_server: StartServer) -> None:
    server = start_server(*DEBUG)
    result = passed(server.url, "--stages", "4/1s,0/1s", "--loop", "-d", "5s")
    green, red = result.stages
    assert (green.name, red.name) == ("4 connections", "0 connections")
    assert green.connections_opened + red.connections_opened == 12
    # Some messages leave before the change to red is noticed.
    assert red.messages < green.messages
    assert open_at_once(server.log()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_warm_up_is_not_in_the_result(start_server: StartServer, engine: str) -> None:
    server = start_server(*ADMIN)
    result = passed(
        *(server.url, "--engine", engine, "-c", "10", "-d", "500ms", "--rate", "200"),
        *("--warmup", "250ms", "--churn", "3", "--reconcile", server.admin),
    )
    totals, reconciled = result.totals, result.reconciliation
    assert [stage.name for stage in result.stages] == ["200 msg/s on 10 connections"]
    assert (totals.messages, totals.bytes_sent) == (100, 100 * 64)
    assert sum(second.bytes_sent for second in result.series) == 100 * 64
    # If the warm-up counted, the average would be 15.
    assert result.spread.least <= 10 <= result.spread.most
    assert reconciled is not None
    assert (reconciled.balanced, reconciled.sent) == (True, 150 * 64)
    accepted = server.metric("connections_accepted_total")
    assert totals.connections_opened + 10 <= accepted


@pytest.mark.slow
def test_a_warm_up_does_not_count_towards_the_messages(start_server: StartServer) -> None:
    server = start_server(*ADMIN)
    result = passed(server.url, "-c", "4", "-n", "40", "--warmup", "200ms")
    echoed = server.metric("received_bytes_total") / 64
    assert result.totals.messages == 40 == result.totals.bytes_sent / 64
    assert echoed > 80


@pytest.mark.slow
def test_losses_in_a_warm_up_are_not_in_the_result() -> None:
    """The first connections lose every message, the others none."""
    numbers = iter(range(100))

    def behave(connection: socket, over: Event) -> None:
        if next(numbers) < 2:
            silent(connection, over)
        in_pieces(connection, over)

    with Service(behave) as service:
        result = passed(
            *(service.target, "-c", "2", "-n", "10", "--warmup", "1s", "--timeout", "1s"),
            *("--no-reconnect", "--abort-on", "errors<1", "--threshold", "loss<1"),
        )
    assert result.totals.connections_opened == 2


@pytest.mark.slow
def test_stages_change_the_rate() -> None:
    result = passed("-c", "10", "--rate", "--stages", "100-300/300ms,0/100ms,400/100ms")
    names = [stage.name.removesuffix(" on 10 connections") for stage in result.stages]
    assert names == ["100-300 msg/s", "0 msg/s", "400 msg/s"]
    assert [stage.messages for stage in result.stages] == [60, 0, 40]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_generators_share_a_rate_by_their_connections(
    start_server: StartServer, engine: str
) -> None:
    """Two generators, of which one has two connections and the other has one."""
    result = passed(
        *(start_server().url, "--engine", engine, "-c", "3", "--processes", "2"),
        *("--rate", "240", "-n", "240"),
    )
    assert result.totals.messages == 240
    # The single connection has exactly a third; the two share the rest.
    assert 80 in result.spread.percentiles
    assert 0 < result.spread.least <= result.spread.most
    assert result.spread.least + result.spread.most == 160


@pytest.mark.slow
def test_random_arrivals_have_the_requested_rate() -> None:
    result = passed(
        *("-c", "20", "--rate", "1k", "-d", "500ms"),
        *("--arrivals", "poisson", "--processes", "2"),
    )
    # Within six standard deviations of 500.
    assert abs(result.totals.messages - 500) < 135


def test_results_match_their_schema() -> None:
    process = run([*LOAD, "run", "-c", "2", "-n", "20", "--json"])
    result = msgspec.json.decode(process.stdout, type=Result)
    # The types cover all of it.
    assert json.loads(result.to_json()) == json.loads(process.stdout)
    assert (result.schema, result.command) == (SCHEMA, "run")
    assert result.plan.connections == 2
    schema = json.loads(run([*LOAD, "schema"]).stdout)
    assert schema["title"] == SCHEMA
    properties = schema["$defs"]["Result"]["properties"]
    assert list(properties) == list(json.loads(process.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tcp", "udp"])
def test_the_number_of_messages_is_limited_over_all_rounds(
    start_server: StartServer, target: str
) -> None:
    """The next round may begin before a socket of the last one is closed."""
    server = start_server("--listen", f"{target}://127.0.0.1:0", ECHO_SERVER_PORT="")
    code, result = loaded(
        *("run", server.url, "--stages", "4/150ms,0/50ms", "--loop"),
        *("-n", "20k", "-d", "60s", "--timeout", "10s"),
    )
    assert code == 0
    assert result.totals.messages == 20_000
    assert (result.spread.least, result.spread.most) == (5000, 5000)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads", "greenlets"])
def test_pipelined_messages_larger_than_the_buffers_come_back(
    echo_server: EchoServerProcess, engine: str
) -> None:
    code, result = loaded(
        *("run", echo_server.url, "-c", "1", "--engine", engine, "--pipeline", "2"),
        *("--payload-size", "24MiB", "-n", "2"),
    )
    assert code == 0
    assert result.totals.messages == 2
