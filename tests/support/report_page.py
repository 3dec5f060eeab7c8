"""An HTML report, read without a browser."""

from __future__ import annotations

import base64
import gzip
import json
from html.parser import HTMLParser
from typing import Any


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
        index = texts.index(name, texts.index(after) if after else 0)
        return texts[index + 1 : index + 3]

    def shows(self, text: str) -> bool:
        return text in " ".join(self.text)
