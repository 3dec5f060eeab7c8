"""Several targets, each with an engine and figures of its own."""

from __future__ import annotations

import csv
import io
import math
import re
import socket
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from ctypes import c_int64
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_client.addresses import Address
from echo_load.engines.share import NEVER, Share
from echo_load.plan.plan import Plan
from echo_load.report.exports import series_csv
from echo_load.report.html import render
from echo_load.results.result import Result, TargetResult, load_result
from support.misbehaving import Service, late
from support.processes import (
    DEADLINE,
    LOAD,
    EchoServerProcess,
    StartServer,
    environment,
    loaded,
    run,
    sum_of_metric,
    until,
)

TCP_AND_UDP = ("--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0")


def urls(server: EchoServerProcess, count: int) -> list[str]:
    """The addresses that a server listens on."""
    rest = [server.read_line().removeprefix("listening ") for _ in range(count - 1)]
    return [server.url, *rest]


def shares(targets: int, generators: int, connections: int, **plan: object) -> list[Share]:
    made = Plan(
        targets=tuple(f"tcp://127.0.0.1:{port}" for port in range(1, targets + 1)),
        connections=connections,
        **plan,  # type: ignore[arg-type]  # fields of the plan
    )
    addresses = [
        (Address(socket.AF_INET, ("127.0.0.1", port), "tcp"),) for port in range(1, targets + 1)
    ]
    return [
        Share(
            plan=made,
            stages=made.run_stages,
            targets=tuple(addresses),
            payload=made.payload(0),
            sources=(),
            generator=number,
            generators=generators,
            connections=connections,
            core=None,
            seed=0,
            end_ns=c_int64(NEVER),
        )
        for number in range(generators)
    ]


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 60))
def test_each_connection_is_in_one_share_and_has_its_target(
    targets: int, generators: int, connections: int
) -> None:
    numbers: list[int] = []
    for share in shares(targets, generators, max(connections, generators)):
        parts = share.by_target()
        of_parts = [list(part.numbers) for part in parts.values()]
        assert all(of_parts)
        assert sorted(chain(*of_parts)) == list(share.numbers)
        for target, part in parts.items():
            assert {part.addresses(number) for number in part.numbers} == {share.targets[target]}
        numbers += chain(*of_parts)
    assert sorted(numbers) == list(range(1, max(connections, generators) + 1))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(4, 30), st.booleans())
def test_the_schedules_of_the_targets_are_that_of_the_test(
    targets: int, generators: int, connections: int, limited: bool
) -> None:
    """No message is due twice or never, and each target is due its part of the rate."""
    ends = {"messages": 100} if limited else {"duration": 1.0}
    parts = [
        (len(part.numbers), sorted(part.schedule() or ()))
        for share in shares(targets, generators, connections, rate=500.0, **ends)
        for part in share.by_target().values()
    ]
    (whole,) = shares(1, 1, connections, rate=500.0, **ends)
    assert sorted(chain(*(due for _, due in parts))) == sorted(whole.schedule() or ())
    for own, due in parts:
        expected = len(list(chain(*(due for _, due in parts)))) * own / connections
        assert abs(len(due) - expected) <= own


