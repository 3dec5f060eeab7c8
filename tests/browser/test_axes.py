"""The axes of charts on a phone, for values between which there is little or much space."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from playwright.sync_api import Browser

from echo_load.report.html import render
from echo_load.report.page import axes
from support.open_page import SIZES, OpenPage, assert_apart
from support.processes import EchoServerProcess, loaded

SHOW = """
async ([name, axis]) => {
    const { xaxis } = document.getElementById(name).layout;
    await Plotly.relayout(name, { xaxis: { ...xaxis, ...axis } });
}
"""


def test_times_below_a_chart_are_level_and_apart(browser: Browser, tmp_path: Path) -> None:
    with closing(EchoServerProcess(log=tmp_path / "server.log")) as server:
        _, result = loaded("run", server.url, "-c", "2", "-n", "100")
    path = tmp_path / "page.html"
    path.write_bytes(render([result], ["run"]))
    width, height = SIZES["phone"]
    with browser.new_context(viewport={"width": width, "height": height}, offline=True) as context:
        opened = OpenPage(context.new_page(), path)
        for lowest in (1.5e-6, 1.5e-5, 3e-5, 1.5e-4, 3e-3, 7e-2):
            for ratio in (1, 1.5, 3, 7, 11, 20, 45, 90, 180, 400, 900, 3e3, 1e4, 1e5, 1e6, 1e8):
                axis = axes.of_times([lowest, lowest * ratio], below=True)
                assert len(axis["tickvals"]) >= 2
                opened.page.evaluate(SHOW, ["chart-distribution", axis])
                labels = opened.all("#chart-distribution .xtick text")
                assert len(labels) == len(axis["tickvals"])
                assert_apart(labels)
