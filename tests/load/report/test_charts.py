"""The charts of the HTML report."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from echo_load.plan.plan import Plan
from echo_load.report.html import render
from echo_load.report.page import axes
from echo_load.report.page.charts import Run, charts
from echo_load.report.page.seconds import parts
from echo_load.results.result import Result
from support.report_page import Page
from support.seconds import second


def test_errors_outside_the_series_are_shown_by_kind(closed: Result) -> None:
    totals = replace(closed.totals, errors={"refused": 7, "timeout": 2})
    result = replace(closed, series=[], totals=totals)
    errors = chart(result, "errors")
    (bars,) = errors.data
    assert (bars["x"], bars["y"]) == (["refused", "timeout"], [7, 2])
    assert "9 in all" in errors.caption


def chart(result: Result, name: str) -> Any:
    return next(one for one in charts([Run.of(result, "run")]) if one.name == name)


def test_no_line_is_drawn_through_a_gap(closed: Result) -> None:
    series = [second(0), second(1), second(5, repeat=2), second(6, repeat=2, p50_us=0.0)]
    result = replace(closed, series=series)
    (trace,) = chart(result, "throughput").data
    assert (trace["x"], trace["y"]) == ([0, 1, 4.5, 5, 6], [100, 100, None, 100, 100])
    assert "fill" not in trace
    # Nor through a second without a reply: a logarithmic axis has no 0.
    assert chart(result, "response-over-time").data[0]["y"] == [0.001, 0.001, None, 0.001, None]


def test_no_line_is_drawn_from_one_repeat_to_the_next(closed: Result) -> None:
    series = [second(0), second(1), second(2, repeat=2), second(3, repeat=2)]
    result = replace(closed, series=series, plan=Plan(repeat=2))
    (trace,) = chart(result, "throughput").data
    assert (trace["x"], trace["y"]) == ([0, 1, 1.5, 2, 3], [100, 100, None, 100, 100])


@pytest.mark.slow
@pytest.mark.parametrize(("reopen", "broken"), [(True, True), (False, False)])
def test_a_line_goes_through_stages_of_the_same_connections(
    closed: Result, reopen: bool, broken: bool
) -> None:
    plan = msgspec.convert(
        {
            "stages": [{"first": n, "last": n, "duration": 1.0} for n in (1, 2)],
            "reopen": reopen,
        },
        Plan,
    )
    series = [second(0, stage="1"), second(1, stage="2")]
    result = replace(closed, series=series, plan=plan)
    (trace,) = chart(result, "connections").data
    assert (None in trace["y"]) is broken
    # A point without neighbours has to be visible.
    assert "markers" in trace["mode"]


@pytest.mark.slow
def test_stages_and_repeats_are_shaded_alternately_and_numbered(closed: Result) -> None:
    stages = [replace(closed.stages[0], name=name) for name in ("up", "down")]
    series = [
        second(number, repeat=number // 4 + 1, stage="up" if number % 4 < 2 else "down")
        for number in range(8)
    ]
    result = replace(
        closed, stages=stages, series=series, plan=Plan(repeat=2, thresholds=("p99<5ms",))
    )
    found = [(part.label, part.name, part.first, part.last) for part in parts(result)]
    assert found == [
        ("1.1", "up", 0, 1),
        ("1.2", "down", 2, 3),
        ("2.1", "up", 4, 5),
        ("2.2", "down", 6, 7),
    ]
    shapes = chart(result, "response-over-time").layout["shapes"]
    assert [shape["name"] for shape in shapes] == ["plain", "shaded"] * 2 + ["guide"]
    assert [shape["label"]["text"] for shape in shapes] == [
        "1.1",
        "1.2",
        "2.1",
        "2.2",
        "p99&lt;5ms",
    ]
    assert shapes[-1]["y0"] == shapes[-1]["y1"] == 0.005
    # The axis covers the threshold, which nothing exceeded.
    low, high = chart(result, "response-over-time").layout["yaxis"]["range"]
    assert low <= -3
    assert 10**high >= 0.005
    page = Page(render([result], ["run"]))
    assert page.shows("1.1 up")
    # Runs with different stages have no parts in common.
    other = replace(result, series=series[:6])
    layout = Page(render([result, other], ["a", "b"])).figures["throughput"]["layout"]
    assert layout["shapes"] == []


@pytest.mark.slow
def test_the_series_of_a_long_test_is_thinned_out_but_keeps_its_peaks(closed: Result) -> None:
    series = [second(number, p99_us=5e6 if number == 7777 else 1000.0) for number in range(20_000)]
    result = replace(closed, series=series)
    (trace,) = chart(result, "throughput").data
    assert len(trace["x"]) <= 1500
    assert set(trace["y"]) == {100}
    # With more points than a screen can separate, there are few markers.
    assert trace["marker"]["maxdisplayed"] == 12
    p99 = next(one for one in chart(result, "response-over-time").data if one["name"] == "p99")
    assert max(p99["y"]) == 5.0


@pytest.mark.slow
def test_thinning_out_does_not_mix_repeats(closed: Result) -> None:
    series = [
        second(number, repeat=number // 1000 + 1, messages=number // 1000) for number in range(4000)
    ]
    result = replace(closed, series=series, plan=Plan(repeat=4))
    (trace,) = chart(result, "throughput").data
    # An average over two repeats would be another value.
    assert set(trace["y"]) == {0, 1, 2, 3, None}
    assert trace["y"].count(None) == 3


def test_axes_of_times_have_readable_marks() -> None:
    axis = axes.of_times([87e-6, 0.004, None, 0])
    assert axis["ticktext"] == ["50 µs", "100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms"]
    assert axes.of_times([20e-6, 2.0])["ticktext"] == ["100 µs", "1 ms", "10 ms", "100 ms", "1 s"]
    # A single value is between two marks.
    assert axes.of_times([0.001])["ticktext"] == ["1 ms", "2 ms"]
    assert axes.of_times([]) == {"type": "log"}


def test_axes_of_seconds_have_readable_marks() -> None:
    assert axes.of_seconds(9)["ticktext"] == ["0 s", "2 s", "4 s", "6 s", "8 s"]
    assert axes.of_seconds(599)["ticktext"] == ["0s", "2m", "4m", "6m", "8m"]
    assert len(axes.of_seconds(10**7)["tickvals"]) <= 7
    assert axes.of_seconds(0)["ticktext"] == ["0 s"]


def test_nines_are_equidistant() -> None:
    assert axes.of_nines(3.2)["ticktext"] == ["50 %", "90 %", "99 %", "99.9 %"]
    assert axes.of_nines(0)["ticktext"] == ["50 %", "90 %"]
    assert axes.of_nines(9.5)["ticktext"][-1] == "99.9999999"


def test_the_distribution_contains_all_messages(closed: Result) -> None:
    (trace,) = chart(closed, "distribution").data
    assert sum(trace["y"]) == pytest.approx(100, abs=0.01)
    (curve,) = chart(closed, "percentiles").data
    assert curve["y"] == sorted(curve["y"])
    assert curve["x"][-1] <= closed.totals.messages


@pytest.mark.slow
def test_the_chart_of_an_open_loop_shows_what_was_due(failed: Result) -> None:
    answered, due = chart(failed, "throughput").data
    assert (answered["name"], due["name"]) == ("answered", "due")
    assert due["y"] == [500]
    assert chart(failed, "throughput").layout["showlegend"]


def test_bandwidth_is_in_bytes_and_in_bits(closed: Result) -> None:
    series = [second(n, bytes_sent=10**6, bytes_received=10**6) for n in range(3)]
    (same,) = chart(replace(closed, series=series), "bandwidth").data
    assert same["y"] == [10**6] * 3
    assert same["customdata"] == ["1 MB/s (8 Mbit/s)"] * 3
    series[1] = second(1, bytes_sent=10**6, bytes_received=400_000)
    back, sent = chart(replace(closed, series=series), "bandwidth").data
    assert (back["name"], sent["name"]) == ("received back", "sent")
    assert (back["y"][1], sent["y"][1]) == (400_000, 10**6)


def test_the_charts_of_generators_show_each_second(closed: Result) -> None:
    series = [
        second(0, generator_cores=0.5, lag_p99_us=100.0),
        second(1, generator_cores=1.0, lag_p99_us=200.0),
    ]
    result = replace(closed, series=series)
    (cores,) = chart(result, "processors").data
    assert cores["y"] == [0.5, 1]
    # A closed loop is late with no message.
    (lag,) = chart(result, "delays").data
    assert (lag["name"], lag["y"]) == ("event loop", [0.0001, 0.0002])
    open_loop = [replace(one, late_p99_us=50.0) for one in series]
    assert [one["name"] for one in chart(replace(closed, series=open_loop), "delays").data] == [
        "messages",
        "event loop",
    ]
    # Results of earlier versions do not have these figures.
    page = Page(render([replace(closed, series=[second(0)])], ["old"]))
    assert not {"processors", "delays"} & set(page.figures)
    assert not page.shows("The generator over time")


def test_the_jitter_of_each_second_is_shown_over_udp_only(closed: Result) -> None:
    series = [second(0, jitter_us=250.0), second(1, jitter_us=None), second(2, jitter_us=500.0)]
    result = replace(closed, series=series, totals=replace(closed.totals, jitter_us=375.0))
    jitter = chart(result, "jitter")
    (line,) = jitter.data
    assert line["y"] == [0.00025, None, 0.0005]
    assert "on average 375 µs" in jitter.caption
    assert "jitter" not in {one.name for one in charts([Run.of(closed, "tcp")])}


def test_axes_of_seconds_show_the_time_on_the_clock() -> None:
    begin = datetime(2026, 11, 28, 23, 59, 55, tzinfo=UTC)
    texts = axes.of_seconds(9, begin)["ticktext"]
    assert [re.sub("<.*?>", " ", one) for one in texts[:4:3]] == [
        "0 s  23:59:55 ",
        "6 s  00:00:01 ",
    ]
    assert "29 Nov 23:59" in axes.of_seconds(100_000, begin)["ticktext"][2]


def test_a_series_without_a_beginning_has_no_clock(closed: Result) -> None:
    layout = chart(closed, "throughput").layout
    assert layout["meta"] == {"clock": closed.series_started_at}
    for unknown in (None, "some time"):
        layout = chart(replace(closed, series_started_at=unknown), "throughput").layout
        assert "meta" not in layout
        assert "<br>" not in layout["xaxis"]["ticktext"][0]
