"""The page as a browser shows it: complete, readable, and without a network."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser

from echo_load.report.html import render
from echo_load.results.compare import compare
from echo_load.results.evidence import Bytes, Evidence, escaped
from echo_load.results.result import Result
from support.open_page import LEAST_CONTRAST, SIZES, OpenPage
from support.processes import LOAD, EchoServerProcess, loaded, run, until


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
        assert len(charts) == {"passed": 9, "failed": 11, "both": 11}[which]
        for chart in charts:
            name = str(chart.get_attribute("id")).removeprefix("chart-")
            drawn = chart.query_selector_all(".scatterlayer .trace, .barlayer .trace")
            # The clock is a trace without a line.
            clock = "meta" in figures[name]["layout"]
            assert len(drawn) == len(figures[name]["data"]) + clock, name
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


def test_the_result_is_downloaded_as_it_was_saved(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    evil = replace(results[1], reasons=["</script><script>document.title = 'run'</script>"])
    path = tmp_path / "report.html"
    path.write_bytes(render([results[0], evil], ["before", "after"]))
    with browser.new_context(offline=True) as context:
        opened = OpenPage(context.new_page(), path)
        for number, result in enumerate((results[0], evil)):
            with opened.page.expect_download() as waiting:
                opened.page.get_by_role("button", name="Download the result").nth(number).click()
            download = waiting.value
            assert download.suggested_filename == ("before.json", "after.json")[number]
            saved = tmp_path / download.suggested_filename
            download.save_as(saved)
            assert saved.read_bytes() == result.to_json()
        assert opened.page.title() != "run"
        assert opened.messages == []
    again = tmp_path / "again.html"
    ended = run([*LOAD, "report", str(tmp_path / "before.json"), "--html", str(again)])
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert again.read_bytes() == render(results[:1], ["before"])


@pytest.mark.parametrize("lacking", ["DecompressionStream", "JavaScript"])
def test_the_figures_are_readable_without_the_charts(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path, lacking: str
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(render(results[1:], ["run"]))
    with browser.new_context(java_script_enabled=lacking != "JavaScript") as context:
        context.add_init_script("delete globalThis.DecompressionStream")
        page = context.new_page()
        page.goto(path.as_uri())
        messages = {
            "DecompressionStream": page.locator("#undrawable"),
            "JavaScript": page.locator("noscript p"),
        }
        for reason, message in messages.items():
            assert message.is_visible() is (reason == lacking)
        assert page.get_by_role("button").count() == 0
        assert not any(one.is_visible() for one in page.locator(".chart").all())
        assert page.locator("section:has(#stages) td").first.is_visible()


def test_the_time_on_the_clock_is_shown_beside_the_second(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(render(results[1:], ["run"]))
    began = results[1].series_started_at
    assert began is not None
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        opened = OpenPage(context.new_page(), path)
        chart = opened.page.locator("#chart-throughput")
        ticks = [one.text_content() or "" for one in chart.locator(".xtick text").all()]
        at = [datetime.fromisoformat(began) + timedelta(seconds=number) for number in range(3)]
        assert ticks == [f"{number} s{one:%H:%M:%S}" for number, one in enumerate(at)]
        for before, after in pairwise(one.bounding_box() for one in chart.locator(".xtick").all()):
            assert before is not None
            assert after is not None
            assert before["x"] + before["width"] < after["x"]
        chart.locator(".nsewdrag").hover()
        box = chart.locator(".hoverlayer .legend")
        box.wait_for()
        said = box.text_content() or ""
        assert "second 1" in said
        assert f"{at[1]:%H:%M:%S} UTC" in said
        assert "answered" in said
        assert "due" in said


def test_several_results_are_compared_at_the_top(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    passed = results[0]
    path = tmp_path / "report.html"
    path.write_bytes(render([passed, passed], ["before", "after"]))
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        opened = OpenPage(context.new_page(), path)
        section = opened.page.locator("section:has(#compared-1)")
        rows = section.locator("tbody tr")
        changes = compare(passed, passed, names=("before", "after")).changes
        # A row for each stage, too.
        assert rows.count() == len(changes) + len(passed.stages)
        verdict = section.get_by_text("too few repeats").first
        assert verdict.is_visible()
        # The verdicts are seen without scrolling.
        box = rows.nth(1).locator("td").first.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
        above = section.bounding_box()
        below = opened.page.locator(".verdict").first.bounding_box()
        assert above is not None
        assert below is not None
        assert above["y"] < below["y"]
        assert min(opened.contrasts(".changes td, .changes th, .note, button")) >= LEAST_CONTRAST
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390


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


def test_rows_of_tables_are_readable_on_a_phone(
    browser: Browser, results: tuple[Result, Result], tmp_path: Path
) -> None:
    # Nothing in this name allows a line break.
    long = replace(results[1].stages[0], name="x" * 60)
    path = tmp_path / "report.html"
    path.write_bytes(render([replace(results[1], stages=[long])], ["run"]))
    width, height = SIZES["phone"]
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        opened = OpenPage(context.new_page(), path)
        dumps = [one.bounding_box() for one in opened.all(".dump")]
        assert dumps
        assert all(one["x"] > 0 and one["x"] + one["width"] <= width for one in dumps)
        row = opened.page.locator("section:has(#stages) tbody tr").first
        fits = "one => one.scrollWidth <= one.clientWidth"
        assert row.locator("th").evaluate(fits)


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
