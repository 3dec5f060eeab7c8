"""The HTML report, without a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from echo_load.measure.histogram import LatencyHistogram
from echo_load.report.comparison import counted, written_change
from echo_load.report.html import render
from echo_load.report.page.rows import NOTHING
from echo_load.results.compare import compare
from echo_load.results.result import Latency, Repeat, Result, Second, TargetResult
from support.processes import LOAD, run
from support.report_page import Page
from support.seconds import second

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
        index = texts.index(change.figure)
        assert texts[index + 1 : index + 6] == [
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
