"""The page for browsers, without one: what it says, and that nothing breaks out of it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from echo_load.latency import LatencyHistogram
from echo_load.report.charts import Run, charts
from echo_load.report.html import render
from echo_load.result import Latency, Result, Second
from support.processes import LOAD, StartServer, loaded, run

CHARTS = {
    "throughput",
    "response-over-time",
    "distribution",
    "percentiles",
    "connections",
    "spread",
    "response-and-service",
    "errors",
}


class Page(HTMLParser):
    """The text of a page, and what its scripts are."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        inside = self.tags[-1][0] if self.tags else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside != "style":
            self.text.append(" ".join(data.split()))

    @property
    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(self.scripts[0])
        return figures

    def says(self, text: str) -> bool:
        return text in " ".join(self.text)


@pytest.fixture
def closed(start_server: StartServer) -> Result:
    """Of a closed loop that passed, reconciled."""
    server = start_server("--admin", "127.0.0.1:0")
    _, result = loaded("run", server.url, "-c", "3", "-n", "300", "--reconcile", server.admin)
    return result


@pytest.fixture
def failed(start_server: StartServer) -> Result:
    """Of an open loop that failed and crossed a threshold."""
    url = start_server("--fault", "corrupt@20%").url
    _, result = loaded(
        *("run", url, "-c", "3", "-r", "500", "-d", "1s", "--threshold", "p50<1us"),
        *("--threshold", "errors<1"),
    )
    return result


def test_a_page_says_what_was_tested_and_what_came_of_it(closed: Result) -> None:
    page = Page(render([closed], ["closed"]))
    totals = closed.totals
    for said in (
        "Passed",
        "3 connections; 300 messages",
        closed.targets[0],
        f"{totals.messages_per_second:,.0f}",
        f"{totals.bytes_sent:,}",
        "echo_server_connections_accepted",
        closed.machine.platform,
        "closed loop",
        "3 connections",
    ):
        assert page.says(said), said
    assert set(page.figures) == CHARTS - {"errors", "response-and-service"}


def test_a_page_says_why_a_test_did_not_pass(failed: Result) -> None:
    page = Page(render([failed], ["failed"]))
    assert page.says("Failed")
    assert failed.reasons
    assert all(page.says(reason) for reason in failed.reasons)
    assert page.says("p50<1us")
    assert page.says("crossed")
    assert set(page.figures) == CHARTS
    errors = page.figures["errors"]["data"]
    assert {trace["name"]: sum(trace["y"]) for trace in errors} == failed.totals.errors


def test_several_runs_are_laid_over_one_another(closed: Result, failed: Result) -> None:
    page = Page(render([closed, failed], ["before", "after"]))
    assert page.says("2 runs")
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
    assert [trace["meta"]["colour"] for trace in figures["response-and-service"]["data"]] == [1, 1]


def test_names_and_targets_are_text_and_nothing_else(failed: Result) -> None:
    evil = "</script><script>alert(1)</script>\"'&<b>"
    changed = msgspec.structs.replace(failed, targets=[evil], reasons=[evil])
    for results, names in (([changed], [evil]), ([changed, changed], [evil, f"{evil}2"])):
        content = render(results, names)
        page = Page(content)
        assert b"<script>alert" not in content
        assert len(page.scripts) == 3
        assert page.figures["distribution"]["data"][0]["name"] == evil
        assert page.says(evil)


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


def test_a_test_without_a_reply_has_a_page(closed: Result) -> None:
    nothing = Latency.of(LatencyHistogram())
    latencies = msgspec.structs.replace(closed.latency_us, response=nothing, service=nothing)
    empty = msgspec.structs.replace(
        closed,
        latency_us=latencies,
        series=[],
        stages=[],
        reconciliation=None,
        verdict="interrupted",
        spread=msgspec.structs.replace(closed.spread, percentiles=[]),
    )
    page = Page(render([empty], ["empty"]))
    assert page.says("Interrupted")
    assert page.figures == {}


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
    result = msgspec.structs.replace(closed, series=series)
    (trace,) = chart(result, "throughput").data
    assert (trace["x"], trace["y"]) == ([0, 1, 2, 5, 6], [100, 100, None, 100, 100])
    # Nor where there was no reply: a logarithm knows no 0.
    assert chart(result, "response-over-time").data[0]["y"] == [0.001, 0.001, None, 0.001, None]
    assert [shape["x0"] for shape in chart(result, "throughput").layout["shapes"]] == [5]


def test_a_long_test_is_thinned_out_and_keeps_its_peaks(closed: Result) -> None:
    series = [second(number, p99_us=5e6 if number == 7777 else 1000.0) for number in range(20_000)]
    result = msgspec.structs.replace(closed, series=series)
    (trace,) = chart(result, "throughput").data
    assert len(trace["x"]) <= 1500
    assert set(trace["y"]) == {100}
    p99 = next(one for one in chart(result, "response-over-time").data if one["name"] == "p99")
    assert max(p99["y"]) == 5.0


def test_the_distribution_has_all_messages(closed: Result) -> None:
    (trace,) = chart(closed, "distribution").data
    assert sum(trace["y"]) == pytest.approx(100)
    (curve,) = chart(closed, "percentiles").data
    assert curve["y"] == sorted(curve["y"])
    assert curve["x"][-1] <= closed.totals.messages


def test_the_command_writes_the_page(closed: Result, tmp_path: Path) -> None:
    kept, page = tmp_path / "kept.json", tmp_path / "page.html"
    kept.write_bytes(closed.to_json())
    ended = run([*LOAD, "report", str(kept), "--html", str(page)])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert re.match(rb"\s*<!DOCTYPE html>", page.read_bytes())