def sums(result: Result) -> None:
    """Check that the figures of the targets add up to those of the test."""
    assert [one.target for one in result.by_target] == result.targets
    totals = result.totals
    for name in (
        *("messages", "bytes_sent", "bytes_received", "attempts"),
        *("connections_opened", "connections_failed", "connections_lost"),
        *("datagrams_sent", "datagrams_received"),
    ):
        assert sum(getattr(one, name) for one in result.by_target) == getattr(totals, name), name
    errors: Counter[str] = Counter()
    for one in result.by_target:
        errors.update(one.errors)
        assert one.seconds == totals.seconds
        assert one.messages == one.latency_us.response.count
        assert sum(second.messages for second in one.series) == one.messages
        assert len(one.series) <= len(result.series)
    assert errors == totals.errors
    assert max(one.latency_us.response.max for one in result.by_target) == (
        result.latency_us.response.max
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("-d", "2s"),
        ("-n", "500", "--processes", "2"),
        ("-r", "500", "-d", "2s", "--processes", "2"),
        ("--stages", "2/500ms,7/500ms", "--pipeline", "8"),
        ("-n", "60", "--repeat", "2", "--churn", "5"),
        ("-n", "100", "-d", "30s"),
    ],
    ids=["closed", "limited", "open", "stages", "repeats", "both"],
)
def test_udp_beside_tcp(start_server: StartServer, options: tuple[str, ...]) -> None:
    server = start_server(*TCP_AND_UDP, "--admin", "127.0.0.1:0")
    connections = () if "--stages" in options else ("-c", "7")
    code, result = loaded(
        *("run", *urls(server, 2), *connections, *options, "--reconcile", server.admin),
        *("--timeout", "10s"),
    )
    assert (code, result.verdict) == (0, "passed")
    sums(result)
    tcp, udp = result.by_target
    assert tcp.retransmits is not None
    assert (tcp.loss_burst, tcp.jitter_us, tcp.datagrams_sent) == (None, None, 0)
    assert (udp.retransmits, udp.loss_burst) == (None, 0)
    assert udp.datagrams_received == udp.messages > 0
    assert result.reconciliation is not None
    assert result.reconciliation.balanced


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads", "greenlets"])
@pytest.mark.parametrize("pacing", [("-n", "300"), ("-r", "300", "-d", "1s")])
def test_faults_of_one_target_are_its_own(
    start_server: StartServer, engine: str, pacing: tuple[str, ...]
) -> None:
    right, wrong = start_server().url, start_server("--fault", "corrupt@20%").url
    code, result = loaded("run", right, wrong, "-c", "5", *pacing, "--engine", engine)
    assert code == 1
    sums(result)
    well, ill = result.by_target
    assert (well.errors, set(ill.errors)) == ({}, {"corrupt"})
    assert {one.target for one in result.evidence.wrong_replies} == {wrong}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_a_slow_target_does_not_hide_behind_a_fast_one(
    start_server: StartServer, engine: str
) -> None:
    """In an open loop it is due its part of the messages, however late it is with them."""
    fast = start_server().url
    with Service(late(0.1)) as slow:
        _, result = loaded(
            *("run", fast, slow.target, "-c", "4", "-r", "100", "-d", "2s", "--engine", engine)
        )
    quick, lagging = result.by_target
    # Two connections with 10 messages a second each, of the 50 that are due.
    assert quick.messages == 100
    assert quick.latency_us.response.p50 < 0.1e6 < lagging.latency_us.service.p50
    assert lagging.latency_us.response.p99 > 5 * lagging.latency_us.service.p50
    assert lagging.messages + lagging.errors.get("unsent", 0) == 100


@pytest.mark.slow
def test_a_target_that_refuses_is_due_its_part_all_the_same(start_server: StartServer) -> None:
    url = start_server().url
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        refusing = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        code, result = loaded("run", url, refusing, "-c", "4", "-r", "200", "-d", "1s")
    sums(result)
    well, ill = result.by_target
    assert (code, well.messages, well.errors) == (1, 100, {})
    assert (ill.messages, ill.errors["unsent"]) == (0, 100)


@pytest.mark.slow
def test_thresholds_on_one_target(start_server: StartServer) -> None:
    fast, slow = start_server().url, start_server("--fault", "delay=50ms@100%").url
    location = fast.removeprefix("tcp://")
    limits = (f"p50{{{location}}}<40ms", f"p50{{{slow}}}<40ms", f"messages{{ {fast} }}>0")
    code, result = loaded(
        *("run", fast, slow, "-c", "2", "-n", "20"),
        *chain(*(("--threshold", one) for one in limits)),
    )
    assert (code, result.verdict) == (99, "crossed")
    kept, crossed, counted = result.thresholds
    assert (kept.threshold, kept.passed) == (f"p50{{{fast}}}<40ms", True)
    assert (crossed.threshold, crossed.passed) == (f"p50{{{slow}}}<40ms", False)
    assert (counted.value, counted.passed) == (10, True)
    assert result.reasons == [f"p50{{{slow}}}<40ms was crossed: {crossed.measured}"]


@pytest.mark.slow
def test_a_threshold_on_one_target_aborts(start_server: StartServer) -> None:
    fast, slow = start_server().url, start_server("--fault", "delay=50ms@100%").url
    code, result = loaded(
        *("run", fast, slow, "-c", "2", "-d", "50s", "--abort-on", f"p50{{{slow}}}>10ms"),
        *("--abort-on", f"p50{{{fast}}}>40s"),
    )
    assert (code, result.verdict) == (99, "crossed")
    assert result.totals.seconds < 40


@pytest.mark.slow
def test_a_threshold_on_one_target_tolerates_no_errors(start_server: StartServer) -> None:
    """The threshold does not cover the other target."""
    targets = [start_server("--fault", "reset@10%").url for _ in range(2)]
    code, result = loaded(
        "run", *targets, "-c", "2", "-n", "200", "--threshold", f"errors{{{targets[0]}}}<50%"
    )
    assert (code, result.verdict) == (1, "failed")
    assert result.thresholds[0].passed
    code, _ = loaded("run", *targets, "-c", "2", "-n", "200", "--threshold", "errors<50%")
    assert code == 0


