"""A page that a browser has opened from disk: the contrast of its text, the space of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from playwright.sync_api import ElementHandle, Page

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
# For text of normal size (Web Content Accessibility Guidelines 2.2, success criterion 1.4.3).
LEAST_CONTRAST = 4.5

CONTRAST = """
(selector) => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => {
        const [r, g, b] = rgb.slice(0, 3).map((value) => {
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const back = parse(getComputedStyle(one).backgroundColor);
            if (back.length < 4 || back[3] > 0) return back;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll(selector)].map((element) => {
        const style = getComputedStyle(element);
        const colour = element instanceof SVGElement ? style.fill : style.color;
        const [high, low] = [light(parse(colour)), light(behind(element))].sort((a, b) => b - a);
        return (high + 0.05) / (low + 0.05);
    });
}
"""


class OpenPage:
    """A page opened from disk and drawn.

    Args:
        page: an empty page of the browser.
        path: file to open.

    Attributes:
        page: the page.
        messages: console messages and errors.
        requests: URLs that were requested.
    """

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.messages: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-drawn]")

    def contrasts(self, selector: str) -> list[float]:
        """Return the contrast ratio of each selected element to its background."""
        found: list[float] = self.page.evaluate(CONTRAST, selector)
        return found

    def all(self, selector: str) -> list[Any]:
        """Return all selected elements."""
        found: list[Any] = self.page.query_selector_all(selector)
        return found


def are_apart(one: Any, other: Any) -> bool:
    """Return whether two boxes do not overlap."""
    return any(
        a[at] + a[size] <= b[at]
        for a, b in ((one, other), (other, one))
        for at, size in (("x", "width"), ("y", "height"))
    )


def assert_apart(labels: Sequence[ElementHandle]) -> None:
    """Assert that labels are horizontal and do not overlap."""
    for label in labels:
        assert "rotate" not in (label.get_attribute("transform") or "").replace("rotate(0", "")
    boxes = [(label.text_content(), label.bounding_box()) for label in labels]
    # plotly.js hides a label that would be cut off.
    found = [(name, box) for name, box in boxes if box is not None]
    for (name, one), (other_name, other) in combinations(found, 2):
        assert are_apart(one, other), (name, other_name)
