"""The figures of a test for Prometheus, scraped during the test."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import urllib.request
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from echo_client.failure_kinds import LOSSES, MISMATCHES
from echo_core.errors import InvalidValueError
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.plan import Plan
from echo_load.report.prometheus import PrometheusReport, parse_listen
from echo_load.results.result import load_result
from echo_load.runner.observer import Progress
from echo_load.runner.selfcheck import Usage
from echo_load.runner.tally import Tally
from support.processes import DEADLINE, LOAD, EchoServerProcess, environment, run, until

Figures = dict[tuple[str, str], float]


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a test; yield its process and the URL of its metrics."""
    client = subprocess.Popen(
        [*LOAD, *arguments, "--prometheus", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert client.stderr is not None
    line = client.stderr.readline().decode()
    match = re.fullmatch(r"metrics (http://127\.0\.0\.1:\d+/metrics)\n", line)
    assert match is not None, line
    try:
        yield client, match[1]
    finally:
        client.kill()
        client.communicate()


def scrape(url: str, **headers: str) -> Figures:
    """Return the samples by name and label values."""
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=DEADLINE
    ) as page:
        text = page.read().decode()
    return {
        (sample.name, ", ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.slow
def test_figures_grow_during_a_test_and_end_as_those_of_its_result(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    seen: list[Figures] = []
    with running(
        *("stress", echo_server.url, "-c", "3", "-c", "5", "-d", "2s", "--repeat", "2"),
        *("-o", str(output)),
    ) as (client, url):

        def poll() -> bool:
            try:
                seen.append(scrape(url))
            except OSError:
                return client.poll() is not None
            return False

        until(poll, "the test to have ended")
        assert client.wait(DEADLINE) == 0
    result = load_result(output)
    name = "echo_load_messages_total"
    messages = [figures[name, ""] for figures in seen]
    assert all(before <= after for before, after in pairwise(messages))
    assert len(set(messages)) > 4
    assert 0 < messages[-1] <= result.totals.messages
    opened = [figures["echo_load_connections_opened_total", ""] for figures in seen]
    # The sum over both stages of both repeats.
    assert {3, 8, 11, 16} <= set(opened)
    doing = {
        labels for figures in seen for found, labels in figures if found == "echo_load_running"
    }
    assert {"running, 3 connections", "running, 5 connections"} <= doing
    for figures in seen:
        assert figures["echo_load_response_time_seconds_count", ""] <= figures[name, ""]
    with pytest.raises(OSError, match="refused"):
        scrape(url)


@pytest.mark.slow
def test_metrics_equal_the_measured_figures(echo_server: EchoServerProcess) -> None:
    """The figures no longer change when the service is gone, after 100 replies."""
    with running("run", echo_server.url, "-c", "2", "-d", "60s", "--rate", "100") as (_, url):
        until(lambda: scrape(url)["echo_load_messages_total", ""] >= 100, "messages")
        assert scrape(url)["echo_load_connections_open", ""] == 2
        os.kill(echo_server.pid, signal.SIGKILL)
        until(lambda: ("echo_load_errors_total", "refused") in scrape(url), "errors")
        until(lambda: scrape(url)["echo_load_connections_open", ""] == 0, "all to be lost")
        figures = scrape(url)
    count = figures["echo_load_response_time_seconds_count", ""]
    assert count == figures["echo_load_messages_total", ""]
    assert figures["echo_load_received_bytes_total", ""] == 64 * count
    assert figures["echo_load_service_time_seconds_count", ""] == count
    # A dying listener may have taken another one.
    opened = figures["echo_load_connections_opened_total", ""]
    assert figures["echo_load_connect_time_seconds_count", ""] == opened >= 2
    buckets = [
        value
        for (name, _), value in figures.items()
        if name == "echo_load_response_time_seconds_bucket"
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == count
    assert 0 < figures["echo_load_response_time_seconds_sum", ""] < 60 * count


@pytest.mark.parametrize(("busy_seconds", "bound"), [(5.0, 0), (9.9, 1)])
def test_a_generator_bound_test_is_shown_while_it_runs(busy_seconds: float, bound: int) -> None:
    plan = Plan(targets=("tcp://127.0.0.1:9",), connections=1)
    tally = Tally(plan, plan.run_stages, generators=2, repeat=1)
    tally.usages = [Usage(10.0, busy_seconds, 0.0), Usage(10.0, 1.0, 0.0)]
    with PrometheusReport(parse_listen("0")) as report:
        report.progressed(Progress(1, 1, "running", 10.0, tally))
        figures = scrape(report.url)
    assert figures["echo_load_generator_bound", ""] == bound
    assert figures["echo_load_generator_busy_ratio", ""] == pytest.approx(busy_seconds / 10)


def test_error_counters_exist_before_the_first_error() -> None:
    with PrometheusReport(parse_listen("0")) as report:
        figures = scrape(report.url)
    for kind in (*MISMATCHES, *LOSSES):
        assert figures["echo_load_errors_total", kind] == 0


@pytest.mark.parametrize(("target", "shown"), [("tcp://h:1", True), ("udp://h:1", False)])
def test_retransmits_are_shown_over_tcp_only(target: str, shown: bool) -> None:
    plan = Plan(targets=(target,))
    tally = Tally(plan, plan.run_stages, 1, 1)
    with PrometheusReport(parse_listen("0")) as report:
        report.progressed(Progress(1, 1, "running", 1.0, tally))
        found = scrape(report.url)
        assert (("echo_load_retransmits_total", "") in found) == shown
        for name in ("echo_load_jitter_seconds", "echo_load_loss_burst"):
            assert ((name, "") in found) != shown


def test_a_target_that_is_given_twice_has_one_series() -> None:
    plan = Plan(targets=("tcp://h:1", "tcp://h:2", "tcp://h:1"))
    tally = Tally(plan, plan.run_stages, 1, 1, targets=3)
    for messages, of_target in enumerate(tally.by_target, 1):
        of_target.counts.messages = messages
    with PrometheusReport(parse_listen("0")) as report:
        report.progressed(Progress(1, 1, "running", 1.0, tally))
        found = scrape(report.url)
    name = "echo_load_target_messages_total"
    assert {key: value for key, value in found.items() if key[0] == name} == {
        (name, "tcp://h:1"): 1 + 3,
        (name, "tcp://h:2"): 2,
    }


@pytest.mark.slow
def test_openmetrics_is_served_on_request(echo_server: EchoServerProcess) -> None:
    with running("run", echo_server.url, "-d", "60s") as (_, url):
        request = urllib.request.Request(
            url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        with urllib.request.urlopen(request, timeout=DEADLINE) as page:
            assert "openmetrics" in page.headers["Content-Type"]
            assert page.read().endswith(b"# EOF\n")


@pytest.mark.slow
def test_a_scrape_that_stalls_does_not_hold_up_the_end(echo_server: EchoServerProcess) -> None:
    with running("run", echo_server.url, "-n", "10") as (client, url):
        port = int(url.split(":")[2].removesuffix("/metrics"))
        with socket.create_connection(("127.0.0.1", port)) as stalled:
            stalled.sendall(b"GET /met")
            assert client.wait(DEADLINE) == 0
            assert client.stderr is not None
            assert b"Traceback" not in client.stderr.read()
            assert stalled.recv(1) == b""


def test_buckets_match_the_histogram() -> None:
    latencies = LatencyHistogram()
    latencies.record(array("q", [10, 1_000, 50_000, 50_001, 3_000_000, 5_000_000_000]))
    assert latencies.count_up_to([1, 10, 999, 1_000, 49_000, 60_000, 10**9, 10**10]) == [
        0,
        1,
        1,
        2,
        2,
        4,
        5,
        6,
    ]
    assert LatencyHistogram().count_up_to([1, 10**10]) == [0, 0]


def test_a_port_in_use_is_refused_before_the_test() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run([*LOAD, "run", "127.0.0.1:9", "--prometheus", str(port)])
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.decode().splitlines() == [
        f"echo-load: error: cannot serve metrics on 127.0.0.1:{port}: Address already in use"
    ]


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("9100", "127.0.0.1:9100"),
        ("0", "127.0.0.1:0"),
        ("0.0.0.0:9100", "0.0.0.0:9100"),
        ("[::1]:9100", "[::1]:9100"),
        ("*:9100", "*:9100"),
        ("http://localhost:9100/", "localhost:9100"),
    ],
)
def test_listening_addresses_are_parsed(text: str, location: str) -> None:
    assert parse_listen(text).location == location


@pytest.mark.parametrize(
    "text", ["", "localhost", "::1", "70000", "localhost:http", "unix:///x", "udp://h:1", "-1"]
)
def test_invalid_listening_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is not PORT or HOST:PORT"):
        parse_listen(text)