@pytest.mark.parametrize(
    ("targets", "limit", "said"),
    [
        (["h:1", "h:2"], "p99{tcp://h:3}<1s", "tcp://h:3 is not tested; the targets are tcp://h:1"),
        ([], "p99{tcp://h:3}<1s", "tcp://h:3 is not tested; no target is given"),
        (["h:1", "h:1"], "p99{h:1}<1s", "tcp://h:1 is given more than once"),
        (["h:1", "udp://h:1"], "jitter{h:1}<1s", "this target is not udp://"),
        (["h:1", "h:2"], "p99{}<1s", "'p99{}<1s': '' has no host"),
        (["h:1", "h:2"], "p99{h:1<1s", "is not a threshold"),
    ],
)
def test_thresholds_on_targets_that_are_not_tested(
    targets: Sequence[str], limit: str, said: str
) -> None:
    ended = run([*LOAD, "run", *targets, "--threshold", limit])
    message = ended.stderr.decode()
    assert (ended.returncode, message.count("\n")) == (2, 1)
    assert said in message
    assert limit.partition("{")[0] + "{" in message


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, str, str]:
    """A result of three targets, what the terminal showed, and the CSV file."""
    path = tmp_path_factory.mktemp("several")
    with closing(EchoServerProcess(*TCP_AND_UDP, log=path / "log")) as server:
        shown = run(
            [
                *(*LOAD, "run", *urls(server, 2), "127.0.0.1:1", "-c", "6", "-d", "2s"),
                *("-o", str(path / "result.json"), "--csv", str(path / "series.csv")),
            ]
        )
    return (
        load_result(path / "result.json"),
        shown.stdout.decode(),
        (path / "series.csv").read_text(),
    )


def row_of(one: TargetResult) -> str:
    return f"{one.connections_opened:,} {one.messages:,} "


@pytest.mark.slow
def test_the_terminal_has_a_row_for_each_target(mixed: tuple[Result, str, str]) -> None:
    result, shown, _ = mixed
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "targets" in rows
    for one in result.by_target:
        (row,) = (row for row in rows if row.startswith(f"{one.target} {row_of(one)}"))
        assert row.endswith(f" {sum(one.errors.values()):,}")
        # And in the summary.
        assert re.search(rf"^  {re.escape(one.target)}  [\d,.]+ msg/s", shown, re.MULTILINE)


@pytest.mark.slow
def test_the_csv_file_has_rows_for_each_target(mixed: tuple[Result, str, str]) -> None:
    result, _, text = mixed
    assert text == series_csv(result).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    for target, totals in [("", result.totals), *((one.target, one) for one in result.by_target)]:
        of_target = [row for row in rows if row["target"] == target]
        assert len(of_target) == math.ceil(totals.seconds - 0.5)
        assert sum(int(row["messages"]) for row in of_target) == totals.messages
    # Attempts before the start belong to no second.
    for second in {row["second"] for row in rows}:
        errors = [int(row["errors"]) for row in rows if row["second"] == second]
        assert errors[0] == sum(errors[1:])
    assert len(rows) == 4 * len(result.series)


@pytest.mark.slow
def test_the_html_report_has_a_row_for_each_target(mixed: tuple[Result, str, str]) -> None:
    result, _, _ = mixed
    page = render([result], ["run"]).decode()
    table = page.partition('id="targets"')[2].partition("</table>")[0]
    cells = re.findall(r">([^<>\s][^<>]*)<", table)
    for one in result.by_target:
        begin = cells.index(one.target)
        assert cells[begin + 2 : begin + 4] == [f"{one.connections_opened:,}", f"{one.messages:,}"]


@pytest.mark.slow
def test_prometheus_has_the_figures_of_each_target(start_server: StartServer) -> None:
    targets = urls(start_server(*TCP_AND_UDP), 2)
    client = subprocess.Popen(
        [*LOAD, "run", *targets, "-c", "4", "-d", "60s", "--repeat", "2", "--prometheus", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    try:
        assert client.stderr is not None
        url = client.stderr.readline().decode().split()[1]

        def page() -> str | None:
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                text = answer.read().decode()
            return text if "echo_load_target_messages_total" in text else None

        def counted() -> str | None:
            text = page()
            some = text and all(
                sum_of_metric(text, "echo_load_target_messages_total", {"target": one})
                for one in targets
            )
            return text if some else None

        text = until(counted, "messages of both targets")
        for name in ("messages_total", "response_time_seconds_count", "connections_open"):
            whole = sum_of_metric(text, f"echo_load_{name}", {})
            assert sum_of_metric(text, f"echo_load_target_{name}", {}) == whole
        labels = {"target": targets[0], "kind": "corrupt"}
        assert sum_of_metric(text, "echo_load_target_errors_total", labels) == 0
    finally:
        client.kill()
        client.communicate()


@pytest.mark.slow
def test_a_single_target_has_no_rows_of_its_own(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    _, result = loaded("run", start_server().url, "-n", "10", "-c", "2", "--csv", str(path))
    assert result.by_target == ()
    assert path.read_text().startswith("second,repeat,stage,connections,")
