"""The page as a browser shows it: complete, readable, and without a network."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser

from echo_load.report.html import render
from echo_load.results.evidence import Bytes, Evidence, escaped
from echo_load.results.result import Result
from support.open_page import LEAST_CONTRAST, SIZES, OpenPage
from support.processes import EchoServerProcess, loaded, until


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Result]:
    """A result that passed, and one with a bit of everything."""
    logs = tmp_path_factory.mktemp("logs")
    with closing(EchoServerProcess("--admin", "127.0.0.1:0", log=logs / "server.log")) as server:
        _, passed = loaded(
            *("run", server.url, "--stages", "2/1s,4/1s", "--repeat", "2"),
            *("--reconcile", server.admin, "--threshold", "p99<10s"),
        )
    faults = ("--fault", "reset@2%", "--fault", "delay=20ms@5%", "--fault", "corrupt@3%")
    with closing(EchoServerProcess(*faults, log=logs / "faulty.log")) as faulty:
        _, failed = loaded(
            *("run", faulty.url, "-c", "8", "-r", "500", "-d", "3s", "--threshold", "p99<1ms")
        )
    assert (passed.verdict, failed.verdict) == ("passed", "failed")
    return passed, failed


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("which", ["passed", "failed", "both"])
def test_a_report_opens_from_disk_complete_and_readable(
    browser: Browser,
    results: tuple[Result, Result],
    tmp_path: Path,
    which: str,
    size: str,
    scheme: Any,
) -> None:
    shown = {"passed": results[:1], "failed": results[1:], "both": results}[which]
    path = tmp_path / "report.html"
    path.write_bytes(render(shown, ["before", "after"][: len(shown)]))
    width, height = SIZES[size]
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    ) as context:
        opened = OpenPage(context.new_page(), path)
        assert opened.messages == []
        assert opened.requests == [path.as_uri()]
        charts = opened.all(".chart")
        figures = opened.page.evaluate("figures")
        assert len(charts) == {"passed": 6, "failed": 8, "both": 8}[which]
        for chart in charts:
            name = chart.get_attribute("id")
            drawn = chart.query_selector_all(".scatterlayer .trace, .barlayer .trace")
            assert len(drawn) == len(figures[str(name).removeprefix("chart-")]["data"]), name
            assert chart.query_selector_all("path.js-line[d], .barlayer .point path"), name
            box = chart.bounding_box()
            assert box is not None
            assert box["width"] > 200
            assert box["height"] > 200
        # Nothing is wider than the screen, except elements that scroll by themselves.
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        verdicts = [one.inner_text() for one in opened.all(".badge:not(.warn)")]
        assert verdicts == [{"passed": "Passed", "failed": "Failed"}[one.verdict] for one in shown]
        texts = "h1, h2, p, dt, dd, th, td, li, figcaption, .badge"
        assert min(opened.contrasts(texts)) >= LEAST_CONTRAST
        ticks = opened.contrasts(".xtick text, .ytick text, .legendtext")
        assert len(ticks) > 20
        assert min(ticks) >= LEAST_CONTRAST


def test_a_page_follows_the_colour_scheme_of_the_reader(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(render(results[:1], ["run"]))
    with browser.new_context(color_scheme="light") as context:
        opened = OpenPage(context.new_page(), path)
        tick = "document.querySelector('.xtick text').style.fill"
        before = opened.page.evaluate(tick)
        opened.page.emulate_media(color_scheme="dark")
        until(lambda: opened.page.evaluate(tick) != before, "the charts to be painted anew")
        assert min(opened.contrasts(".xtick text, .ytick text")) >= LEAST_CONTRAST
        assert opened.messages == []


def test_a_dark_page_is_printed_in_light_colours(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(render(results[:1], ["run"]))
    with browser.new_context(color_scheme="dark") as context:
        opened = OpenPage(context.new_page(), path)
        tick = "document.querySelector('.xtick text').style.fill"
        dark = opened.page.evaluate(tick)
        opened.page.evaluate(f"() => addEventListener('afterprint', () => {{ after = {tick} }})")
        opened.page.evaluate(f"() => addEventListener('beforeprint', () => {{ printed = {tick} }})")
        opened.page.pdf()
        assert opened.page.evaluate("printed") != dark
        until(lambda: opened.page.evaluate(tick) == dark, "the charts to be dark again")
        assert opened.messages == []


def test_markup_in_names_is_shown_and_not_executed(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    evil = "</script><script>document.title = 'run'</script><img src=x onerror=alert(1)>"
    path = tmp_path / "report.html"
    path.write_bytes(render(results, [evil, "other"]))
    with browser.new_context() as context:
        opened = OpenPage(context.new_page(), path)
        assert opened.messages == []
        assert opened.requests == [path.as_uri()]
        assert opened.page.title() != "run"
        assert evil in opened.page.inner_text("main")
        assert opened.all("img") == []


def test_the_first_failures_are_shown_byte_for_byte(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(render(results, ["before", "after"]))
    corrupt = results[1].evidence.replies_by_kind()["corrupt"]
    with browser.new_context() as context:
        opened = OpenPage(context.new_page(), path)
        rows = opened.all("section:has(#wrong-replies) tbody tr:has(.dump)")
        assert len(rows) == len(results[1].evidence.wrong_replies)
        shown = [one for one in rows if "corrupt" in (one.query_selector("th").text_content())]
        for one, row in zip(corrupt, shown, strict=True):
            said = row.inner_text()
            assert f"connection {one.connection}, message {one.message:,}, at " in said
            assert one.explanation in said
            for code, excerpt in zip(
                row.query_selector_all(".dump"), (one.sent, one.received), strict=True
            ):
                lines = code.inner_text().splitlines()
                assert bytes.fromhex("".join(line[:23] for line in lines)) == excerpt.data
                assert [len(line) for line in lines] == [24 + 1 + 8] * 4
                # The byte, and its character.
                marked = [mark.inner_text() for mark in code.query_selector_all("mark")]
                assert marked[0] == f"{excerpt.data[(one.offset or 0) - one.begin]:02x}"
                assert len(marked) == 2
        failures = [one.inner_text() for one in opened.all("section:has(#first-failures) .reason")]
        assert failures == ["the server reset the connection (Connection reset by peer)"]
        assert min(opened.contrasts(".evidence td, .evidence small, .dump, mark")) >= LEAST_CONTRAST


def test_replies_that_are_markup_are_shown_as_text(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    evil = b"</code><img src=x><script>1"
    (first, *_) = results[1].evidence.wrong_replies
    received = Bytes(size=len(evil), hex=evil.hex(), text=escaped(evil))
    evidence = Evidence(wrong_replies=(replace(first, received=received),))
    path = tmp_path / "report.html"
    path.write_bytes(render([replace(results[1], evidence=evidence)], ["run"]))
    with browser.new_context(offline=True) as context:
        opened = OpenPage(context.new_page(), path)
        assert opened.messages == []
        assert opened.all("img") == []
        lines = opened.all(".dump")[1].inner_text().splitlines()
        assert "".join(line[25:] for line in lines) == evil.decode()


def test_markup_in_names_is_escaped_in_charts(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    names = ["<b>bold</b> &amp;", "<a href='x:y'>z</a>"]
    path = tmp_path / "report.html"
    path.write_bytes(render(results, names))
    with browser.new_context() as context:
        opened = OpenPage(context.new_page(), path)
        legend = opened.all("#chart-throughput .legendtext")
        assert [one.text_content() for one in legend] == names
        assert opened.all("svg a, svg [style*=bold]") == []


def test_a_page_can_be_used_with_the_keyboard(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(render(results, ["before", "after"]))
    with browser.new_context() as context:
        opened = OpenPage(context.new_page(), path)
        for chart in opened.all(".chart"):
            assert chart.get_attribute("role") == "img"
            assert len(chart.get_attribute("aria-label") or "") > 20
        levels = [int(one.evaluate("one => one.tagName")[1]) for one in opened.all("h1, h2, h3")]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert levels.count(1) == 1
        # Elements that scroll by themselves can be scrolled with keys.
        for one in opened.all(".scroll"):
            assert one.get_attribute("tabindex") == "0"
        ids = opened.page.evaluate(
            "[...document.querySelectorAll('main [id]')].map((one) => one.id)"
        )
        assert len(set(ids)) == len(ids)
