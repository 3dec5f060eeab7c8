"""An HTML page that needs no network: it contains its scripts, styles and data.

The page has to stay small enough for a mail or a chat, so what is large in it is compressed (gzip,
base64), and unpacked by the browser. plotly.js alone would be 4.8 MB otherwise.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

_PAGE = files(__package__)


def render(
    template: str,
    figures: Mapping[str, Any],
    filters: Mapping[str, Callable[..., Any]],
    attachments: Mapping[str, str] | None = None,
    **values: object,
) -> bytes:
    """Render a page.

    Args:
        template: text of a jinja2 template, which inserts `style`, `scripts` at its end, and
            `policy`, the Content-Security-Policy.
        figures: data and layout of each chart for plotly.js, by the NAME in the id `chart-NAME` of
            its element.
        filters: filters of the template.
        attachments: files that the page offers for download, each as `packed` returns it, by the
            id that a button names in its attribute `data-download`.
        values: variables of the template.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= filters
    script = _read("report.js")
    data = {
        "figures": packed(json.dumps(figures, separators=(",", ":")).encode()),
        **(attachments or {}),
    }
    if figures:
        data["plotly"] = _packed_plotly()
    page: str = environment.from_string(template).render(
        **values,
        policy=_policy(get_plotlyjs(), script),
        style=_read("report.css"),
        scripts=Markup("\n").join([*map(_data_element, data, data.values()), _script(script)]),
    )
    return page.lstrip().encode(errors="backslashreplace")


def packed(content: bytes) -> str:
    """Return a content compressed and as text, in the form in which a page unpacks it."""
    # The same content gives the same page.
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


@cache
def _packed_plotly() -> str:
    return packed(get_plotlyjs().encode())


def _data_element(name: str, content: str) -> Markup:
    """Return an element with compressed data, which the browser does not execute."""
    return Markup('<script type="application/gzip" id="{}">{}</script>').format(name, content)


def _script(script: str) -> Markup:
    return Markup(f"<script>{script}</script>")  # noqa: S704  # a file of this package


def _policy(*scripts: str) -> str:
    """Return a Content-Security-Policy that allows only these scripts, and no request.

    Inline styles are allowed, because plotly.js uses them.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")
