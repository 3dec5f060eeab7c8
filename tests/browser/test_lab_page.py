"""The lab's page as a browser shows it: complete, readable, and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from support.open_page import LEAST_CONTRAST, SIZES, OpenPage
from support.processes import LOAD, run

# Plots beside one another and over sizes, and each verdict that can be had here.
NAMES = ("thread-names", "thread-join-order", "switch-cost", "greenlets", "timer")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lab") / "lab.html"
    ended = run([*LOAD, "lab", "run", "--quick", *NAMES, "--html", str(path)])
    assert ended.returncode == 0, ended.stderr.decode()
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_a_page_opens_from_disk_complete_and_readable(
    browser: Browser, page: Path, size: str, scheme: Any
) -> None:
    width, height = SIZES[size]
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    ) as context:
        opened = OpenPage(context.new_page(), page)
        assert opened.messages == []
        assert opened.requests == [page.as_uri()]
        articles = {str(one.get_attribute("id")): one for one in opened.all("article")}
        assert sorted(articles) == sorted(NAMES)
        verdicts = {one: articles[one].query_selector(".badge").inner_text() for one in NAMES}
        assert (verdicts["timer"], verdicts["thread-names"], verdicts["thread-join-order"]) == (
            *("holds", "holds within a limit", "does not hold"),
        )
        charts = {one: articles[one].query_selector_all(".chart") for one in NAMES}
        assert {name: len(found) for name, found in charts.items()} == {
            "thread-names": 0,
            "timer": 0,
            "thread-join-order": 1,
            "switch-cost": 1,
            "greenlets": 2,
        }
        for chart in (one for found in charts.values() for one in found):
            assert chart.query_selector_all(".scatterlayer .point")
            box = chart.bounding_box()
            assert box["width"] > 200
            assert box["height"] > 80
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        texts = "h1, h2, h3, h4, p, th, td, a, small, .badge"
        assert min(opened.contrasts(texts)) >= LEAST_CONTRAST
        assert min(opened.contrasts(".xtick text, .ytick text, .legendtext")) >= LEAST_CONTRAST
