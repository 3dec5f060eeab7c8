"""The HTML report, without a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.plan import Plan
from echo_load.report.comparison import counted, written_change
from echo_load.report.html import render
from echo_load.report.page import axes
from echo_load.report.page.charts import Run, charts
from echo_load.report.page.rows import NOTHING
from echo_load.report.page.seconds import parts
from echo_load.results.compare import compare
from echo_load.results.result import Latency, Repeat, Result, Second, TargetResult
from support.processes import LOAD, StartServer, loaded, run

CHARTS = {
    "throughput",
    "bandwidth",
    "processors",
    "delays",
    "response-over-time",
    "distribution",
    "percentiles",
    "connections",
    "spread",
    "response-and-service",
    "errors",
}


class Page(HTMLParser):
    """The text and the scripts of a page.

    Attributes:
        scripts: the scripts that a browser executes as it reads the page.
        packed: the compressed content of each element that has one, by its id.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.packed: dict[str, str] = {}
        self.inside = ""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.inside = tag
        if attributes.get("type") == "application/gzip":
            self.inside = "packed"
            self.packed[str(attributes["id"])] = ""
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # as its caller names it
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside == "packed":
            self.packed[list(self.packed)[-1]] += data
        elif self.inside != "style":
            self.text.append(" ".join(data.split()))

    @property
    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(self.unpacked("figures"))
        return figures

    def unpacked(self, name: str) -> bytes:
        """Return a compressed content."""
        return gzip.decompress(base64.b64decode(self.packed[name], validate=True))

    def row(self, name: str, after: str = "") -> list[str]:
        """Return the cells of the first table row with this name, after a text if it is given."""
        texts = [text for text in self.text if text]
        place = texts.index(name, texts.index(after) if after else 0)
        return texts[place + 1 : place + 3]

    def shows(self, text: str) -> bool:
        return text in " ".join(self.text)


@pytest.fixture
def closed(start_server: StartServer) -> Result:
    """Return the result of a closed loop that passed and was reconciled."""
    server = start_server("--admin", "127.0.0.1:0")
    _, result = loaded("run", server.url, "-c", "3", "-n", "300", "--reconcile", server.admin)
    return result


@pytest.fixture
def failed(start_server: StartServer) -> Result:
    """Return the result of an open loop that failed and crossed a threshold."""
    url = start_server("--fault", "corrupt@20%").url
    _, result = loaded(
        *("run", url, "-c", "3", "-r", "500", "-d", "1s", "--threshold", "p50<1us"),
        *("--threshold", "errors<1"),
    )
    return result


@pytest.mark.slow
def test_a_page_shows_the_plan_and_the_result(closed: Result) -> None:
    page = Page(render([closed], ["closed"]))
    totals = closed.totals
    for expected in (
        "Passed",
        "3 connections; 300 messages",
        closed.targets[0],
        f"{totals.messages_per_second:,.0f}",
        f"{totals.bytes_sent:,}",
        "connections accepted",
        "all identical to what was sent",
        "reconciled.",
        "all equal",
        "In a closed loop a message is due when it is sent",
        closed.machine.platform,
        "closed loop",
        "3 connections",
    ):
        assert page.shows(expected), expected
    # A short test has no delays of the event loop.
    assert set(page.figures) - {"delays"} == CHARTS - {"errors", "response-and-service", "delays"}


def test_a_page_counts_a_single_connection_in_the_singular(closed: Result) -> None:
    one = replace(closed.totals, connections_opened=1, messages=1)
    page = Page(render([replace(closed, totals=one)], ["one"]))
    assert page.shows("1 connection, 1 reply, all identical to what was sent")


@pytest.mark.slow
def test_a_page_shows_why_a_test_did_not_pass(failed: Result) -> None:
    page = Page(render([failed], ["failed"]))
    assert page.shows("Failed")
    assert failed.reasons
    assert all(page.shows(reason) for reason in failed.reasons)
    assert page.shows("p50<1us")
    assert page.shows("crossed")
    assert set(page.figures) == CHARTS
    errors = page.figures["errors"]["data"]
    assert {trace["name"]: sum(trace["y"]) for trace in errors} == failed.totals.errors


