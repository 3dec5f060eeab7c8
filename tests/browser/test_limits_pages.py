"""The pages of a watch and of searches for an idle timeout and a capacity, in a browser."""

from __future__ import annotations

import signal
import subprocess
from contextlib import closing
from itertools import combinations, product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser

from echo_load.report.html import render
from echo_load.results.result import Result
from support.open_page import LEAST_CONTRAST, SIZES, OpenPage, are_apart, assert_apart
from support.processes import DEADLINE, LOAD, EchoServerProcess, environment, loaded, until

CHARTS = {
    "watch": ["outages", "throughput", "response-over-time", "connections", "errors"],
    "idle": ["idle"],
    "capacity": ["capacity", "throughput", "response-over-time", "bandwidth", "connections"],
}
LATENCY_CHARTS = {
    "watch": ["distribution", "percentiles", "spread"],
    "idle": [],
    "capacity": [
        *("distribution", "percentiles", "response-and-service", "spread"),
        *("processors", "delays"),
    ],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """A real result of each command, with something to show."""
    logs = tmp_path_factory.mktemp("logs")
    with closing(EchoServerProcess("--idle-timeout", "1s", log=logs / "idle.log")) as server:
        _, idle = loaded("idle", server.url, "--up-to", "3s")
    with closing(EchoServerProcess("--rate-limit", "12800", log=logs / "slow.log")) as server:
        # 200 messages of 64 bytes a second on each of 2 connections.
        _, capacity = loaded(
            *("capacity", server.url, "--slo", "p99<500ms", "-c", "2", "--start", "200"),
            *("-d", "1s", "--warmup", "100ms", "--repeat", "1", "--precision", "30%"),
        )
    assert idle.idle is not None
    assert capacity.capacity is not None
    assert {step.kept for step in capacity.capacity.steps} == {True, False}
    return {"watch": _watched(logs), "idle": idle, "capacity": capacity}


def _watched(logs: Path) -> Result:
    """A watch of a server that was killed and started again."""
    with closing(EchoServerProcess(log=logs / "first.log")) as first:
        watch = subprocess.Popen(
            [*LOAD, "watch", first.url, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert b"watching" in watch.stderr.readline()
        first.process.kill()
        until(lambda: b"outage of" in watch.stderr.readline(), "the outage")  # type: ignore[union-attr]
        port = str(first.port)
    with closing(EchoServerProcess("--port", port, log=logs / "second.log")):
        until(lambda: b"end of" in watch.stderr.readline(), "its end")  # type: ignore[union-attr]
        watch.send_signal(signal.SIGINT)
        result = msgspec.json.decode(watch.stdout.read(), type=Result)
        watch.wait(DEADLINE)
        watch.stdout.close()
        watch.stderr.close()
    assert result.watch is not None
    assert result.watch.outages
    return result


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("command", list(CHARTS))
def test_a_page_is_complete_and_readable(
    browser: Browser,
    results: dict[str, Result],
    tmp_path: Path,
    command: str,
    size: str,
    scheme: Any,
) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(render([results[command]], [command]))
    width, height = SIZES[size]
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    ) as context:
        opened = OpenPage(context.new_page(), path)
        assert opened.messages == []
        charts = {
            str(one.get_attribute("id")).removeprefix("chart-"): one for one in opened.all(".chart")
        }
        assert list(charts) == CHARTS[command] + LATENCY_CHARTS[command]
        figures = opened.page.evaluate("figures")
        assert set(figures) == set(charts)
        for name, chart in charts.items():
            drawn = chart.query_selector_all(".scatterlayer .trace, .barlayer .trace")
            # The clock is a trace without a line.
            clock = "meta" in figures[name]["layout"]
            assert len(drawn) == len(figures[name]["data"]) + clock, name
            assert chart.query_selector_all(
                "path.js-line[d], .barlayer .point path, .scatterlayer .point"
            ), name
            assert_apart(chart.query_selector_all(".xtick text"))
            assert_apart(chart.query_selector_all(".shape-label text"))
        # Nothing is wider than the screen, except elements that scroll by themselves.
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        texts = "h1, h2, p, dt, dd, th, td, li, figcaption, .badge"
        assert min(opened.contrasts(texts)) >= LEAST_CONTRAST
        ticks = opened.contrasts(".xtick text, .ytick text, .legendtext")
        assert min(ticks) >= LEAST_CONTRAST


def test_the_page_of_a_watch_speaks_of_outages_and_not_of_a_load(
    browser: Browser, results: dict[str, Result], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(render([results["watch"]], ["watch"]))
    with browser.new_context() as context:
        opened = OpenPage(context.new_page(), path)
        heading = opened.page.inner_text("h1")
        assert heading.startswith("10 connections and a new one every 50ms, ")
        assert "refused" in opened.page.inner_text("section:has(#outage-list)")
        assert opened.page.text_content("#chart-outages .legendtext") == "refused"
        assert "open loop" not in opened.page.inner_text("main")


@pytest.mark.parametrize("size", list(SIZES))
def test_the_labels_of_a_capacity_do_not_overlap(
    browser: Browser, results: dict[str, Result], tmp_path: Path, size: str
) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(render([results["capacity"]], ["capacity"]))
    width, height = SIZES[size]
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        opened = OpenPage(context.new_page(), path)
        chart = "#chart-capacity"
        guides = {
            str(one.text_content()): one.bounding_box()
            for one in opened.all(f"{chart} .shape-label text")
        }
        ticks = {
            str(one.text_content()): one.bounding_box()
            for one in opened.all(f"{chart} :is(.xtick text, .ytick text, .legendtext)")
        }
        capacity = results["capacity"].capacity
        assert capacity is not None
        assert capacity.level is not None
        assert set(guides) == {"p99<500ms", capacity.written(capacity.level)}
        assert len(ticks) > 4
        pairs = [*combinations(guides.items(), 2), *product(guides.items(), ticks.items())]
        for (name, one), (other_name, other) in pairs:
            assert are_apart(one, other), (name, other_name)


def test_a_chart_without_its_element_keeps_no_other_from_being_drawn(
    browser: Browser, results: dict[str, Result], tmp_path: Path
) -> None:
    page = render([results["watch"]], ["watch"]).decode()
    path = tmp_path / "page.html"
    path.write_text(page.replace('id="chart-outages"', 'id="elsewhere"'))
    with browser.new_context() as context:
        opened = OpenPage(context.new_page(), path)
        assert opened.messages == []
        assert len(opened.all("#elsewhere .trace")) == 0
        assert len(opened.all("#chart-spread .trace")) == 1
