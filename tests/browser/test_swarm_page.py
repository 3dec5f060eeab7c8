"""Locust's page with a swarm, as a browser shows it: a test from the form to its end."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from support.processes import DEADLINE, StartServer, until
from support.swarms import Swarm, figure


@pytest.fixture
def swarm(start_server: StartServer, tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(start_server().url, tmp_path / "master.log")
    try:
        until(made.serves_page, "the web page")
        made.worker()
        until(lambda: "reported as ready" in made.log(), "a worker")
        yield made
    finally:
        made.close()


@pytest.fixture
def page(browser: Browser, swarm: Swarm) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(DEADLINE * 1000)
        opened = context.new_page()
        opened.goto(f"http://127.0.0.1:{swarm.web}/")
        yield opened


def rows(page: Page) -> dict[str, list[str]]:
    """The rows of the visible table, by their second column."""
    found = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
    return {cells[1]: cells for cells in found if len(cells) > 2}


def start(page: Page, users: int) -> None:
    page.locator("input[name=userCount]").fill(str(users))
    page.locator("input[name=spawnRate]").fill("100")
    page.get_by_role("button", name="Start").click()


def test_a_test_from_the_form_to_its_end(page: Page, swarm: Swarm) -> None:
    start(page, 20)
    page.get_by_role("tab", name="Charts").click()
    chart = page.locator("canvas").first
    before = chart.screenshot()
    until(lambda: chart.screenshot() != before, "the charts to move")

    page.get_by_role("tab", name="Microseconds").click()
    until(lambda: "message" in rows(page), "microseconds")
    method, _, count, *times = (cell.replace(",", "") for cell in rows(page)["message"])
    assert method == "TCP"
    assert int(count) > 0
    figures = [float(time) for time in times]
    assert 0 < figures[1] <= figures[-2] <= figures[-1]
    until(lambda: figure(rows(page)["message"][2]) > int(count), "more of them")
    assert list(rows(page))[-1] == "Aggregated"

    page.get_by_role("button", name="Stop").click()
    until(lambda: swarm.stats()["state"] == "stopped", "the end")
    assert {one["num_failures"] for one in swarm.stats()["stats"]} == {0}

    page.get_by_role("tab", name="Download Data").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download microseconds CSV").click()
    written = list(csv.DictReader(download.value.path().read_text().splitlines()))
    counts = {row["name"]: int(row["count"]) for row in written}
    assert counts["connect"] == 20
    assert counts.pop("Aggregated") == sum(counts.values())


def test_columns_are_sorted_by_size(page: Page, swarm: Swarm) -> None:
    # Sorted as text, "90" would come after most counts in the thousands.
    start(page, 90)
    page.get_by_role("tab", name="Microseconds").click()
    until(lambda: figure(rows(page).get("message", ["", "", "0"])[2]) > 1000, "messages")
    page.get_by_role("button", name="Stop").click()
    until(lambda: swarm.stats()["state"] == "stopped", "the end")
    page.get_by_text("# Requests").dblclick()
    until(lambda: list(rows(page))[-1] == "connect", "the fewest to be the last")


def test_the_report_shows_the_verdict(page: Page, swarm: Swarm) -> None:
    page.get_by_text("Custom parameters").click()
    page.get_by_label("Threshold").fill("p50<1us, errors<1")
    start(page, 5)
    until(lambda: swarm.stats()["total_rps"] > 0, "messages")
    page.get_by_role("button", name="Stop").click()
    until(lambda: swarm.stats()["state"] == "stopped", "the end")
    page.goto(f"http://127.0.0.1:{swarm.web}/stats/report?theme=dark")
    verdicts = page.locator(".echo").get_by_role("row")
    expect(verdicts.filter(has_text="threshold p50<1us")).to_contain_text("crossed")
    expect(verdicts.filter(has_text="threshold errors<1")).to_contain_text("kept")
    expect(verdicts.filter(has_text="Aggregated")).to_be_visible()
    expect(page.get_by_text("Request Statistics")).to_be_visible()


def test_an_error_in_the_form_is_shown_there(page: Page, swarm: Swarm) -> None:
    page.get_by_text("Custom parameters").click()
    page.get_by_label("Payload Size").fill("much")
    start(page, 1)
    expect(page.get_by_text("--payload-size: 'much' is not a size")).to_be_visible()
    assert swarm.stats()["state"] == "ready"