@pytest.mark.slow
def test_several_runs_share_their_charts(closed: Result, failed: Result) -> None:
    page = Page(render([closed, failed], ["before", "after"]))
    assert page.shows("2 runs")
    figures = page.figures
    assert set(figures) == CHARTS
    assert [trace["name"] for trace in figures["throughput"]["data"]] == ["before", "after"]
    assert [trace["name"] for trace in figures["percentiles"]["data"]] == ["before", "after"]
    assert [trace["name"] for trace in figures["response-over-time"]["data"]] == [
        "before p50",
        "before p99",
        "after p50",
        "after p99",
    ]
    assert [trace["meta"]["colour"] for trace in figures["response-and-service"]["data"]] == [
        "run-1",
        "run-1",
    ]
    # Runs are not distinguished by colour alone.
    for name in ("throughput", "percentiles", "connections", "spread"):
        symbols = [trace["marker"]["symbol"] for trace in figures[name]["data"]]
        assert symbols == ["circle", "square"], name
    for kind, count in failed.totals.errors.items():
        assert page.row(kind, after="Errors by kind") == [NOTHING, f"{count:,}"]


@pytest.mark.slow
def test_names_and_targets_are_never_markup(failed: Result) -> None:
    evil = "</script><script>alert(1)</script>\"'&<b>"
    changed = replace(failed, targets=[evil], reasons=[evil])
    for results, names in (([changed], [evil]), ([changed, changed], [evil, f"{evil}2"])):
        content = render(results, names)
        page = Page(content)
        assert b"<script>alert" not in content
        assert len(page.scripts) == 1
        assert set(page.packed) == {
            "figures",
            "plotly",
            *(f"result-{number}" for number in range(len(results))),
        }
        shown = page.figures["distribution"]["data"][0]["name"]
        # plotly.js reads it as markup.
        assert "<" not in shown
        assert evil.endswith(html.unescape(shown).removeprefix("…"))
        assert page.shows(evil)


