"""Results in the formats of other tools."""

from __future__ import annotations

import csv
import io
import re

import msgspec
import pytest
from hdrh.histogram import HdrHistogram

from echo_load.measure.histogram import LatencyHistogram
from echo_load.report.exports import hgrm, series_csv
from echo_load.results.compare import compare
from echo_load.results.result import Latency, Result
from support.processes import StartServer, loaded

GENERATOR = ("generator_cores", "late_p99_us", "lag_p99_us")


@pytest.fixture
def result(start_server: StartServer) -> Result:
    """Return the result of a test of more than a second, with errors."""
    url = start_server("--fault", "reset@1%", "--fault", "corrupt@1%").url
    _, result = loaded("run", url, "-c", "4", "--rate", "1k", "-d", "2s")
    return result


@pytest.mark.slow
def test_the_series_has_a_row_per_second(result: Result) -> None:
    rows = list(csv.DictReader(io.StringIO(series_csv(result).decode())))
    assert len(rows) == len(result.series) == 2
    totals = result.totals
    assert sum(int(row["messages"]) for row in rows) == totals.messages
    assert sum(int(row["bytes_sent"]) for row in rows) == totals.bytes_sent
    assert sum(int(row["errors"]) for row in rows) == sum(totals.errors.values())
    for kind, count in totals.errors.items():
        assert sum(int(row[f"error_{kind}"]) for row in rows) == count
    for row, one in zip(rows, result.series, strict=True):
        assert (int(row["second"]), int(row["repeat"]), row["stage"]) == (
            one.second,
            one.repeat,
            one.stage,
        )
        assert int(row["connections"]) == one.connections
        for name in ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"):
            assert float(row[name]) == getattr(one, name)
        for name in GENERATOR:
            assert float(row[name]) == getattr(one, name)
        assert float(row["generator_cores"]) > 0


@pytest.mark.slow
def test_a_stage_with_a_comma_is_one_field(result: Result) -> None:
    assert "1,000 msg/s on 4 connections" in {one.stage for one in result.series}
    assert {len(row) for row in csv.reader(io.StringIO(series_csv(result).decode()))} == {18}


@pytest.mark.slow
def test_figures_of_the_generator_that_were_not_measured_are_empty(
    start_server: StartServer,
) -> None:
    first, second = start_server(), start_server()
    _, result = loaded("run", first.url, second.url, "-c", "4", "-d", "500ms")
    whole, *each = csv.DictReader(io.StringIO(series_csv(result).decode()))
    # In a closed loop no message is due; the processor time is that of all targets.
    assert float(whole["generator_cores"]) > 0
    assert (whole["target"], whole["late_p99_us"]) == ("", "")
    for row, one in zip(each, result.by_target, strict=True):
        assert row["target"] == one.target
        assert (row["generator_cores"], row["late_p99_us"]) == ("", "")
        assert float(row["lag_p99_us"]) == one.series[0].lag_p99_us


@pytest.mark.slow
def test_over_udp_there_is_a_column_for_the_jitter(
    start_server: StartServer, result: Result
) -> None:
    url = start_server("--listen", "udp://127.0.0.1:0").url
    _, datagrams = loaded("run", url, "-c", "2", "--rate", "200", "-d", "2s")
    rows = list(csv.DictReader(io.StringIO(series_csv(datagrams).decode())))
    jitters = [float(row["jitter_us"]) for row in rows]
    assert len(jitters) == 2
    assert jitters == [one.jitter_us for one in datagrams.series]
    # The jitter of the whole test is the mean over all replies.
    assert datagrams.totals.jitter_us is not None
    assert min(jitters) <= datagrams.totals.jitter_us <= max(jitters)
    assert "jitter_us" not in series_csv(result).decode()
    (jitter,) = (
        change for change in compare(datagrams, datagrams).changes if change.figure == "jitter"
    )
    assert jitter.baseline == pytest.approx(datagrams.totals.jitter_us)


def lines_of(text: str) -> list[tuple[float, float, int]]:
    """Return value, percentile and count of each line of an .hgrm file."""
    found = re.findall(r"^ *([\d.]+) ([\d.]+) +(\d+)", text, re.MULTILINE)
    return [(float(value), float(share), int(count)) for value, share, count in found]


def summary(text: str, name: str) -> float:
    match = re.search(rf"{name} *= *([\d.]+)", text)
    assert match is not None
    return float(match[1])


@pytest.mark.slow
def test_the_percentiles_are_those_of_the_histogram_in_milliseconds(result: Result) -> None:
    text = hgrm(result).decode()
    assert text.split("\n")[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    histogram = HdrHistogram.decode(result.latency_us.response.histogram)
    lines = lines_of(text)
    assert len(lines) > 10
    for value, share, count in lines:
        percentile = 100 * count / result.totals.messages
        assert share <= percentile / 100 + 1e-9
        assert value == pytest.approx(histogram.get_value_at_percentile(percentile) / 1e6, abs=6e-4)
    assert lines[-1][1:] == (1.0, result.totals.messages)
    assert summary(text, "Max") == pytest.approx(result.latency_us.response.max / 1e3, rel=1e-3)
    assert summary(text, "Mean") == pytest.approx(result.latency_us.response.mean / 1e3, abs=1e-3)
    assert summary(text, "StdDeviation") == pytest.approx(histogram.get_stddev() / 1e6, abs=1e-3)
    assert summary(text, "TotalCount") == result.totals.messages


@pytest.mark.slow
def test_a_test_without_replies_has_all_files(result: Result) -> None:
    nothing = Latency.of(LatencyHistogram())
    latencies = msgspec.structs.replace(result.latency_us, response=nothing)
    empty = msgspec.structs.replace(result, latency_us=latencies, series=[])
    text = hgrm(empty).decode()
    assert lines_of(text) == []
    assert summary(text, "TotalCount") == summary(text, "StdDeviation") == 0
    assert len(series_csv(empty).splitlines()) == 1