def test_a_page_loads_nothing(closed: Result) -> None:
    page = Page(render([closed], ["closed"]))
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "data", "action"):
            assert name not in attributes, (tag, attributes)
        if tag in {"a", "link"}:
            assert attributes["href"] == "data:,"
    policy = next(
        attributes["content"]
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    # No scripts may run but those of the page.
    executed = [page.unpacked("plotly").decode(), *page.scripts]
    scripts = [f"'sha256-{_digest(script)}'" for script in executed]
    assert f"script-src {' '.join(scripts)};" in policy


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def test_a_test_without_replies_has_a_page(closed: Result) -> None:
    nothing = Latency.of(LatencyHistogram())
    latencies = replace(closed.latency_us, response=nothing, service=nothing)
    empty = replace(
        closed,
        latency_us=latencies,
        series=[],
        stages=[],
        reconciliation=None,
        verdict="interrupted",
        spread=replace(closed.spread, percentiles=[], most=0),
        totals=replace(closed.totals, messages=0, messages_per_second=0.0, seconds=0.0),
    )
    page = Page(render([empty], ["empty"]))
    assert page.shows("Interrupted")
    assert page.shows("nothing measured")
    assert page.figures == {}
    # It does not hide the charts of another result.
    assert set(Page(render([closed, empty], ["one", "none"])).figures) >= {"throughput", "spread"}


def test_errors_outside_the_series_are_shown_by_kind(closed: Result) -> None:
    totals = replace(closed.totals, errors={"refused": 7, "timeout": 2})
    result = replace(closed, series=[], totals=totals)
    errors = chart(result, "errors")
    (bars,) = errors.data
    assert (bars["x"], bars["y"]) == (["refused", "timeout"], [7, 2])
    assert "9 in all" in errors.caption


def second(number: int, **changes: Any) -> Second:
    times = dict.fromkeys(("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"), 1000.0)
    return Second(
        **{
            "second": number,
            "repeat": 1,
            "stage": "stage",
            "connections": 3,
            "messages": 100,
            "bytes_sent": 1,
            "bytes_received": 1,
            "errors": {},
            **times,
            **changes,
        }
    )


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
def test_the_command_writes_the_page(closed: Result, tmp_path: Path) -> None:
    kept, page = tmp_path / "kept.json", tmp_path / "page.html"
    kept.write_bytes(closed.to_json())
    ended = run([*LOAD, "report", str(kept), "--html", str(page)])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert re.match(rb"\s*<!DOCTYPE html>", page.read_bytes())


def random_second(number: int, source: random.Random, **changes: Any) -> Second:
    times = sorted(source.uniform(50, 50_000) for _ in range(5))
    return second(
        number,
        messages=source.randrange(10**6),
        bytes_sent=source.randrange(10**9),
        bytes_received=source.randrange(10**9),
        errors={"reset": source.randrange(100), "timeout": source.randrange(100)},
        p50_us=times[0],
        p90_us=times[1],
        p99_us=times[2],
        p99_9_us=times[3],
        max_us=times[4],
        generator_cores=source.random(),
        late_p99_us=source.uniform(10, 1000),
        lag_p99_us=source.uniform(10, 1000),
        **changes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
def test_the_page_of_a_long_test_stays_below_2_5_megabytes(failed: Result, count: int) -> None:
    source = random.Random(1)
    seconds = [random_second(number, source) for number in range(12_000)]
    target = TargetResult(
        target="",
        latency_us=failed.latency_us,
        series=seconds[:1500],
        **{name: getattr(failed.totals, name) for name in failed.totals.__struct_fields__},
    )
    by_target = tuple(replace(target, target=f"tcp://10.0.0.{at}:7") for at in range(8))
    result = replace(failed, series=seconds, by_target=by_target)
    content = render([result] * count, [f"{at}" for at in range(count)])
    assert 1_900_000 < len(content) < 2_500_000
    page = Page(content)
    if count > 1:
        return
    assert set(page.figures) >= {"throughput", "target-throughput", "processors"}
    assert page.shows("without the figures of each second, which are too many for this page")
    kept = msgspec.json.decode(page.unpacked("result-0"), type=Result)
    assert kept == replace(
        result, series=[], by_target=tuple(replace(one, series=[]) for one in by_target)
    )


def test_a_page_contains_the_file_of_each_result(closed: Result) -> None:
    evil = replace(closed, reasons=["</script><script>alert(1)</script>", "\udcff"])
    page = Page(render([closed, evil], ["before", "dir/a <b>.json"]))
    assert page.unpacked("result-0") == closed.to_json()
    assert page.unpacked("result-1") == evil.to_json()
    buttons = [attributes for tag, attributes in page.tags if tag == "button"]
    assert [(one["data-download"], one["data-file"]) for one in buttons] == [
        ("result-0", "before.json"),
        ("result-1", "dir-a-b.json"),
    ]


def test_a_result_that_does_not_fit_is_left_out_and_the_page_says_so(closed: Result) -> None:
    noise = random.Random(1).randbytes(600_000).hex()
    large = replace(closed, machine=replace(closed.machine, platform=noise))
    page = Page(render([closed, large], ["small", "large"]))
    assert page.unpacked("result-0") == closed.to_json()
    assert "result-1" not in page.packed
    assert page.shows("The result is too large for this page; it is in the file that")


def repeated(result: Result, factors: Sequence[float]) -> Result:
    """A result with a repeat for each factor, by which its response times are multiplied."""
    repeats = []
    for factor in factors:
        (stage,) = result.stages
        response = stage.latency_us.response
        slower = replace(response, p50=response.p50 * factor, p99=response.p99 * factor)
        latencies = replace(stage.latency_us, response=slower)
        stages = [replace(stage, latency_us=latencies)]
        repeats.append(Repeat(started_at=result.started_at, stages=stages))
    return replace(result, repeats=repeats)


def test_several_results_are_compared_at_the_top_as_compare_does(closed: Result) -> None:
    noise = (0.98, 0.99, 1.0, 1.01, 1.02)
    before = repeated(closed, noise)
    after = repeated(closed, [2 * one for one in noise])
    page = Page(render([before, after], ["before", "after"]))
    comparison = compare(before, after, names=("before", "after"))
    assert comparison.verdict == "worse"
    assert page.shows(counted(comparison))
    texts = [text for text in page.text if text]
    assert texts.index(counted(comparison)) < texts.index("Key figures")
    for change in comparison.changes:
        written = written_change(change)
        place = texts.index(change.figure)
        assert texts[place + 1 : place + 6] == [
            written.verdict,
            written.change,
            written.interval,
            written.baseline,
            written.other,
        ]
    assert page.row("response p50")[0] == "- worse"
    assert not page.shows("--repeat 5")


def test_results_with_too_few_repeats_are_compared_with_advice(closed: Result) -> None:
    page = Page(render([closed, closed, closed], ["a", "b", "c"]))
    assert page.shows("b against a")
    assert page.shows("c against a")
    assert page.row("messages")[0] == "? too few repeats; try 5x"
    assert page.shows("repeat both tests with --repeat 5")


def test_results_of_different_commands_are_shown_side_by_side_all_the_same(closed: Result) -> None:
    page = Page(render([closed, replace(closed, command="hold")], ["a", "b"]))
    assert page.shows("Not compared: a is of echo-load run and b of echo-load hold")
    assert "throughput" in page.figures


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
